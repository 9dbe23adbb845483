"""Everything that a run with faults needs: a broker, daemons, a wire that is listened to, and the books."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.brain import Brain
from support.mosquitto import Mosquitto
from support.overheard import Overheard
from support.proxy import Proxy
from support.robots import until
from support.tally import Counts, Tally

KEEPALIVE_S = 2
QUIET_S = 1.5
CLIENT_ID = "naila-test"


@dataclass(slots=True)
class Wire:
    """The way between a brain and its broker, with somebody who listens.

    Attributes:
        proxy: what can be done to it.
        connects: when which client id said CONNECT.
    """

    proxy: Proxy
    connects: list[tuple[float, str]] = field(default_factory=list)

    def connected(self, client_id: str) -> None:
        """Somebody said CONNECT."""
        self.connects.append((time.monotonic(), client_id))

    def connected_since(self, since: float) -> float | None:
        """Return how many seconds after `since` the brain connected; None: not yet."""
        return next((at - since for at, who in self.connects if at > since and who == CLIENT_ID), None)


@dataclass(slots=True)
class Scene:
    """One run.

    Attributes:
        folder: where everything lives.
        broker: it runs already, on its default configuration: it keeps nothing when it is killed.
        tally: the books.
        chance: chooses the moments, the same ones in every run of a test.
        results: where the counts and pictures go.
    """

    folder: Path
    broker: Mosquitto
    tally: Tally
    chance: random.Random
    results: Path
    _brains: list[Brain] = field(default_factory=list)

    def brain(self, port: int, **environ: str) -> Brain:
        """Make a daemon without a model, not started: degraded, but quick."""
        folder = self.folder / f"brain-{len(self._brains)}"
        folder.mkdir()
        few = {"LLM_MODEL_PATH": str(folder / "none.gguf"), "LLM_SEED": "7", "ACTIONS_PER_MINUTE": "6000"}
        brain = Brain(folder, port, **{**few, "MQTT_KEEPALIVE_S": str(KEEPALIVE_S), **environ})
        self._brains.append(brain)
        return brain

    @asynccontextmanager
    async def tapped(self) -> AsyncIterator[Wire]:
        """Lay a wire to the broker on which every acknowledgement of the brain is written down."""
        wire = Wire(Proxy(self.broker.port, listen=lambda: Overheard(self.tally.accepted, wire.connected)))
        async with wire.proxy:
            yield wire

    def report(self) -> Counts:
        """Print and write down the counts."""
        return self.tally.report(self.results)

    def end(self) -> None:
        """Kill every daemon that is left."""
        for brain in self._brains:
            brain.kill()


async def running(brain: Brain, timeout_s: float = 60.0) -> None:
    """Return when a daemon that was started just now has come up."""

    def is_ready() -> bool:
        if not brain.is_running:
            raise AssertionError(f"it ended:\n{brain.log()[-4000:]}")
        return b"NAILA is ready" in brain.log_path.read_bytes()[brain.log_from :]

    await until(is_ready, timeout_s)


def assert_nothing_lost_or_twice(counts: Counts) -> None:
    """Every request has one reply, and nothing was done twice."""
    assert counts.requests
    assert (counts.lost, counts.refused_for_good) == (0, 0)
    assert counts.answered_twice == 0
    assert counts.actions_twice == 0


def assert_well(brain: Brain) -> None:
    """The daemon lives, and nothing surprised it."""
    assert brain.is_running, brain.log()[-4000:]
    assert "Traceback" not in brain.log(), brain.log()[brain.log().index("Traceback") :][:4000]
