"""No memory: the kernel kills the engine, or refuses the engine or the daemon what they ask for."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import psutil
import pytest

from naila.mqtt.device import Device
from support.brain import Brain
from support.often import HowOften
from support.robots import until
from support.said import CLOCK, ask_of, story
from support.scene import Scene, assert_well, running

pytestmark = [pytest.mark.broker, pytest.mark.model, pytest.mark.timeout(300)]
MB: Final = 1 << 20
CGROUPS: Final = Path("/sys/fs/cgroup/memory")
Shortage = Callable[[Scene, Brain, Device], Awaitable[float]]


async def killed_idle(scene: Scene, brain: Brain, device: Device) -> float:
    """What the OOM killer does, while nobody asks."""
    brain.kill_engine()
    return time.monotonic()


async def killed_answering(scene: Scene, brain: Brain, device: Device) -> float:
    """In mid-answer."""
    asking = asyncio.create_task(device.ask(story("r2", stream=False), timeout_s=60))
    await asyncio.sleep(0.4)
    brain.kill_engine()
    killed = time.monotonic()
    assert (await asking).text
    return killed


async def killed_reading(scene: Scene, brain: Brain, device: Device) -> float:
    """While a long prompt is read in."""
    asking = asyncio.create_task(device.ask(ask_of("r2", "Sum this up: " + "the sea is wide " * 300), timeout_s=60))
    await asyncio.sleep(0.15)
    brain.kill_engine()
    killed = time.monotonic()
    assert (await asking).text
    return killed


async def killed_loading(scene: Scene, brain: Brain, device: Device) -> float:
    """As soon as there is one again."""
    await killed_idle(scene, brain, device)
    for _ in range(200):
        await asyncio.sleep(0.02)
        if brain.engine() is not None:
            break
    return await killed_idle(scene, brain, device)


async def killed_while_many_ask(scene: Scene, brain: Brain, device: Device) -> float:
    """With a batch of answers running."""
    asking = [asyncio.create_task(device.ask(story("r2", stream=False), timeout_s=90)) for _ in range(4)]
    await asyncio.sleep(0.5)
    brain.kill_engine()
    killed = time.monotonic()
    assert all(reply.text for reply in await asyncio.gather(*asking))
    return killed


async def engine_starved(scene: Scene, brain: Brain, device: Device) -> float:
    """The engine gets no more address space."""
    return await starved(brain.engine(), device)


async def daemon_starved(scene: Scene, brain: Brain, device: Device) -> float:
    """The daemon gets no more address space, and is asked all the same, at length."""
    return await starved(brain.pid, device)


async def engine_cannot_come_back(scene: Scene, brain: Brain, device: Device) -> float:
    """The engine is killed, and there is not enough for another one, for a while."""
    limits = limit_memory(brain.pid, 64 * MB)
    brain.kill_engine()
    await asyncio.sleep(4)
    assert (await device.ask(ask_of("r2", CLOCK), timeout_s=30)).degraded
    resource.prlimit(brain.pid, resource.RLIMIT_AS, limits)
    if (engine := brain.engine()) is not None:
        resource.prlimit(engine, resource.RLIMIT_AS, limits)
    return time.monotonic()


async def group_starved(scene: Scene, brain: Brain, device: Device) -> float:
    """A control group has less than both need: the kernel chooses whom it kills."""
    group = CGROUPS / f"naila-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"no control groups of one's own: {exc}")
    try:
        engine = brain.engine()
        assert engine is not None
        (group / "memory.limit_in_bytes").write_text(str(12 * MB))
        (group / "cgroup.procs").write_text(str(engine))
        asking = asyncio.create_task(device.ask(story("r2", stream=False), timeout_s=90, repeat_s=10))
        assert (await asking).text
        limited = psutil.pid_exists(engine)
        (group / "memory.limit_in_bytes").write_text("-1")
        if limited:
            (CGROUPS / "cgroup.procs").write_text(str(engine))
        return time.monotonic()
    finally:
        for _ in range(50):
            for pid in (group / "cgroup.procs").read_text().split():
                (CGROUPS / "cgroup.procs").write_text(pid)
            try:
                group.rmdir()
                break
            except OSError:
                await asyncio.sleep(0.1)


async def killed_again_and_again(scene: Scene, brain: Brain, device: Device) -> float:
    """Three times in a row; each time it is there again, it is killed."""
    killed = time.monotonic()
    for _ in range(3):
        for _ in range(400):
            if brain.engine() is not None:
                break
            await asyncio.sleep(0.05)
        killed = await killed_idle(scene, brain, device)
    return killed


EVERYDAY: Final[tuple[Shortage, ...]] = (killed_answering, daemon_starved)
LONG: Final[tuple[Shortage, ...]] = (
    *(killed_idle, killed_reading, killed_loading, killed_while_many_ask, engine_starved),
    *(engine_cannot_come_back, group_starved, killed_again_and_again),
)


@pytest.mark.parametrize("shortage", [*EVERYDAY, *LONG])
async def test_a_shortage_of_memory_is_survived_and_healed(
    scene: Scene, model_path: Path, shortage: Shortage, how_often: HowOften
) -> None:
    if shortage in LONG and not how_often(0, 1):
        pytest.skip("only in the long run")
    brain = scene.brain(scene.broker.port, LLM_MODEL_PATH=str(model_path), LLM_MAX_TOKENS="200").start()
    await running(brain)
    async with Device(scene.broker.settings(), "r2") as device:
        assert not (await device.ask(ask_of("r2", "What is ice?", max_tokens=4), timeout_s=60)).degraded
        over = await shortage(scene, brain, device)
        await until(lambda: brain.engine() is not None, 90)
        for number in itertools.count():  # each by itself, else there is a long conversation to be read in
            ice = ask_of("r2", "What is ice?", max_tokens=4, conversation_id=f"c{number}")
            if not (await device.ask(ice, timeout_s=60, repeat_s=10)).degraded:
                break
            await asyncio.sleep(0.2)
        healed_s = time.monotonic() - over
    scene.tally.extra["healed_s"] = round(healed_s, 2)
    scene.report()
    assert_well(brain)
    assert healed_s <= how_often(15, 5)


async def starved(pid: int | None, device: Device) -> float:
    """Give a process almost no more address space, ask a few things, and take the limit away."""
    assert pid is not None
    limits = limit_memory(pid, MB)
    asking = [
        asyncio.create_task(device.ask(ask_of("r2", f"What is {'very ' * 5000}cold?"), timeout_s=40, repeat_s=2))
        for _ in range(3)
    ]
    await asyncio.sleep(2)
    if psutil.pid_exists(pid):
        resource.prlimit(pid, resource.RLIMIT_AS, limits)
    over = time.monotonic()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert not [answer for answer in answers if isinstance(answer, TimeoutError)]
    return over


def limit_memory(pid: int, more: int) -> tuple[int, int]:
    """Let a process grow by so many bytes; return the limits of before."""
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (psutil.Process(pid).memory_info().vms + more, before[1]))
    return before
