"""How a daemon is doing while it works: memory, descriptors, threads, tasks, over the requests that it has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from support.ear import Ear

METRICS = "naila/ai/metrics"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Attributes:
        requests: answered so far.
        rss: resident bytes of the daemon and of its children.
        descriptors: open files and sockets of the daemon.
        threads: of the daemon.
        tasks: in its event loop, as it last told; -1 before it has.
    """

    requests: int
    rss: int
    descriptors: int
    threads: int
    tasks: int


async def watch(
    pid: int, ear: Ear, answered: Callable[[], int], samples: list[Sample], *, every_s: float = 0.5
) -> None:
    """Look again and again, until cancelled.

    Args:
        pid: the daemon.
        ear: hears its metrics.
        answered: how many requests were answered so far.
        samples: is added to.
        every_s: seconds between two looks.
    """
    process = psutil.Process(pid)
    tasks = -1
    while True:
        family = [process, *process.children(recursive=True)]
        rss = sum(one.memory_info().rss for one in family)
        tasks = next((told["tasks"] for told in reversed(ear.objects(METRICS))), tasks)
        ear.messages.clear()
        samples.append(Sample(answered(), rss, process.num_fds(), process.num_threads(), tasks))
        await asyncio.sleep(every_s)


def slope(samples: Sequence[Sample]) -> float:
    """Return the bytes that each request costs for ever, by least squares."""
    count = len(samples)
    mean_x, mean_y = sum(s.requests for s in samples) / count, sum(s.rss for s in samples) / count
    spread = sum((s.requests - mean_x) ** 2 for s in samples)
    return sum((s.requests - mean_x) * (s.rss - mean_y) for s in samples) / spread if spread else 0.0
