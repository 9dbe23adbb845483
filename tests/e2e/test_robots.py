"""Robots that do what they are told: the whole daemon, a real broker, and robots that answer well, badly or never."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from naila.config.settings import Settings
from naila.events import Action, Cancel, Capabilities, Confirmation, DeviceStatus, EmergencyStop, Telemetry
from support.brain import Brain, BrainMaker
from support.ear import Ear
from support.mosquitto import Mosquitto
from support.robot import Answer, Robot, declared, obeys
from support.robots import until

pytestmark = pytest.mark.broker

# Robots need no model: without one the daemon is up in a second.
NO_MODEL = {"LLM_MODEL_PATH": "", "MODELS_DIR": "no-models"}
CONFIRM_S = 3.0
HOLD_S = 0.6  # what comes so soon after a stop may be older, and moves nothing


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory, shared_broker: Mosquitto) -> Iterator[Brain]:
    """A daemon that is up, without a model."""
    made = Brain(
        tmp_path_factory.mktemp("robots"),
        shared_broker.port,
        **NO_MODEL,
        MQTT_CLIENT_ID="naila-robots",
        MQTT_TOPIC_ROOT="robots",
        CONFIRM_TIMEOUT_S=str(CONFIRM_S),
        METRICS_INTERVAL_S="0.2",
    ).start()
    made.wait_for_log("the brain is degraded")
    yield made
    assert made.stop() == 0, made.log()


@pytest.fixture
def settings(shared_broker: Mosquitto, brain: Brain) -> Settings:
    """How robots reach it."""
    return shared_broker.settings(MQTT_TOPIC_ROOT="robots")


@asynccontextmanager
async def a_robot(
    settings: Settings, device_id: str, answer: Answer = obeys, *, name: str = "rover", ttl_ms: int | None = None
) -> AsyncIterator[Robot]:
    """A robot that the brain knows; forgotten at the end, so that the next test's are alone."""
    async with Robot(settings, device_id, declared(name, ttl_ms=ttl_ms), answer) as robot:
        await robot.device.wait_for_brain("online", "degraded")
        await asyncio.sleep(0.1)
        yield robot
        await forget(robot)


async def forget(robot: Robot) -> None:
    robot.device.send(Capabilities(device_id=robot.device_id, document=None))
    await asyncio.sleep(0.05)


async def never(robot: Robot, action: Action) -> None:
    """Hear it and say nothing."""


async def fails(robot: Robot, action: Action) -> None:
    robot.result(action.id, ok=False, error="a wheel is stuck")


async def twice(robot: Robot, action: Action) -> None:
    robot.result(action.id)
    robot.result(action.id, ok=False, error="second thoughts")


async def late(robot: Robot, action: Action) -> None:
    await asyncio.sleep(1.2)
    robot.result(action.id)


async def as_another(robot: Robot, action: Action) -> None:
    robot.result(f"{action.id}x")


async def dies(robot: Robot, action: Action) -> None:
    robot.device.send(DeviceStatus(device_id=robot.device_id, status="offline"))


async def test_a_command_moves_and_the_reply_says_what_the_device_said(settings: Settings) -> None:
    async def answer(robot: Robot, action: Action) -> None:
        await asyncio.sleep(0.2)
        robot.result(action.id, result={"driven": 1.02})

    async with a_robot(settings, "r-moves", answer) as robot:
        reply = await robot.say("Drive forward one meter, please.")
    assert [name for name, _ in robot.moves] == ["drive"]
    assert robot.moves[0][1]["distance"] == 1
    assert (reply.source, reply.intent, reply.finish_reason) == ("action", "command", "stop")
    assert [(action.name, action.ok, action.result) for action in reply.actions] == [("drive", True, {"driven": 1.02})]
    assert "1.02" in reply.text
    assert robot.errors == []


async def test_what_fails_is_told_as_the_device_told_it(settings: Settings) -> None:
    async with a_robot(settings, "r-fails", fails) as robot:
        reply = await robot.do("beep")
    assert [(action.ok, action.error) for action in reply.actions] == [(False, "a wheel is stuck")]
    assert "a wheel is stuck" in reply.text


async def test_a_failed_step_ends_the_sequence(settings: Settings) -> None:
    async def answer(robot: Robot, action: Action) -> None:
        await (fails if action.name == "turn" else obeys)(robot, action)

    async with a_robot(settings, "r-seq", answer) as robot:
        reply = await robot.say("drive forward half a meter, then turn left 90 degrees, then take a photo")
    assert [name for name, _ in robot.moves] == ["drive", "turn"]
    assert [action.ok for action in reply.actions] == [True, False]
    assert "photo" in reply.text


