"""The wall clock jumps, as on a board without a battery that finds the network: a day ahead, and years back."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.crew import crew, work
from support.scene import QUIET_S, Scene, assert_nothing_lost_or_twice, assert_well, running

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]
SHIM = Path(__file__).parents[1] / "support" / "jumping_clock.c"
DAY_S = 86_400


@pytest.fixture
def clock(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose wall clock jumps by the seconds in JUMP_FILE."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a jumping clock is compiled, and there is no cc")
    library, jump = tmp_path / "clock.so", tmp_path / "jump"
    subprocess.run([compiler, "-shared", "-fPIC", "-O", "-o", str(library), str(SHIM), "-ldl"], check=True)
    environ = {"LD_PRELOAD": str(library), "JUMP_FILE": str(jump)}
    jump.write_text(str(DAY_S))
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"], env=environ, capture_output=True, check=True
    )
    assert abs(float(told.stdout) - time.time() - DAY_S) < 60
    set_clock(environ, 0)
    return environ


def set_clock(clock: dict[str, str], seconds: int) -> None:
    """Let it jump."""
    Path(clock["JUMP_FILE"]).write_text(str(seconds))


async def test_a_clock_that_jumps_costs_nothing(scene: Scene, clock: dict[str, str]) -> None:
    brain = scene.brain(scene.broker.port, **clock).start()
    enough = asyncio.Event()
    await running(brain)
    async with crew(scene.broker.settings(), 4, scene.tally) as robots:
        async with asyncio.TaskGroup() as group:
            numbers = itertools.takewhile(lambda _: not enough.is_set(), itertools.count())
            group.create_task(work(robots, numbers, pause_s=0.02))
            for seconds in (DAY_S, -3 * 365 * DAY_S, 0):
                await asyncio.sleep(0.5)
                scene.tally.fault(f"jump to {seconds:+} s")
                set_clock(clock, seconds)
                scene.tally.over()
            await asyncio.sleep(0.5)
            enough.set()
        await asyncio.sleep(QUIET_S)
    counts = scene.report()
    assert_nothing_lost_or_twice(counts)
    assert_well(brain)
    assert counts.refused_told == 0
    assert counts.actions * 3 >= counts.requests - 2
    assert counts.latency_p95_ms is not None
    assert counts.latency_p95_ms <= 1500
