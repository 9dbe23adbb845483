"""The disk under the database fills up, or cannot be written for another reason, while robots ask."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from support.brain import Brain
from support.crew import Robot, crew, work
from support.ear import Ear
from support.often import HowOften
from support.scene import QUIET_S, Scene, assert_well, running
from support.small_disk import SmallDisk

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]
FAULT_S = 2.0
HEAL_LIMIT_S = 5.0
PATIENCE_S = 20.0
Trouble = Callable[[SmallDisk, Brain], AbstractContextManager[None]]


def full(leave: int) -> Trouble:
    """So many bytes are left."""

    @contextmanager
    def trouble(disk: SmallDisk, _brain: Brain) -> Iterator[None]:
        disk.fill(leave)
        yield
        disk.free()

    return trouble


def full_again_and_again(times: int) -> Trouble:
    """It fills and empties, as with a log that is rotated."""

    @contextmanager
    def trouble(disk: SmallDisk, _brain: Brain) -> Iterator[None]:
        for _ in range(times):
            disk.fill()
            time.sleep(0.1)
            disk.free()
            time.sleep(0.1)
        disk.fill()
        yield
        disk.free()

    return trouble


@contextmanager
def no_inodes(disk: SmallDisk, _brain: Brain) -> Iterator[None]:
    disk.use_up_inodes()
    yield
    disk.free()


@contextmanager
def read_only(disk: SmallDisk, _brain: Brain) -> Iterator[None]:
    """The kernel lets nobody remount what is open for writing; then the file system is full instead."""
    if not disk.make_read_only():
        disk.fill()
    yield
    disk.make_writable()
    disk.free()


@contextmanager
def locked(_disk: SmallDisk, brain: Brain) -> Iterator[None]:
    """Another process holds the database's lock."""
    with contextlib.closing(sqlite3.connect(brain.environ["MEMORY_PATH"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def no_larger_files(_disk: SmallDisk, brain: Brain) -> Iterator[None]:
    """A quota: no file may grow."""
    limits = resource.prlimit(brain.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(brain.pid, resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    with contextlib.suppress(ProcessLookupError):  # it was killed in the meantime
        resource.prlimit(brain.pid, resource.RLIMIT_FSIZE, limits)


EVERYDAY: dict[str, Trouble] = {"full": full(0), "locked": locked}
LONG: dict[str, Trouble] = {
    "4 KB left": full(4096),
    "16 KB left": full(16_384),
    "64 KB left": full(65_536),
    "256 KB left": full(262_144),
    "again and again": full_again_and_again(10),
    "no inodes": no_inodes,
    "read only": read_only,
    "quota": no_larger_files,
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Unmounted after the daemons are gone, or skipped where nothing can be mounted."""
    small = SmallDisk(tmp_path / "disk")
    try:
        small.__enter__()
    except (PermissionError, FileNotFoundError) as exc:
        pytest.skip(f"a disk of its own needs root and mount: {exc}")
    yield small
    small.__exit__(None, None, None)


@pytest.mark.parametrize("name", [*EVERYDAY, *LONG])
async def test_nothing_is_acknowledged_that_was_not_kept(
    disk: SmallDisk, scene: Scene, name: str, how_often: HowOften
) -> None:
    """Half of the robots send once. The daemon is killed in the midst of it: what it acknowledged is answered."""
    if name in LONG and not how_often(0, 1):
        pytest.skip("only in the long run")
    tally, enough = scene.tally, asyncio.Event()
    async with scene.tapped() as wire:
        brain = scene.brain(wire.proxy.port, MEMORY_PATH=str(disk.folder / "naila.db"), HEALTH_INTERVAL_S="0.25")
        brain.start()
        await running(brain)
        async with crew(scene.broker.settings(), 6, tally) as robots, asyncio.TaskGroup() as group:
            numbers = itertools.takewhile(lambda _: not enough.is_set(), itertools.count())
            group.create_task(work(robots[:2], numbers, pause_s=0.05))
            group.create_task(work(robots[2:5], numbers, pause_s=0.05, repeat_s=None, timeout_s=PATIENCE_S))
            await asyncio.sleep(0.5)
            async with broken(scene, disk, brain, name):
                await asyncio.sleep(FAULT_S)
            healed_s = await healing(scene, robots[5], "first")
            async with broken(scene, disk, brain, name):
                await asyncio.sleep(FAULT_S)
                await asyncio.to_thread(brain.kill)
            brain.start()
            await running(brain)
            enough.set()
        await asyncio.sleep(QUIET_S)
    tally.extra["healed_s"] = round(healed_s, 2)
    counts = scene.report()
    assert brain.is_running
    assert counts.accepted_lost == 0
    assert (counts.lost, counts.actions_twice) == (0, 0)
    # Not `answered_twice`: what was answered and could not be kept is answered anew after the kill (but never redone).
    assert healed_s <= HEAL_LIMIT_S
    assert verdict(disk.folder / "naila.db") == "ok"


async def test_a_start_on_a_full_disk_is_a_start_once_there_is_room(disk: SmallDisk, scene: Scene) -> None:
    """It may end, with the reason; whoever starts it again gets a daemon that works."""
    disk.fill()
    brain = scene.brain(scene.broker.port, MEMORY_PATH=str(disk.folder / "naila.db")).start()
    await asyncio.sleep(FAULT_S)
    disk.free()
    if not brain.is_running or "NAILA is ready" not in brain.log():
        with contextlib.suppress(Exception):
            await asyncio.to_thread(brain.wait, 10)
    if not brain.is_running:
        assert "the disk is full" in brain.log()
        brain.start()
    async with Robot(scene.broker.settings(), "r2", scene.tally) as robot:
        assert await robot.ask("q1", "What time is it?", repeat_s=1, timeout_s=20)
    assert_well(brain)


@contextlib.asynccontextmanager
async def broken(scene: Scene, disk: SmallDisk, brain: Brain, name: str) -> AsyncIterator[None]:
    """Have the trouble for the block."""
    with {**EVERYDAY, **LONG}[name](disk, brain):
        scene.tally.fault(name)
        yield
    scene.tally.over()


async def healing(scene: Scene, robot: Robot, request_id: str) -> float:
    """Return how long it takes until a new request is answered and the memory is said to be well."""
    began = time.monotonic()
    async with Ear(scene.broker.settings(), "naila/ai/health") as ear:
        assert await robot.ask(request_id, "What time is it?", repeat_s=0.5, timeout_s=60)
        await ear.until(lambda message: json.loads(message.payload)["components"]["memory"]["status"] == "ok", 60)
    return time.monotonic() - began


def verdict(database: Path) -> str:
    """What SQLite says of the file."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
    return found
