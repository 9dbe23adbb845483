"""What was accepted is answered, whatever happens to the process: real daemon, real broker, real SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from naila.events import Action
from naila.mqtt.device import Device
from support.brain import Brain, BrainMaker
from support.ear import Ear
from support.mosquitto import Mosquitto
from support.robot import Robot
from support.robots import until
from support.said import CLOCK, ask_of

pytestmark = pytest.mark.broker

NO_MODEL = {"LLM_MODEL_PATH": "", "MODELS_DIR": "no-models"}


async def never(robot: Robot, action: Action) -> None:
    """Hear it and say nothing."""


@asynccontextmanager
async def up(brain: Brain, broker: Mosquitto, **robot: Any) -> AsyncIterator[Robot]:
    """Start the brain; yield a robot that it knows."""
    brain.start()
    async with Robot(broker.settings(), "r2", **robot) as made:
        await made.device.wait_for_brain("degraded", timeout_s=60)
        await asyncio.sleep(0.2)
        yield made


def waiting(brain: Brain) -> list[str]:
    """Whose answers the broker does not have."""
    with contextlib.closing(sqlite3.connect(brain.environ["MEMORY_PATH"])) as database:
        return [request_id for (request_id,) in database.execute("SELECT request_id FROM inbox ORDER BY number")]


@contextlib.contextmanager
def locked(brain: Brain) -> Any:
    """Hold the database's lock, as a backup that hangs would."""
    with contextlib.closing(sqlite3.connect(brain.environ["MEMORY_PATH"], isolation_level=None)) as other:
        other.execute("PRAGMA busy_timeout = 5000")
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("COMMIT")


async def test_what_was_accepted_is_answered_after_a_kill_without_a_repeat(
    broker: Mosquitto, make_brain: BrainMaker
) -> None:
    brain = make_brain(broker.port, **NO_MODEL)
    async with up(brain, broker, answer=never) as robot:
        acts = robot.press("drive", distance=1)
        await until(lambda: len(robot.moves) == 1)
        questions = [robot.tell(CLOCK) for _ in range(5)]
        await until(lambda: waiting(brain) == [acts.id, *(question.id for question in questions)])
        listed = await asyncio.to_thread(brain.command, "inbox", "list", "--json")
        assert [line["state"] for line in json.loads(listed.stdout)] == ["acting", *["waiting"] * 5]
        brain.kill()
        brain.start()
        replies = [await robot.reply_to(request, timeout_s=30) for request in (acts, *questions)]
        assert [action.ok for action in replies[0].actions] == [None]
        assert len(robot.moves) == 1
        await until(lambda: waiting(brain) == [])
        assert len(robot.replies) == 6


async def test_nothing_is_left_when_all_is_answered_and_nothing_comes_twice(
    broker: Mosquitto, make_brain: BrainMaker
) -> None:
    brain = make_brain(broker.port, **NO_MODEL)
    async with up(brain, broker) as robot:
        request = robot.tell(CLOCK)
        reply = await robot.reply_to(request)
        await until(lambda: waiting(brain) == [])
        brain.kill()
        brain.start()
        await asyncio.to_thread(brain.wait_for_log, "NAILA is ready", times=2)
        await asyncio.sleep(0.3)
        assert robot.replies == [reply]
        robot.device.send(request)
        await until(lambda: len(robot.replies) == 2)
        assert robot.replies[1] == reply


async def test_what_the_broker_kept_while_the_brain_was_away_moves_nothing_and_is_answered(
    broker: Mosquitto, make_brain: BrainMaker
) -> None:
    """More of it than a broker sends before it answers a subscription."""
    brain = make_brain(broker.port, **NO_MODEL, QUEUE_MAX_PER_DEVICE="200")
    async with up(brain, broker) as robot:
        brain.kill()
        questions = [robot.tell(CLOCK) for _ in range(60)]
        command = robot.press("drive", distance=1)
        await until(lambda: robot.device.connection.published >= 63)
        brain.start()
        told = await robot.reply_to(command, timeout_s=30)
        assert (robot.moves, robot.errors) == ([], ["expired"])
        assert [(action.ok, "again" in (action.error or "")) for action in told.actions] == [(False, True)]
        for question in questions:
            await robot.reply_to(question, timeout_s=30)
        await robot.do("drive", distance=1)
        assert len(robot.moves) == 1


async def test_a_locked_database_acknowledges_nothing_and_heals(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port, **NO_MODEL)
    async with up(brain, broker) as robot, Ear(broker.settings(), "naila/ai/health") as ear:
        before = await robot.say(CLOCK)
        assert before.text
        with locked(brain):
            requests = [robot.tell(CLOCK) for _ in range(3)]
            await until(lambda: robot.errors == ["busy"] * 3, 15)
            await ear.until_object(
                "naila/ai/health",
                lambda health: "stop that process" in health["components"]["memory"].get("detail", ""),
            )
            robot.tell("stop")
            await until(lambda: [action.name for action in robot.actions] == ["stop"], 1)
            assert len(robot.replies) == 1
        began = time.monotonic()
        for request in requests:
            await robot.reply_to(request, timeout_s=10)
        assert time.monotonic() - began < 5
    assert "Traceback" not in brain.log()


async def test_what_was_not_kept_is_brought_again_by_the_broker(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port, **NO_MODEL)
    async with up(brain, broker) as robot:
        with locked(brain):
            request = robot.tell(CLOCK)
            await until(lambda: robot.errors == ["busy"], 15)
            brain.kill()
        assert waiting(brain) == []
        brain.start()
        assert (await robot.reply_to(request, timeout_s=30)).text


async def test_an_operator_looks_and_drops_beside_the_running_daemon(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port, **NO_MODEL)
    async with up(brain, broker, answer=never) as robot:
        robot.press("drive", distance=1)
        await until(lambda: len(robot.moves) == 1)
        robot.device.send(ask_of("r2", CLOCK, id="unwanted"))
        await until(lambda: len(waiting(brain)) == 2)
        listed = await asyncio.to_thread(brain.command, "inbox", "list")
        assert ("unwanted" in listed.stdout, "acting" in listed.stdout) == (True, True)
        dropped = await asyncio.to_thread(brain.command, "inbox", "drop", "unwanted")
        assert (dropped.returncode, dropped.stdout) == (0, "drop: unwanted of r2\n")
        await until(lambda: robot.errors == ["expired"])
        await until(lambda: len(waiting(brain)) == 1)
        unknown = await asyncio.to_thread(brain.command, "inbox", "retry", "nothing")
        assert (unknown.returncode, "naila inbox list" in unknown.stderr) == (1, True)
        brain.kill()
        assert brain.command("inbox", "drop", waiting(brain)[0]).returncode == 0
        assert waiting(brain) == []


async def test_one_that_floods_slows_nobody_and_is_told(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port, **NO_MODEL)
    async with up(brain, broker) as robot, Device(broker.settings(), "flood") as flood:
        alone = [await timed(robot) for _ in range(20)]
        flooding = asyncio.create_task(send_many(flood))
        await asyncio.sleep(0.2)
        beside = [await timed(robot) for _ in range(20)]
        flooding.cancel()
        assert sorted(beside)[15] < max(0.25, 4 * sorted(alone)[15])


async def timed(robot: Robot) -> float:
    began = time.monotonic()
    await robot.say(CLOCK)
    return time.monotonic() - began


async def send_many(device: Device) -> None:
    while True:
        for _ in range(10):
            device.send(ask_of("flood", CLOCK))
        await asyncio.sleep(0.02)
