from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naila.events import JsonValue
from naila.fleet import ActionSpec, DeviceProfile, DeviceView, FleetView, Outcome
from naila.orchestration.telling import ask, cannot, tell
from naila.understanding.reading import CannotDo, OpenQuestion, Step
from support.views import NAILA, fleet, outcome, seen

FLEET = fleet()
DRIVEN = outcome("rover", "drive", "done", {"distance": 0.5, "direction": "forward"})
MANY = [f"q{number}" for number in range(12)]


def told(*outcomes: Outcome, request_id: str = "q1", not_begun: tuple[Step, ...] = ()) -> str:
    return tell(outcomes, FLEET, NAILA, request_id, not_begun=not_begun)


@pytest.mark.parametrize(
    ("device", "action", "arguments", "words"),
    [
        ("rover", "drive", {"distance": 0.5, "direction": "forward"}, "drive forward 0.5 m"),
        ("rover", "drive", {"distance": 1, "speed": 0.2}, "drive 1 m, speed 0.2 m/s"),
        ("rover", "turn", {"angle": 90.0, "direction": "left"}, "turn left 90 deg"),
        ("rover", "beep", {"times": 2}, "beep twice"),
        ("rover", "go_to", {"place": "door"}, "go to door"),
        ("rover", "set_parameter", {"name": "max_speed", "value": 0.3}, "set max speed to 0.3 m/s"),
        ("rover", "set_parameter", {"name": "camera", "value": False}, "switch camera off"),
        ("lamp", "blink", {"times": 3, "interval": 1}, "blink 3 times, interval 1 s"),
        ("lamp", "set_brightness", {"level": 40}, "set brightness 40%"),
        ("arm", "close_gripper", {"force": 10}, "close gripper, force 10 N"),
        ("ghost", "haunt", {"hours": 3}, "haunt, hours 3"),
    ],
)
def test_a_deed_is_told_exactly(device: str, action: str, arguments: dict[str, object], words: str) -> None:
    assert words in told(outcome(device, action, "done", arguments))


def test_the_same_is_told_in_different_words() -> None:
    assert len({told(DRIVEN, request_id=request_id) for request_id in MANY}) > 1


def test_steps_that_were_done_are_one_sentence() -> None:
    turned = outcome("rover", "turn", "done", {"angle": 90, "direction": "left"})
    assert "turn left 90 deg, then drive forward 0.5 m." in told(turned, DRIVEN)


def test_a_device_that_was_not_spoken_to_is_named() -> None:
    assert "Lamp" in told(outcome("lamp", "switch", "done", {"state": "on"}))
    assert "Rover" not in told(DRIVEN)


def test_of_several_devices_each_deed_has_its_own() -> None:
    words = told(outcome("lamp", "switch", "done", {"state": "on"}), DRIVEN)
    assert "switch on (Lamp), then drive forward 0.5 m (Rover)" in words


@pytest.mark.parametrize("request_id", MANY)
def test_partial_success_tells_what_was_done_what_failed_and_what_was_not_begun(request_id: str) -> None:
    failed = outcome("rover", "beep", "failed", {"times": 2}, code="action_failed", message="horn is broken")
    left = (Step(device_id="rover", name="go_to", arguments={"place": "dock"}),)
    words = told(DRIVEN, failed, request_id=request_id, not_begun=left)
    done, rest = words.split(".", 2)[0], words
    assert "drive forward" in done
    assert "beep twice" in rest
    assert "“horn is broken”" in rest
    assert words.index("horn is broken") < words.index("go to dock")
    assert "begun" in words or "begin" in words


@pytest.mark.parametrize("status", ["failed", "refused", "unanswered", "stopped", "pending"])
@pytest.mark.parametrize("request_id", MANY)
def test_what_was_not_done_is_never_told_as_done(status: str, request_id: str) -> None:
    words = told(outcome("lamp", "switch", status, {"state": "on"}), request_id=request_id)  # type: ignore[arg-type]
    assert not words.startswith(("Done", "I've done"))
    assert "has done" not in words
    assert "switch on" in words


def test_what_is_not_known_is_told_so() -> None:
    words = told(outcome("lamp", "switch", "unanswered", {"state": "on"}))
    assert "know" in words or "tell" in words
    assert "Lamp hasn't answered" in words


def test_a_refusal_tells_what_was_asked_and_what_is_allowed() -> None:
    message = "distance is 10 m; 0.05 to 3 m is allowed"
    words = told(outcome("rover", "drive", "refused", {"distance": 10}, code="out_of_range", message=message))
    assert "drive 10 m" in words
    assert "0.05 to 3 m is allowed" in words


def test_a_refusal_without_words_has_a_reason() -> None:
    assert "Lamp is offline." in told(outcome("lamp", "switch", "refused", {"state": "on"}, code="device_offline"))


def test_what_waits_is_asked_in_the_words_that_were_published() -> None:
    question = "Rover: clear map. Shall I do it?"
    assert told(outcome("rover", "clear_map", "pending", question=question)) == question


def test_what_waits_is_asked_exactly() -> None:
    assert "clear map" in told(outcome("rover", "clear_map", "pending"))


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("photo_12.jpg", "Rover reports: “photo_12.jpg”."),
        ({"file": "a.jpg", "size": 3}, "“file a.jpg, size 3”"),
        (12.5, "“12.5”"),
    ],
)
def test_what_a_device_returns_is_quoted(result: object, words: str) -> None:
    assert words in told(outcome("rover", "take_photo", "done", result=result))


@pytest.mark.parametrize("result", [None, True, "", "ok", "Done", {}, []])
def test_a_result_that_says_nothing_is_not_told(result: object) -> None:
    assert "reports" not in told(outcome("rover", "take_photo", "done", result=result))


