"""Keeping a model loaded: when it tries, when it waits, whom it tells. Time passes only where the keeper sleeps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from naila.errors import ModelCorruptError, ModelError, ModelNotFoundError, ModelTruncatedError
from naila.events import Alert
from naila.server.model_keeper import ModelKeeper

MISSING = ModelNotFoundError("there is no model")
CORRUPT = ModelCorruptError("its SHA-256 is wrong")
TRUNCATED = ModelTruncatedError("it ends early", path=Path("m.gguf"), size=1, expected=2)


@dataclass
class FakeService:
    """Loads as scripted: an error for each attempt that fails, None for one that succeeds, the last one for ever.

    Attributes:
        script: what comes of the attempts.
        loading: called during each attempt, with its number.
    """

    script: list[ModelError | None]
    loading: Callable[[int], None] = lambda _: None
    is_loaded: bool = False
    failures: int = 0
    has_answered: bool = False
    failure: str | None = None
    attempts: int = 0

    @property
    def model_name(self) -> str | None:
        return "fake" if self.is_loaded else None

    async def load_model(self) -> object:
        self.is_loaded = False
        self.attempts += 1
        self.failures = 0
        self.loading(self.attempts)
        outcome = self.script[min(self.attempts, len(self.script)) - 1]
        if outcome is not None:
            raise outcome
        self.is_loaded = True
        return object()


@dataclass
class World:
    """The keeper's surroundings: files, time, and who is told."""

    service: FakeService
    files: str = "as at first"
    seconds: float = 0.0
    alerts: list[Alert] = field(default_factory=list)
    changes: int = 0
    plans: dict[float, Callable[[], None]] = field(default_factory=dict)

    def keeper(self) -> ModelKeeper:
        return ModelKeeper(
            self.service,
            files=lambda: self.files,
            alert=self.alerts.append,
            on_change=self._changed,
            sleep=self._sleep,
            rng=random.Random(1),
        )

    @property
    def codes(self) -> list[str]:
        return [alert.code for alert in self.alerts]

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Plan something."""
        self.plans[seconds] = act

    def _changed(self) -> None:
        self.changes += 1

    async def _sleep(self, seconds: float) -> None:
        self.seconds += seconds
        for when in [when for when in self.plans if when <= self.seconds]:
            self.plans.pop(when)()
        await asyncio.sleep(0)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Load once, as the daemon does at its start, then watch."""
        keeper = self.keeper()
        await keeper.load()
        task = asyncio.create_task(keeper.run())
        yield
        task.cancel()
        await asyncio.wait({task})

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - time is the fake's own
                await asyncio.sleep(0)


async def test_a_model_that_is_there_is_loaded_once_and_nobody_is_alarmed() -> None:
    world = World(FakeService([None]))
    async with world.kept():
        await world.until(lambda: world.seconds > 1000)
    assert world.service.attempts == 1
    assert world.alerts == []
    assert world.changes >= 1


async def test_a_failed_load_is_tried_again_with_growing_pauses_and_told_once() -> None:
    tried: list[float] = []
    world = World(FakeService([MISSING]))
    world.service.loading = lambda _: tried.append(world.seconds)
    async with world.kept():
        await world.until(lambda: world.service.attempts == 16)
    pauses = [later - before for before, later in pairwise(tried)]
    assert 0.8 <= pauses[0] <= 1.8
    assert sum(pauses[:3]) < 8  # a shortage that is over soon is over soon
    assert pauses[0] < pauses[3] < pauses[6]
    assert all(47 <= pause <= 73 for pause in pauses[12:])
    assert world.codes == ["model_failed"]
    assert world.alerts[0].severity == "critical"
    assert world.alerts[0].message == "there is no model"


async def test_another_reason_to_fail_is_told_too() -> None:
    world = World(FakeService([MISSING, MISSING, TRUNCATED]))
    async with world.kept():
        await world.until(lambda: world.service.attempts == 3)
    assert [alert.message for alert in world.alerts] == ["there is no model", "it ends early"]


async def test_a_file_put_in_place_is_loaded_within_two_seconds() -> None:
    world = World(FakeService([MISSING] * 7 + [None]))
    async with world.kept():
        await world.until(lambda: world.service.attempts == 7)  # the pauses are long by now
        put_at = world.seconds + 5
        world.at(put_at, lambda: setattr(world, "files", "a new one"))
        await world.until(lambda: world.service.is_loaded)
    assert world.seconds <= put_at + 2
    assert world.codes == ["model_failed", "model_recovered"]
    assert world.alerts[-1].severity == "info"


