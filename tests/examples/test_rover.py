"""examples/rover.py as a process on a real broker: it does what it is told, once, in time, and says what is true."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import AsyncIterator

import pytest

from support.example import EXAMPLES, Example, example, python_example
from support.mosquitto import Mosquitto

pytestmark = pytest.mark.broker


@pytest.fixture
async def rover(broker: Mosquitto, device_id: str) -> AsyncIterator[Example]:
    async with example(broker, device_id, python_example(broker, device_id, "rover.py")) as device:
        yield device


async def test_it_declares_itself_and_keeps_measuring(rover: Example) -> None:
    document = json.loads((EXAMPLES / "rover.json").read_text())
    assert await rover.ear.until_object(rover.topic("capabilities"), lambda _: True) == document
    telemetry = await rover.telemetry()
    assert set(document["telemetry"]) | set(document["parameters"]) == set(telemetry)
    assert telemetry["x"] == telemetry["y"] == 0


async def test_it_drives_as_far_as_it_was_told(rover: Example) -> None:
    result = await rover.do("drive", distance=1.0)
    assert result["ok"]
    assert result["result"]["distance"] == pytest.approx(1.0, abs=0.01)
    assert (await rover.do("turn", angle=90, direction="left"))["result"]["angle"] == pytest.approx(90, abs=1)
    assert (await rover.do("drive", distance=0.5, direction="backward", speed=0.5))["ok"]
    telemetry = await rover.telemetry()
    assert telemetry["x"] == pytest.approx(1.0, abs=0.03)
    assert telemetry["y"] == pytest.approx(-0.5, abs=0.03)
    assert telemetry["heading"] == pytest.approx(90, abs=1)
    assert telemetry["battery"] <= 90


async def test_it_says_how_far_it_came_before_it_was_blocked(rover: Example) -> None:
    result = await rover.do("drive", distance=3.0, speed=0.5)
    assert not result["ok"]
    assert result["error"].startswith("blocked by the crate after 2.")
    telemetry = await rover.telemetry()
    assert result["result"]["distance"] == pytest.approx(telemetry["x"], abs=0.01)
    assert telemetry["obstacle_distance"] < 0.1


@pytest.mark.parametrize("place", ["door", "table", "window"])
async def test_it_finds_a_way_there_and_back_to_its_charger(rover: Example, place: str) -> None:
    assert (await rover.do("go_to", place=place)) == {"id": "a1", "ok": True, "result": {"place": place}}
    empty = (await rover.telemetry())["battery"]
    assert (await rover.do("go_to", place="dock"))["ok"]
    await rover.ear.until_object(rover.topic("telemetry"), lambda found: found["battery"] > empty)


async def test_what_is_late_is_not_begun(rover: Example) -> None:
    result = await rover.do("drive", distance=1.0, in_s=-0.5)
    assert not result["ok"]
    assert result["error"].startswith("expired")
    assert (await rover.telemetry())["x"] == 0


async def test_the_same_action_is_done_once_and_answered_again(rover: Example) -> None:
    first = await rover.do("drive", distance=0.5)
    rover.order("drive", id_=first["id"], distance=0.5)
    await rover.do("beep")
    results = [found for found in rover.ear.objects(rover.topic("action/result")) if found["id"] == first["id"]]
    assert results == [first, first]
    assert (await rover.telemetry())["x"] == pytest.approx(0.5, abs=0.01)


async def test_a_repeat_while_it_is_under_way_is_ignored(rover: Example) -> None:
    action_id = rover.order("drive", distance=1.0)
    rover.order("drive", id_=action_id, distance=1.0)
    result = await rover.result(action_id)
    await rover.do("beep")
    results = [found for found in rover.ear.objects(rover.topic("action/result")) if found["id"] == action_id]
    assert results == [result]


async def test_stop_stops_at_once_and_the_drive_tells_how_far_it_came(rover: Example) -> None:
    driving = rover.order("drive", distance=2.0, speed=0.2)
    await rover.ear.until_object(rover.topic("telemetry"), lambda found: found["moving"])
    began = time.monotonic()
    stop = await rover.do("stop", in_s=-10)  # a stop is never too late
    assert time.monotonic() - began < 1
    assert stop["ok"]
    assert stop["result"] == {"stopped": ["drive"]}
    result = await rover.result(driving)
    assert not result["ok"]
    assert result["error"].startswith("stopped after")
    telemetry = await rover.telemetry()
    assert not telemetry["moving"]
    assert result["result"]["distance"] == pytest.approx(telemetry["x"], abs=0.01)


async def test_the_wheels_do_one_thing_at_a_time(rover: Example) -> None:
    driving = rover.order("drive", distance=2.0)
    assert (await rover.do("turn", angle=90, direction="left"))["error"] == "busy: drive is under way"
    assert (await rover.do("beep", times=2))["ok"]
    assert (await rover.result(driving))["ok"]


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("drive", {"distance": 99}, "distance must be from 0.05 to 3, not 99"),
        ("drive", {"distance": "1"}, "distance must be of type number"),
        ("drive", {"distance": True}, "distance must be of type number"),
        ("drive", {}, "distance is missing"),
        ("drive", {"distance": 1, "wings": 2}, "wings is not an argument of drive"),
        ("turn", {"angle": 90, "direction": "up"}, "direction must be one of left, right"),
        ("run", {}, "unknown: run"),
        ("__init__", {}, "unknown: __init__"),
        ("set_parameter", {"name": "firmware", "value": "2"}, "firmware cannot be set"),
        ("set_parameter", {"name": "max_speed", "value": 5}, "max_speed must be from 0.05 to 0.5, not 5"),
    ],
)
async def test_it_checks_again_what_the_brain_has_checked(
    rover: Example, name: str, arguments: dict[str, object], error: str
) -> None:
    rover.publish(
        "action",
        {
            "id": "bad",
            "request_id": "q",
            "name": name,
            "arguments": arguments,
            "expires_at": "2999-01-01T00:00:00Z",
            "seq": 1,
        },
    )
    assert await rover.result("bad") == {"id": "bad", "ok": False, "error": error}


async def test_a_parameter_that_is_set_counts(rover: Example) -> None:
    assert (await rover.do("take_photo"))["ok"]
    assert (await rover.do("set_parameter", name="camera", value=False))["result"] == {"camera": False}
    assert (await rover.do("take_photo"))["error"] == "the camera is off"
    assert (await rover.telemetry())["camera"] is False


async def test_a_cleared_map_is_empty(rover: Example) -> None:
    assert (await rover.do("clear_map"))["result"] == {"forgotten": 4}
    assert not (await rover.do("go_to", place="door"))["ok"]


async def test_what_is_typed_is_said(rover: Example) -> None:
    rover.say("go to the door")
    intent = await rover.ear.until_object(rover.topic("intent"), lambda _: True)
    assert intent["text"] == "go to the door"
    assert intent.keys() == {"id", "text"}


async def test_a_pending_action_is_answered_with_yes(rover: Example) -> None:
    pending = {"id": "p1", "request_id": "q1", "name": "clear_map", "arguments": {}, "question": "Clear the map?"}
    rover.publish("action/pending", {**pending, "expires_at": "2999-01-01T00:00:00Z"})
    await rover.do("beep")  # comes after it
    rover.say("Yes")
    assert await rover.ear.until_object(rover.topic("confirm"), lambda _: True) == {"id": "p1", "approve": True}


async def test_whoever_kills_it_is_told_by_its_last_will(rover: Example) -> None:
    rover.process.send_signal(signal.SIGKILL)
    await rover.status("offline")


async def test_it_leaves_in_good_order(rover: Example) -> None:
    rover.order("drive", distance=1.0)
    rover.process.send_signal(signal.SIGINT)
    await rover.status("offline")
    assert rover.process.wait(5) == 0


async def test_it_outlives_what_is_no_action(rover: Example) -> None:
    rover.publish("action", {"name": "drive"})
    rover.publish("reply", {"text": "hello"})
    assert (await rover.do("beep"))["ok"]
