"""The broker is killed again and again, on its default configuration, which forgets everything."""

from __future__ import annotations

import asyncio

import pytest

from support.crew import crew, work
from support.often import HowOften
from support.robots import until
from support.scene import QUIET_S, Scene, assert_nothing_lost_or_twice, assert_well, running

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]


async def test_killed_brokers_cost_nothing(scene: Scene, how_often: HowOften) -> None:
    requests, kills = how_often(200, 2000), how_often(2, 20)
    limit_s = how_often(3, 1)  # of two kills on a busy machine, the slowest is no percentile
    broker, tally, chance = scene.broker, scene.tally, scene.chance
    async with scene.tapped() as wire:
        brain = scene.brain(wire.proxy.port).start()
        await running(brain)
        async with crew(broker.settings(), 10, tally) as robots:
            working = asyncio.create_task(work(robots, range(requests)))
            for number in range(kills):
                enough = (number + chance.random()) * requests / kills
                await until(lambda enough=enough: tally.answered >= enough or working.done(), 120)  # type: ignore[misc]
                tally.fault("broker killed")
                await asyncio.to_thread(broker.kill)
                wire.proxy.refuse()
                await asyncio.sleep(chance.uniform(0, 1.5))
                await asyncio.to_thread(broker.start)
                wire.proxy.accept()
                tally.over()
            await working
            await asyncio.sleep(QUIET_S)
    counts = scene.report()
    assert_nothing_lost_or_twice(counts)
    assert_well(brain)
    assert counts.recovery_p95_s is not None
    assert counts.recovery_p95_s <= limit_s
