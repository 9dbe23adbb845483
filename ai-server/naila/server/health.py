"""How the brain is: one word, one document, and the loops that publish them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import naila
from naila.events import Alert, BrainState, BrainStatus, ComponentHealth, Health, Metrics
from naila.ports import Clock, Publisher
from naila.server.notify import Supervisor
from naila.utils.hardware_detection import MemoryReading

_log = logging.getLogger(__name__)

Probe = Callable[[], ComponentHealth]

_LOW_MEMORY_SHARE: Final = 0.05


class Pulse:
    """The brain's phase of life and the state that follows from it and from its components.

    Attributes:
        phase: what the daemon is doing, as the health topic shows it.
        changed: set whenever somebody should look again.
    """

    def __init__(self, components: Mapping[str, Probe], clock: Clock) -> None:
        self._components = components
        self._clock = clock
        self._started = clock.monotonic()
        self.phase = "configuration"
        self.changed = asyncio.Event()

    def enter(self, phase: str) -> None:
        """Go on to a phase of life."""
        _log.info("phase: %s", phase)
        self.phase = phase
        self.changed.set()

    @property
    def state(self) -> BrainState:
        """The word for the status topic."""
        if self.phase in {"stopping", "offline"}:
            return "stopping" if self.phase == "stopping" else "offline"
        if self.phase != "running":
            return "starting"
        # Whoever hears the word has a broker.
        is_well = all(probe().status == "ok" for name, probe in self._components.items() if name != "mqtt")
        return "online" if is_well else "degraded"

    def status(self) -> BrainStatus:
        """Return the status message of this moment."""
        return BrainStatus(status=self.state)

    def health(self) -> Health:
        """Return the health message of this moment."""
        return Health(
            status=self.state,
            version=naila.__version__,
            uptime_s=round(self._clock.monotonic() - self._started, 3),
            phase=self.phase,
            components={name: probe() for name, probe in self._components.items()},
        )


class Reporter:
    """Publishes status and health when they change, and health and metrics as often as set."""

    def __init__(
        self,
        pulse: Pulse,
        publisher: Publisher,
        *,
        metrics: Callable[[], Metrics],
        memory: Callable[[], MemoryReading],
        supervisor: Supervisor,
        health_interval_s: float,
        metrics_interval_s: float,
    ) -> None:
        """Make a reporter.

        Args:
            pulse: what to report.
            publisher: where to.
            metrics: the figures of the moment.
            memory: main memory at this moment.
            supervisor: is told the same in its own way.
            health_interval_s: how often health is published.
            metrics_interval_s: how often metrics are published.
        """
        self._pulse = pulse
        self._publisher = publisher
        self._metrics = metrics
        self._memory = memory
        self._supervisor = supervisor
        self._health_interval_s = health_interval_s
        self._metrics_interval_s = metrics_interval_s
        self._state: BrainState | None = None
        self._low_memory = False

    async def report_health(self) -> None:
        """Publish health for ever: at once when something changed, else at each interval."""
        while True:
            self._pulse.changed.clear()
            self.publish_health()
            try:
                async with asyncio.timeout(self._health_interval_s):
                    await self._pulse.changed.wait()
            except TimeoutError:
                self._watch_memory()

    def publish_health(self) -> None:
        """Publish health, and the status where it is another than before."""
        health = self._pulse.health()
        if health.status != self._state:
            self._state = health.status
            self._publisher.publish(self._pulse.status())
            details = "; ".join(
                f"{name}: {part.detail}" for name, part in health.components.items() if part.status != "ok"
            )
            _log.info("the brain is %s%s", health.status, f" ({details})" if details else "")
            self._supervisor.status(f"{health.status}{f' ({details})' if details else ''}")
        self._publisher.publish(health)

    async def report_metrics(self) -> None:
        """Publish metrics for ever."""
        while True:
            await asyncio.sleep(self._metrics_interval_s)
            self._publisher.publish(self._metrics())

    def _watch_memory(self) -> None:
        reading = self._memory()
        threshold = reading.total * _LOW_MEMORY_SHARE
        is_low = reading.available < threshold
        if is_low and not self._low_memory:
            self._publisher.publish(
                Alert(
                    code="low_memory",
                    severity="warning",
                    message=(
                        f"{reading.available / 2**20:.0f} MiB of memory are left on this machine: close something, "
                        "use a smaller model, or lower LLM_CONTEXT_SIZE"
                    ),
                    value=reading.available,
                    threshold=threshold,
                )
            )
        self._low_memory = is_low


async def feed_watchdog(supervisor: Supervisor, stalls: Callable[[], list[str]]) -> None:
    """Feed the service manager's watchdog as long as nothing stalls; returns at once where there is none.

    Args:
        supervisor: the service manager.
        stalls: names what makes no progress.
    """
    if supervisor.watchdog_s is None:
        return
    while True:
        if stalled := stalls():
            _log.critical("no progress in %s: the service manager will restart the daemon", ", ".join(stalled))
        else:
            supervisor.alive()
        await asyncio.sleep(supervisor.watchdog_s / 3)
