"""The daemon is killed at random moments: while it starts, while it answers, while it moves something."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import sqlite3
from pathlib import Path

import pytest

from support.brain import Brain
from support.crew import crew, work
from support.often import HowOften
from support.scene import QUIET_S, Scene, assert_nothing_lost_or_twice, assert_well, running

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]
PATIENCE_S = 15.0


async def test_killed_daemons_cost_nothing(scene: Scene, how_often: HowOften) -> None:
    """Half of the robots send each request once: what was accepted is answered all the same."""
    tally, chance, kills = scene.tally, scene.chance, how_often(3, 50)
    verdicts: list[str] = []
    enough = asyncio.Event()
    async with scene.tapped() as wire:
        brain = scene.brain(wire.proxy.port).start()
        await running(brain)
        async with crew(scene.broker.settings(), 10, tally, acts_s=0.02) as robots, asyncio.TaskGroup() as group:
            numbers = itertools.takewhile(lambda _: not enough.is_set(), itertools.count())
            group.create_task(work(robots[:5], numbers, at_once=2, pause_s=0.05))
            once = work(robots[5:], numbers, at_once=2, pause_s=0.05, repeat_s=None, timeout_s=PATIENCE_S)
            group.create_task(once)
            for number in range(kills):
                # Every fourth is killed while it starts.
                await asyncio.sleep(chance.uniform(0, 1.5 if number % 4 else 3))
                tally.fault("daemon killed")
                await asyncio.to_thread(brain.kill)
                verdicts.append(verdict_on_the_database(brain, scene.folder / "copy"))
                brain.start()
                if (number + 1) % 4 or number + 1 == kills:
                    await running(brain)
                    tally.over()
            await asyncio.sleep(1)
            enough.set()
        await asyncio.sleep(QUIET_S)
    tally.extra["integrity"] = {verdict: verdicts.count(verdict) for verdict in verdicts}
    counts = scene.report()
    assert set(verdicts) == {"ok"}
    assert counts.accepted_lost == 0
    assert_nothing_lost_or_twice(counts)
    assert_well(brain)


def verdict_on_the_database(brain: Brain, copy: Path) -> str:
    """What SQLite says of the database as the killed daemon left it, log and all."""
    shutil.rmtree(copy, ignore_errors=True)
    place = Path(brain.environ["MEMORY_PATH"])
    if not place.exists():
        return "ok"
    shutil.copytree(place.parent, copy)
    with contextlib.closing(sqlite3.connect(copy / place.name)) as database:
        verdict: str = database.execute("PRAGMA integrity_check").fetchone()[0]
    return verdict
