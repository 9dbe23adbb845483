"""How a daemon is doing while it works: memory, file descriptors, threads, over the requests that it has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Attributes:
        requests: answered so far.
        rss: resident bytes of the daemon and of its children.
        descriptors: open files and sockets of the daemon.
        threads: of the daemon.
    """

    requests: int
    rss: int
    descriptors: int
    threads: int


async def watch(pid: int, answered: Callable[[], int], samples: list[Sample], *, every_s: float = 0.5) -> None:
    """Look again and again, until cancelled."""
    process = psutil.Process(pid)
    while True:
        family = [process, *process.children(recursive=True)]
        rss = sum(one.memory_info().rss for one in family)
        samples.append(Sample(answered(), rss, process.num_fds(), process.num_threads()))
        await asyncio.sleep(every_s)


def slope(samples: Sequence[Sample]) -> float:
    """Return the bytes that each request costs for ever, by least squares."""
    count = len(samples)
    mean_x, mean_y = sum(s.requests for s in samples) / count, sum(s.rss for s in samples) / count
    spread = sum((s.requests - mean_x) ** 2 for s in samples)
    return sum((s.requests - mean_x) * (s.rss - mean_y) for s in samples) / spread if spread else 0.0
