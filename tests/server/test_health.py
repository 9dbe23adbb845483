"""The brain's state: the word that follows from phase and components, and when it is published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from naila.events import Alert, BrainStatus, ComponentHealth, Health, Metrics
from naila.server.health import Pulse, Reporter
from naila.server.notify import Supervisor
from naila.utils.hardware_detection import MemoryReading
from support.fakes import FakeClock, FakePublisher
from support.robots import until

OK = ComponentHealth(status="ok")
DOWN = ComponentHealth(status="down", detail="it is gone")
METRICS = Metrics(
    llm_status="loaded",
    model_name="fake",
    inference_time_ms=1.0,
    tokens_generated=1,
    tokens_per_second=1.0,
    context_length=1,
    temperature=0.7,
    hardware_acceleration="cpu",
)


@dataclass
class Body:
    """A brain's parts, whose health tests set."""

    clock: FakeClock = field(default_factory=FakeClock)
    publisher: FakePublisher = field(default_factory=FakePublisher)
    health: dict[str, ComponentHealth] = field(default_factory=lambda: {"mqtt": OK, "llm": OK, "memory": OK})
    available: int = 500
    pulse: Pulse = field(init=False)

    def __post_init__(self) -> None:
        self.pulse = Pulse({name: partial(self.health.__getitem__, name) for name in self.health}, self.clock)

    def reporter(self, *, health_interval_s: float = 60.0, metrics_interval_s: float = 60.0) -> Reporter:
        return Reporter(
            self.pulse,
            self.publisher,
            metrics=lambda: METRICS,
            memory=lambda: MemoryReading(total=1000, available=self.available, process=1),
            supervisor=Supervisor({}),
            health_interval_s=health_interval_s,
            metrics_interval_s=metrics_interval_s,
        )

    @asynccontextmanager
    async def reporting(self, **intervals: float) -> AsyncIterator[None]:
        reporter = self.reporter(**intervals)
        tasks = [asyncio.create_task(reporter.report_health()), asyncio.create_task(reporter.report_metrics())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    @property
    def words(self) -> list[str]:
        return [event.status for event in self.publisher.published if isinstance(event, BrainStatus)]

    def heard(self, kind: type) -> list[object]:
        return [event for event in self.publisher.published if isinstance(event, kind)]


@pytest.mark.parametrize(
    ("phase", "sick", "word"),
    [
        ("configuration", {}, "starting"),
        ("models", {"llm": DOWN}, "starting"),
        ("protocol handlers", {}, "starting"),
        ("mqtt", {"llm": DOWN}, "starting"),
        ("running", {}, "online"),
        ("running", {"llm": DOWN}, "degraded"),
        ("running", {"llm": ComponentHealth(status="degraded", detail="loading, 5%")}, "degraded"),
        ("running", {"memory": DOWN}, "degraded"),
        # Whoever hears the word has a broker.
        ("running", {"mqtt": DOWN}, "online"),
        ("stopping", {"llm": DOWN}, "stopping"),
        ("offline", {}, "offline"),
    ],
)
async def test_the_word_follows_from_phase_and_components(
    phase: str, sick: dict[str, ComponentHealth], word: str
) -> None:
    body = Body()
    body.health |= sick
    body.pulse.enter(phase)
    assert body.pulse.state == word
    assert body.pulse.status().status == word


async def test_health_says_everything() -> None:
    body = Body()
    body.clock.advance(12.3456)
    body.health["llm"] = DOWN
    body.pulse.enter("running")
    health = body.pulse.health()
    assert (health.status, health.phase, health.uptime_s) == ("degraded", "running", 12.346)
    assert health.components == {"mqtt": OK, "llm": DOWN, "memory": OK}


async def test_a_change_is_published_at_once_and_the_word_only_when_it_is_another() -> None:
    body = Body()
    async with body.reporting():
        await until(lambda: len(body.heard(Health)) == 1)
        body.pulse.enter("models")
        await until(lambda: len(body.heard(Health)) == 2)
        body.pulse.enter("running")
        await until(lambda: len(body.heard(Health)) == 3)
        body.health["llm"] = DOWN
        body.pulse.changed.set()
        await until(lambda: len(body.heard(Health)) == 4)
        body.health["llm"] = OK
        body.pulse.changed.set()
        await until(lambda: len(body.heard(Health)) == 5)
    assert body.words == ["starting", "online", "degraded", "online"]


async def test_health_and_metrics_are_published_as_often_as_set() -> None:
    body = Body()
    async with body.reporting(health_interval_s=0.01, metrics_interval_s=0.01):
        await until(lambda: len(body.heard(Health)) > 3 and len(body.heard(Metrics)) > 3)
    assert body.words == ["starting"]


async def test_low_memory_is_told_once_until_it_was_well_again() -> None:
    body = Body(available=40)
    async with body.reporting(health_interval_s=0.005):
        await until(lambda: len(body.heard(Health)) > 4)
        assert len(body.heard(Alert)) == 1
        body.available = 60
        seen = len(body.heard(Health))
        await until(lambda: len(body.heard(Health)) > seen + 2)
        body.available = 40
        await until(lambda: len(body.heard(Alert)) == 2)
    alert = body.heard(Alert)[0]
    assert isinstance(alert, Alert)
    assert (alert.code, alert.severity, alert.value, alert.threshold) == ("low_memory", "warning", 40, 50)