@pytest.mark.parametrize(
    ("words", "code"),
    [("drive forward 10 meters", "out_of_range"), ("go to the attic", None), ("fly to the moon", None)],
)
async def test_what_cannot_be_done_moves_nothing_and_says_why(settings: Settings, words: str, code: str | None) -> None:
    async with a_robot(settings, "r-cannot") as robot:
        reply = await robot.say(words)
        assert robot.moves == []
    assert reply.actions == ()
    assert code is None or code in robot.errors


async def test_the_envelope_holds_for_named_actions_too(settings: Settings) -> None:
    async with a_robot(settings, "r-api") as robot:
        good = await robot.do("drive", distance=1)
        wrong = [
            await robot.do("drive", distance=10),
            await robot.do("drive", distance=1, faster=True),
            await robot.do("fly"),
            await robot.do("drive", distance="far"),
        ]
        assert robot.moves == [("drive", {"distance": 1})]
    assert [action.ok for action in good.actions] == [True]
    assert [[action.ok for action in reply.actions] for reply in wrong] == [[False]] * 4
    assert robot.errors == ["out_of_range", "bad_arguments", "unknown_action", "bad_arguments"]


async def test_a_question_back_and_its_answer(settings: Settings) -> None:
    async with a_robot(settings, "r-asks") as robot:
        asked = await robot.say("drive forward")
        assert robot.moves == []
        assert "?" in asked.text
        reply = await robot.say("a meter")
    assert [name for name, _ in robot.moves] == ["drive"]
    assert [action.ok for action in reply.actions] == [True]


async def test_a_parameter_is_set_by_talking(settings: Settings) -> None:
    async with a_robot(settings, "r-sets") as robot:
        reply = await robot.say("set the max speed to 0.3")
    assert robot.moves == [("set_parameter", {"name": "max_speed", "value": 0.3})]
    assert [action.ok for action in reply.actions] == [True]


async def test_small_talk_moves_nothing(settings: Settings) -> None:
    async with a_robot(settings, "r-talks") as robot:
        for words in ("Hello!", "You drive me crazy.", "I went to the door yesterday.", "What a nice day."):
            reply = await robot.say(words)
            assert reply.actions == ()
        assert robot.actions == []


async def test_a_transcript_that_still_grows_moves_nothing(settings: Settings) -> None:
    async with a_robot(settings, "r-partial") as robot:
        robot.tell("drive forward one meter", partial=True)
        await robot.say("Hello!")
        assert robot.actions == []


@pytest.mark.parametrize("approve", [True, False])
async def test_a_persons_answer_by_topic(settings: Settings, approve: bool) -> None:
    async with a_robot(settings, "r-topic") as robot:
        request = robot.press("clear_map")
        pending = await robot.asked()
        assert (pending.name, pending.arguments, pending.request_id) == ("clear_map", {}, request.id)
        assert robot.moves == []
        # Nobody waits behind it.
        assert (await robot.do("take_photo")).actions[0].ok
        robot.device.send(Confirmation(device_id=robot.device_id, id=pending.id, approve=approve))
        reply = await robot.reply_to(request)
        robot.device.send(Confirmation(device_id=robot.device_id, id=pending.id, approve=True))
        await until(lambda: "not_confirmed" in robot.errors)
    assert [name for name, _ in robot.moves] == ["take_photo", "clear_map"][: 1 + approve]
    assert [action.ok for action in reply.actions] == [approve]
    assert (reply.source, len([each for each in robot.replies if each.id == request.id])) == ("action", 1)


@pytest.mark.parametrize(("words", "ok"), [("yes", True), ("no", False)])
async def test_a_persons_answer_by_voice(settings: Settings, words: str, ok: bool) -> None:
    async with a_robot(settings, "r-voice") as robot:
        request = robot.press("clear_map")
        await robot.asked()
        said = await robot.say(words)
        reply = await robot.reply_to(request)
    assert said.intent == ("affirm" if ok else "deny")
    assert [action.ok for action in reply.actions] == [ok]
    assert robot.moves == [("clear_map", {})][:ok]


async def test_a_question_that_nobody_answers_expires(settings: Settings) -> None:
    async with a_robot(settings, "r-expires") as robot:
        request = robot.press("clear_map")
        pending = await robot.asked()
        reply = await robot.reply_to(request, timeout_s=CONFIRM_S + 5)
        robot.device.send(Confirmation(device_id=robot.device_id, id=pending.id, approve=True))
        assert (await robot.say("yes")).actions == ()
    assert [action.ok for action in reply.actions] == [False]
    assert "not_confirmed" in robot.errors
    assert robot.moves == []