@pytest.mark.parametrize("wrong", [CORRUPT, TRUNCATED])
async def test_a_wrong_file_is_not_read_again_until_it_changes(wrong: ModelError) -> None:
    world = World(FakeService([wrong, None]))
    async with world.kept():
        await world.until(lambda: world.seconds > 1000)
        assert world.service.attempts == 1
        world.files = "another"
        await world.until(lambda: world.service.is_loaded)
    assert world.service.attempts == 2


async def test_a_wrong_file_that_changes_while_it_is_read_is_read_again() -> None:
    world = World(FakeService([CORRUPT, None]))
    world.service.loading = lambda attempt: setattr(world, "files", f"changed during attempt {attempt}")
    async with world.kept():
        await world.until(lambda: world.service.is_loaded)
    assert world.service.attempts == 2


async def test_a_model_that_fails_again_and_again_is_loaded_anew_at_once() -> None:
    world = World(FakeService([None]))
    async with world.kept():
        await world.until(lambda: world.seconds > 10)
        world.service.failures = 2
        await world.until(lambda: world.seconds > 20)
        assert world.service.attempts == 1
        world.service.failures = 3
        failed_at = world.seconds
        await world.until(lambda: world.service.attempts == 2)
        assert world.seconds <= failed_at + 1
        await world.until(lambda: world.seconds > 40)
    assert world.service.attempts == 2
    assert world.codes == []


async def test_a_model_that_cannot_be_loaded_anew_is_told_and_healed() -> None:
    world = World(FakeService([None, MISSING, MISSING, None]))
    async with world.kept():
        world.service.failures = 3
        await world.until(lambda: world.service.attempts == 4)
        await world.until(lambda: len(world.alerts) == 2)
    assert world.codes == ["model_failed", "model_recovered"]


async def test_health_says_how_the_model_is() -> None:
    world = World(FakeService([MISSING, None]))
    keeper = world.keeper()
    assert keeper.health().status == "degraded"
    assert not keeper.failed
    await keeper.load()
    assert keeper.failed
    assert keeper.health().status == "down"
    assert "there is no model" in (keeper.health().detail or "")
    await keeper.load()
    assert not keeper.failed
    assert (keeper.health().status, keeper.health().detail) == ("ok", "fake")


async def test_progress_is_shown_in_steps() -> None:
    """The engine reports it from another thread, very often."""
    seen: list[str | None] = []
    world = World(FakeService([None]))
    keeper = ModelKeeper(
        world.service,
        files=lambda: world.files,
        alert=world.alerts.append,
        on_change=lambda: seen.append(keeper.health().detail),
    )

    def report() -> None:
        for step in range(1001):
            assert keeper.progress(step / 1000)

    async def load_model() -> object:
        await asyncio.to_thread(report)
        await asyncio.sleep(0)
        return object()

    world.service.load_model = load_model  # type: ignore[method-assign]
    await keeper.load()
    assert seen == [f"loading, {step}0%" for step in range(1, 11)] + ["loading, 100%"]


def loads_dying_after(world: World, seconds: float) -> list[float]:
    """Have each engine die so long after it was loaded; return a list that the moments of loading are added to."""
    loaded: list[float] = []

    def load(_: int) -> None:
        loaded.append(world.seconds)
        world.at(world.seconds + seconds, lambda: setattr(world.service, "is_loaded", False))

    world.service.loading = load
    return loaded


async def test_an_engine_that_keeps_dying_is_loaded_again_with_growing_pauses() -> None:
    world = World(FakeService([None]))
    loaded = loads_dying_after(world, 0.5)
    async with world.kept():
        await world.until(lambda: len(loaded) == 16)
    pauses = [later - before for before, later in pairwise(loaded)]
    assert pauses[0] < 1
    assert pauses[2] < pauses[4] < pauses[6]
    assert 50 < max(pauses) <= 62


async def test_an_engine_that_was_well_for_long_is_loaded_again_at_once() -> None:
    world = World(FakeService([None]))
    loaded = loads_dying_after(world, 100)
    async with world.kept():
        await world.until(lambda: len(loaded) == 5)
    assert all(later - before < 101 for before, later in pairwise(loaded))


async def test_an_engine_that_answers_between_its_deaths_is_loaded_again_at_once() -> None:
    world = World(FakeService([None], has_answered=True))
    loaded = loads_dying_after(world, 2)
    async with world.kept():
        await world.until(lambda: len(loaded) == 21)
    assert all(later - before < 3 for before, later in pairwise(loaded))
