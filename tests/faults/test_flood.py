"""One device sends a thousand requests a second; nine others go on as if it were not there."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path

import pytest

import support.flooder
from support.crew import crew, work
from support.often import HowOften
from support.scene import Scene, assert_well, running
from support.tally import percentile

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]
RATE = 1000


async def test_a_flood_costs_only_who_makes_it(scene: Scene, how_often: HowOften) -> None:
    """The others' p95 is at most twice what it was, and whatever was refused was told."""
    seconds = how_often(4, 30)
    brain = scene.brain(scene.broker.port, LOG_LEVEL="WARNING").start()
    await running(brain)
    async with crew(scene.broker.settings(), 9, scene.tally) as robots:
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            numbers = itertools.takewhile(lambda _: not enough.is_set(), itertools.count())
            group.create_task(work(robots, numbers, repeat_s=10, pause_s=0.1))
            await asyncio.sleep(1)
            began = time.monotonic()
            await asyncio.sleep(seconds)
            flooded = time.monotonic()
            scene.tally.fault("flood")
            flood = await asyncio.create_subprocess_exec(
                sys.executable,
                str(Path(support.flooder.__file__)),
                *map(str, (scene.broker.port, seconds, RATE)),
                stdout=asyncio.subprocess.PIPE,
            )
            await asyncio.sleep(seconds)
            ended = time.monotonic()
            scene.tally.fault("flood ends")
            output, _ = await flood.communicate()
            enough.set()
    became = json.loads(output)
    unloaded = percentile(scene.tally.latencies_ms(since=began, until=flooded), 0.95) or 0.0
    loaded = percentile(scene.tally.latencies_ms(since=flooded, until=ended), 0.95) or 0.0
    scene.tally.extra.update(unloaded_p95_ms=unloaded, flooded_p95_ms=loaded, flood=became)
    counts = scene.report()
    assert_well(brain)
    assert counts.lost == 0
    assert became["silent"] == 0
    assert loaded <= max(2 * unloaded, how_often(2000, 0))  # a busy machine shows only disasters