async def test_a_request_that_waits_is_not_begun_again_and_can_be_cancelled(settings: Settings) -> None:
    async with a_robot(settings, "r-repeats") as robot:
        request = robot.press("clear_map")
        await robot.asked()
        robot.device.send(request)
        robot.device.send(Cancel(device_id=robot.device_id, id=request.id))
        reply = await robot.reply_to(request)
        robot.device.send(request)
        await until(lambda: len([each for each in robot.replies if each.id == request.id]) == 2)
    assert len(robot.pending) == 1
    assert [action.ok for action in reply.actions] == [False]
    assert robot.replies[-1] == reply


async def test_a_stop_ends_what_runs_and_what_follows(settings: Settings) -> None:
    async with a_robot(settings, "r-stops", never) as robot:
        request = robot.press("drive", distance=1)
        follows = robot.press("take_photo")
        await until(lambda: len(robot.moves) == 1)
        said = await robot.say("Stop!", timeout_s=3)
        reply, after = await robot.reply_to(request), await robot.reply_to(follows)
        assert [action.name for action in robot.actions] == ["drive", "stop"]
        assert said.intent == "stop"
        assert [action.ok for action in reply.actions] == [False]
        assert [action.ok for action in after.actions] == [False]
        robot.answer = obeys
        await asyncio.sleep(HOLD_S)
        assert (await robot.do("beep")).actions[0].ok


async def test_a_bare_stop_takes_back_what_waits_for_a_yes(settings: Settings) -> None:
    async with a_robot(settings, "r-bare") as robot:
        request = robot.press("clear_map")
        pending = await robot.asked()
        robot.device.send(EmergencyStop(device_id=robot.device_id))
        reply = await robot.reply_to(request)
        robot.device.send(Confirmation(device_id=robot.device_id, id=pending.id, approve=True))
        await until(lambda: "not_confirmed" in robot.errors)
    assert [action.ok for action in reply.actions] == [False]
    assert [action.name for action in robot.actions] == ["stop"]


async def test_everybody_stops(settings: Settings) -> None:
    async with a_robot(settings, "r-all", never) as rover, a_robot(settings, "a-all", never, name="arm") as arm:
        rover.press("drive", distance=1)
        arm.press("wave")
        await until(lambda: len(rover.moves) == len(arm.moves) == 1)
        rover.device.send(EmergencyStop())
        await until(lambda: bool(rover.replies) and bool(arm.replies))
        assert [action.name for action in (*rover.actions, *arm.actions)] == ["drive", "stop", "wave", "stop"]
        await asyncio.sleep(HOLD_S)


@pytest.mark.parametrize(
    ("answer", "ok"),
    [(never, None), (twice, True), (late, None), (as_another, None), (dies, None)],
)
async def test_the_reply_is_true_whatever_the_device_does(settings: Settings, answer: Answer, ok: bool | None) -> None:
    async with a_robot(settings, f"r-{answer.__name__}", answer, ttl_ms=800) as robot:
        reply = await robot.do("beep")
        await asyncio.sleep(0.6)
        assert [action.ok for action in reply.actions] == [ok]
        assert len(robot.replies) == 1
        assert len(robot.moves) == 1


async def test_a_dead_robot_is_not_moved(settings: Settings) -> None:
    async with a_robot(settings, "r-watcher", name="lamp") as lamp, Robot(settings, "r-dead") as rover:
        await asyncio.sleep(0.1)
        await rover.__aexit__()
        await asyncio.sleep(0.1)
        reply = await lamp.say("x", intent="action", entities={"action": "beep", "device": "r-dead"})
    assert [action.ok for action in reply.actions] == [False]
    assert "device_offline" in lamp.errors


async def test_one_robot_is_told_through_another(settings: Settings) -> None:
    async with a_robot(settings, "r-two") as rover, a_robot(settings, "a-two", name="arm") as arm:
        reply = await rover.say("tell the arm to open the gripper")
        assert (rover.moves, arm.moves) == ([], [("open_gripper", {})])
        assert [(action.device_id, action.ok) for action in reply.actions] == [("a-two", True)]


async def test_what_can_be_done_and_how_things_are_is_answered_from_the_devices(settings: Settings) -> None:
    async with a_robot(settings, "r-state") as robot:
        robot.device.send(Telemetry(device_id="r-state", values={"battery": 81}))
        await asyncio.sleep(0.1)
        can = await robot.say("What can you do?")
        battery = await robot.say("How is your battery?")
        assert robot.moves == []
    assert "81" in battery.text
    assert "drive" in can.text.lower()


async def test_what_happened_is_counted_and_written_down(
    settings: Settings, shared_broker: Mosquitto, brain: Brain
) -> None:
    async with Ear(settings, "robots/ai/#") as ear, a_robot(settings, "r-counts") as robot:
        await robot.do("beep", times=2)
        metrics = await ear.until_object("robots/ai/metrics", lambda document: "counters" in str(document))
        health = await ear.until_object("robots/ai/health", lambda document: "devices" in document["components"])
    counters = json.dumps(metrics)
    for name in ("actions_sent", "actions_done", "actions_refused", "stops"):
        assert name in counters
    assert health["components"]["devices"]["status"] == "ok"
    audit = await asyncio.to_thread(brain.command, "audit", "--device", "r-counts", "--json")
    assert "beep" in audit.stdout