def test_nothing_is_told_of_nothing() -> None:
    assert told() == "Nothing was done."


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=3000), st.sampled_from(MANY))
def test_a_devices_words_are_bounded_on_one_line_and_cannot_leave_their_quotes(text: str, request_id: str) -> None:
    failed = outcome("rover", "beep", "failed", code="action_failed", message=text)
    returned = outcome("rover", "take_photo", "done", result={text: text})
    words = told(failed, returned, request_id=request_id)
    assert len(words) < 900
    assert not any(unicodedata.category(char)[0] == "C" for char in words)
    assert words.count("“") == words.count("”") <= 2


def argument(device_id: str, action: str, argument: str, **known: object) -> OpenQuestion:
    return OpenQuestion(kind="argument", device_id=device_id, action=action, argument=argument, arguments=known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        (argument("rover", "drive", "distance"), ("How far should I drive", "0.05 to 3 m")),
        (argument("rover", "turn", "angle"), ("How far around should I turn", "1 to 360 deg")),
        (argument("rover", "turn", "direction"), ("direction", "left or right")),
        (argument("lamp", "blink", "times"), ("should Lamp blink", "1 to 20")),
        (argument("lamp", "set_color", "color"), ("color", "red, green")),
        (argument("arm", "move_joint", "angle"), ("angle", "-120 to 120 deg")),
        (argument("rover", "set_parameter", "value", name="max_speed"), ("ax speed", "0.05 to 0.5 m/s")),
        (argument("rover", "set_parameter", "value", name="camera"), ("amera", "on or off")),
        (argument("arm", "set_parameter", "value", name="tool"), ("ool", "gripper, suction or pen")),
        (OpenQuestion(kind="device", choices=("rover", "arm")), ("Rover in the kitchen or Arm in the workshop",)),
        (OpenQuestion(kind="action", device_id="rover", choices=("drive", "go_to")), ("“drive” or “go to”",)),
        (OpenQuestion(kind="action", device_id="lamp"), ("Lamp",)),
        (OpenQuestion(kind="device"), ("I ",)),
        (argument("ghost", "haunt", "hours"), ("hours", "haunt")),
    ],
)
@pytest.mark.parametrize("request_id", MANY[:4])
def test_what_is_missing_is_asked_with_what_it_may_be(
    question: OpenQuestion, parts: tuple[str, ...], request_id: str
) -> None:
    words = ask(question, FLEET, NAILA, request_id)
    assert all(part in words for part in parts), words


def test_two_of_the_same_name_are_told_apart_by_room() -> None:
    twin = DeviceView(profile=DeviceProfile(device_id="rover2", name="Rover", room="lab"))
    view = FleetView("rover", (seen("rover"), twin))
    words = ask(OpenQuestion(kind="device", choices=("rover", "rover2")), view, NAILA, "q1")
    assert "Rover (kitchen) or Rover (lab)" in words


@pytest.mark.parametrize(
    ("reading", "parts"),
    [
        (
            CannotDo(code="out_of_range", device_id="rover", action="drive", argument="distance", asked="10 m"),
            ("10 m", "distance", "0.05 to 3 m"),
        ),
        (
            CannotDo(
                code="bad_arguments",
                device_id="rover",
                action="go_to",
                argument="place",
                asked="the attic",
                allowed="dock, door, table or window",
            ),
            ("the attic", "place", "dock, door, table or window"),
        ),
        (CannotDo(code="unknown_action", device_id="rover", asked="fly to the moon"), ("“fly to the moon”",)),
        (CannotDo(code="unknown_action", asked="fly", allowed="drive or turn"), ("“fly”", "drive or turn")),
        (CannotDo(code="unknown_action"), ("t",)),
    ],
)
@pytest.mark.parametrize("request_id", MANY[:4])
def test_what_cannot_be_done_is_told_with_what_is_allowed(
    reading: CannotDo, parts: tuple[str, ...], request_id: str
) -> None:
    words = cannot(reading, FLEET, NAILA, request_id)
    assert all(part in words for part in parts), words


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=400), st.recursive(st.none() | st.text(max_size=20) | st.floats(), st.lists, max_leaves=5))
def test_whatever_a_device_declared_is_told_without_failing(text: str, value: object) -> None:
    schema = {"type": "object", "properties": {"a": {"unit": value, "description": value, "enum": value}}}
    spec = ActionSpec(name="act", description=text, parameters=schema)  # type: ignore[arg-type]
    device = DeviceView(profile=DeviceProfile(device_id="x", name=text, room=text, actions={"act": spec}))
    view = FleetView("rover", (device,))
    words = tell([outcome("x", "act", "done", {"a": value, "b": text})], view, NAILA, "q1")
    assert words
    assert ask(argument("x", "act", "a"), view, NAILA, "q1")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"distance": 0.5}, ""),
        ({"distance": 0.497}, ""),
        ({"distance": 0.5, "battery": 80}, "battery 80"),
        ({"distance": 0.3}, "distance 0.3"),
        (0.5, ""),
        (True, ""),
    ],
)
def test_a_result_that_repeats_the_wish_is_not_told_again(result: JsonValue, words: str) -> None:
    said = told(replace(DRIVEN, result=result))
    assert ("report" in said.lower() or "“" in said) == bool(words)
    assert words in said


def test_a_setting_that_is_told_back_is_not_told_again() -> None:
    set_speed = outcome("rover", "set_parameter", "done", {"name": "max_speed", "value": 0.2})
    assert "“" not in told(replace(set_speed, result={"max_speed": 0.2}))
