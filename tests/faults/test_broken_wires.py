"""What networks do to a connection: resets, silence, a broker that hangs, delays, stalls, trickles, an outage."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from support.brain import Brain
from support.crew import Robot, crew, work
from support.often import HowOften
from support.robots import until
from support.scene import KEEPALIVE_S, QUIET_S, Scene, Wire, assert_nothing_lost_or_twice, assert_well, running
from support.tally import percentile

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]
Fault = Callable[[Scene, Wire], Awaitable[None]]


@asynccontextmanager
async def busy(scene: Scene, wire: Wire) -> AsyncIterator[Brain]:
    """A brain with ten robots that ask without end; when the block ends they are answered, and counted."""
    brain = scene.brain(wire.proxy.port).start()
    enough = asyncio.Event()
    await running(brain)
    async with crew(scene.broker.settings(), 10, scene.tally) as robots:
        async with asyncio.TaskGroup() as group:
            numbers = itertools.takewhile(lambda _: not enough.is_set(), itertools.count())
            group.create_task(work(robots, numbers, pause_s=0.05))
            yield brain
            enough.set()
        await asyncio.sleep(QUIET_S)
    assert_well(brain)


async def test_resets_hangs_and_silence_cost_nothing(scene: Scene, how_often: HowOften) -> None:
    """Each is noticed within twice the keepalive."""
    tally, chance = scene.tally, scene.chance
    kinds = ["reset"] * how_often(3, 30) + ["hung"] * how_often(1, 5) + ["half-open"] * how_often(1, 5)
    chance.shuffle(kinds)
    noticed: dict[str, list[float]] = {kind: [] for kind in kinds}
    async with scene.tapped() as wire, busy(scene, wire):
        for kind in kinds:
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            since = time.monotonic()
            tally.fault(kind)
            match kind:
                case "reset":
                    wire.proxy.reset()
                    tally.over()
                case "half-open":
                    wire.proxy.half_open()
                case _:
                    scene.broker.freeze()
            await until(lambda since=since: wire.connected_since(since) is not None, 30)  # type: ignore[misc]
            noticed[kind].append(wire.connected_since(since) or 0.0)
            if kind == "hung":
                scene.broker.thaw()
            if kind != "reset":
                tally.over()
    tally.extra["noticed_max_s"] = {kind: percentile(times, 1) for kind, times in noticed.items()}
    assert_nothing_lost_or_twice(scene.report())
    assert max(itertools.chain(*noticed.values())) <= 2 * KEEPALIVE_S + how_often(3, 1)  # and the way back


async def slow(scene: Scene, wire: Wire) -> None:
    """Each piece takes a fifth of a second."""
    wire.proxy.delay_s = 0.2
    await asyncio.sleep(3)
    wire.proxy.delay_s = 0


async def trickling(scene: Scene, wire: Wire) -> None:
    """Some hundred bytes a second."""
    wire.proxy.bytes_per_s = 500
    await asyncio.sleep(3)
    wire.proxy.bytes_per_s = 0


async def stalled(scene: Scene, wire: Wire) -> None:
    """Nothing comes through for a second."""
    wire.proxy.stall()
    await asyncio.sleep(1)
    wire.proxy.resume()


async def cut(scene: Scene, wire: Wire) -> None:
    """The connection ends in good order."""
    wire.proxy.cut()


async def gone(scene: Scene, wire: Wire) -> None:
    """There is no network for a while: what stands is dead, and nothing new comes about."""
    wire.proxy.refuse()
    wire.proxy.half_open()
    await asyncio.sleep(3 * KEEPALIVE_S)
    wire.proxy.accept()


@pytest.mark.parametrize("fault", [slow, trickling, stalled, cut, gone])
async def test_a_bad_wire_costs_nothing(scene: Scene, fault: Fault, how_often: HowOften) -> None:
    if fault is not gone and not how_often(0, 1):
        pytest.skip("only in the long run")
    async with scene.tapped() as wire, busy(scene, wire):
        for _ in range(how_often(1, 5)):
            await asyncio.sleep(how_often(1, 3))  # time to come back from the one before
            scene.tally.fault(fault.__name__)
            await fault(scene, wire)
            scene.tally.over()
    assert_nothing_lost_or_twice(scene.report())


async def test_of_two_brains_with_one_client_id_one_answers_in_the_end(scene: Scene) -> None:
    """They throw each other out, and say so, until one is gone. Meanwhile each may do what the other did already."""
    async with scene.tapped() as wire, busy(scene, wire) as brain:
        rival = scene.brain(wire.proxy.port, MQTT_CLIENT_ID=brain.environ["MQTT_CLIENT_ID"])
        scene.tally.fault("rival")
        rival.start()
        await running(rival)
        await asyncio.sleep(4)
        await asyncio.to_thread(rival.kill)
        scene.tally.over()
        assert "does the brain run twice?" in brain.log() + rival.log()
    assert scene.report().lost == 0


async def test_a_message_that_comes_twice_is_one_request(scene: Scene) -> None:
    """The same id again at once, while it runs, and after it was answered: one reply, one action."""
    brain = scene.brain(scene.broker.port).start()
    await running(brain)
    async with Robot(scene.broker.settings(), "r2", scene.tally, acts_s=0.3) as robot:
        asking = [asyncio.create_task(robot.ask("q1", "beep twice", repeat_s=0.05, timeout_s=20)) for _ in range(5)]
        assert all(await asyncio.gather(*asking))
        for _ in range(5):
            robot.say("q1", "beep twice")
        await asyncio.sleep(QUIET_S)
    counts = scene.report()
    assert_nothing_lost_or_twice(counts)
    assert (counts.requests, counts.actions) == (1, 1)
    assert counts.replies_again >= 5