async def test_whoever_talks_at_a_terminal_hears_the_question_and_the_reply(settings: Settings, brain: Brain) -> None:
    async with a_robot(settings, "r-said") as robot:
        said = asyncio.ensure_future(asyncio.to_thread(brain.command, "say", "clear the map", "--device", "r-said"))
        pending = await robot.asked()
        robot.device.send(Confirmation(device_id=robot.device_id, id=pending.id, approve=True))
        done = await said
        refused = await asyncio.to_thread(brain.command, "say", "drive forward 10 meters", "--device", "r-said")
    assert pending.question in done.stderr
    assert "clear map" in done.stdout.lower()
    assert (done.returncode, refused.returncode) == (0, 0)
    assert "3 m" in refused.stdout


async def test_a_question_waits_across_a_kill(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port, **NO_MODEL).start()
    async with Robot(broker.settings(), "r2") as robot:
        await robot.device.wait_for_brain("degraded")
        request = robot.press("clear_map")
        pending = await robot.asked()
        await asyncio.sleep(0.2)
        brain.kill()
        brain.start()
        await until(lambda: brain.log().count("the brain is degraded") == 2, 30)
        robot.device.send(request)
        robot.device.send(Confirmation(device_id="r2", id=pending.id, approve=True))
        reply = await robot.reply_to(request)
        assert robot.moves == [("clear_map", {})]
        assert len(robot.pending) == 1
    assert [action.ok for action in reply.actions] == [True]


async def test_a_question_that_expired_while_the_brain_was_dead(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port, **NO_MODEL, CONFIRM_TIMEOUT_S="1").start()
    async with Robot(broker.settings(), "r2") as robot:
        await robot.device.wait_for_brain("degraded")
        request = robot.press("clear_map")
        await robot.asked()
        await asyncio.sleep(0.2)
        brain.kill()
        await asyncio.sleep(1)
        brain.start()
        reply = await robot.reply_to(request, timeout_s=30)
        await until(lambda: "not_confirmed" in robot.errors)
        assert robot.moves == []
    assert [action.ok for action in reply.actions] == [False]


async def test_a_brain_killed_in_mid_action_does_not_do_it_again(broker: Mosquitto, make_brain: BrainMaker) -> None:
    """After the restart the reply says what is true: nobody knows."""
    brain = make_brain(broker.port, **NO_MODEL).start()
    async with Robot(broker.settings(), "r2", answer=never) as robot:
        await robot.device.wait_for_brain("degraded")
        request = robot.press("clear_map")
        pending = await robot.asked()
        robot.device.send(Confirmation(device_id="r2", id=pending.id, approve=True))
        await until(lambda: len(robot.moves) == 1)
        brain.kill()
        brain.start()
        robot.device.send(request)
        reply = await robot.reply_to(request, timeout_s=30)
        assert len(robot.moves) == 1
    assert [action.ok for action in reply.actions] == [None]


async def test_a_repeat_of_what_a_dead_brain_had_begun_moves_nothing(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port, **NO_MODEL).start()
    async with Robot(broker.settings(), "r2", answer=never) as robot:
        await robot.device.wait_for_brain("degraded")
        request = robot.press("drive", distance=1)
        await until(lambda: len(robot.moves) == 1)
        brain.kill()
        brain.start()
        robot.device.send(request)
        reply = await robot.reply_to(request, timeout_s=30)
        assert len(robot.moves) == 1
    assert [action.ok for action in reply.actions] == [None]


STORIES = ("crosses the sea", "learns to sing", "looks for its friend")


@pytest.mark.model
async def test_a_robot_stops_while_its_brain_tells_a_story(
    broker: Mosquitto, make_brain: BrainMaker, model_path: Any
) -> None:
    brain = make_brain(broker.port, LLM_MAX_TOKENS="1500").start()
    async with Robot(broker.settings(), "r2") as robot:
        await robot.device.wait_for_brain("online", timeout_s=60)
        # A story may end after a few words; three do not all end in half a second.
        for does in STORIES:
            robot.tell(f"Tell me a long story about a robot that {does}.", temperature=1.0)
        await asyncio.sleep(0.5)
        said = await robot.say("stop", timeout_s=3)
        await until(lambda: any(reply.finish_reason == "cancelled" for reply in robot.replies))
        assert [action.name for action in robot.actions] == ["stop"]
    assert said.intent == "stop"
    assert brain.is_running
