"""Figures about the brain, gathered where replies go out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Final, Protocol

from naila.events import Action, Alert, ErrorNotice, Intent, JsonValue, Metrics, Outbound, Reply
from naila.fleet import STOP, FleetView, Outcome, Pending, Proposal
from naila.ports import Cancellation, Fleet, Publisher
from naila.services.llm_service import LoadedModel
from naila.utils.hardware_detection import read_memory

_WINDOW: Final = 1000
_SHARES: Final = (0.5, 0.95, 0.99)
# Counted from the start, so that whoever reads the metrics finds them there.
_OUTCOMES: Final = ("done", "failed", "refused", "unanswered", "pending", "stopped")
_COUNTED: Final = (
    *("replies", "replies_degraded", "tokens_generated", "prompt_tokens", "cached_tokens", "actions_sent", "stops"),
    *(f"actions_{outcome}" for outcome in _OUTCOMES),
)


class ServesModel(Protocol):
    """Whose figures are told: the model's service."""

    @property
    def model_name(self) -> str | None:
        """The loaded model's name."""
        ...

    @property
    def loaded(self) -> LoadedModel | None:
        """What is being served, if anything."""
        ...

    def figures(self) -> Mapping[str, float]:
        """What its engine has done, by name; nothing without one."""
        ...


class MeteredPublisher:
    """A publisher that counts what passes through it, and raises the alert on slow answers.

    Attributes:
        counters: replies by source, errors by code, since the start.
    """

    def __init__(self, publisher: Publisher, *, slow_threshold_s: float) -> None:
        self._publisher = publisher
        self._slow_ms = slow_threshold_s * 1000
        self._last: Reply | None = None
        self._windows: dict[str, deque[float]] = {
            name: deque(maxlen=_WINDOW) for name in ("total_ms", "ttft_ms", "queue_ms")
        }
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))

    def publish(self, event: Outbound, *, to: Intent | None = None) -> None:
        """Send an event on and count it."""
        self._publisher.publish(event, to=to)
        if isinstance(event, Action):
            self.counters["stops" if event.name == STOP else "actions_sent"] += 1
        elif isinstance(event, ErrorNotice):
            self.counters[f"errors_{event.code}"] += 1
        elif isinstance(event, Reply):
            self._count(event)

    def _count(self, reply: Reply) -> None:
        self.counters["replies"] += 1
        self.counters[f"replies_{reply.source}"] += 1
        self.counters["replies_degraded"] += reply.degraded
        self.counters["tokens_generated"] += reply.usage.completion_tokens
        self.counters["prompt_tokens"] += reply.usage.prompt_tokens
        self.counters["cached_tokens"] += reply.usage.cached_tokens
        timing = reply.timing
        self._windows["total_ms"].append(timing.total_ms)
        self._windows["queue_ms"].append(timing.queue_ms)
        if reply.source != "llm":
            return
        self._last = reply
        self._windows["ttft_ms"].append(timing.ttft_ms)
        if timing.total_ms - timing.queue_ms > self._slow_ms:
            self._publisher.publish(
                Alert(
                    code="slow_inference",
                    severity="warning",
                    message=(
                        f"an answer took {(timing.total_ms - timing.queue_ms) / 1000:.1f} s "
                        f"({timing.tokens_per_second:.1f} tokens/s); is something else using the processor? "
                        "`naila doctor` shows the threads in use; a smaller model or LLM_MAX_TOKENS shortens answers"
                    ),
                    device_id=reply.device_id,
                    value=round((timing.total_ms - timing.queue_ms) / 1000, 3),
                    threshold=self._slow_ms / 1000,
                )
            )

    def snapshot(
        self,
        service: ServesModel,
        *,
        temperature: float,
        failed: bool,
        queue_depth: int,
        tasks: int,
        restarts: int,
        link: dict[str, int],
    ) -> Metrics:
        """Put the figures of this moment together."""
        loaded = service.loaded
        last = self._last
        memory = read_memory()
        extra: dict[str, JsonValue] = {
            "queue_depth": queue_depth,
            "tasks": tasks,
            "rss_bytes": memory.process,
            "memory_available_bytes": memory.available,
            "prefix_hit_rate": _ratio(self.counters["cached_tokens"], self.counters["prompt_tokens"]),
            "latency_ms": {name: _percentiles(values) for name, values in self._windows.items() if values},
            "counters": {**self.counters, **link},
            "engine": {**_engine(service.figures()), "restarts": restarts},
        }
        return Metrics(
            llm_status="loaded" if loaded else "error" if failed else "unloaded",
            model_name=service.model_name,
            inference_time_ms=last.timing.total_ms - last.timing.queue_ms if last else 0.0,
            tokens_generated=self.counters["tokens_generated"],
            tokens_per_second=last.timing.tokens_per_second if last else 0.0,
            context_length=loaded.plan.n_ctx if loaded else 0,
            temperature=temperature,
            hardware_acceleration=loaded.plan.acceleration if loaded else "cpu",
            extra=extra,
        )


class MeteredFleet(Fleet):
    """A fleet that counts what became of proposals."""

    def __init__(self, fleet: Fleet, counters: Counter[str]) -> None:
        self._fleet = fleet
        self._counters = counters

    def view(self, speaker: str) -> FleetView:
        """Return the devices that can be spoken of through a device, as they are now."""
        return self._fleet.view(speaker)

    async def perform(self, proposal: Proposal, *, cancellation: Cancellation | None = None) -> Outcome:
        """Perform, and count."""
        outcome = await self._fleet.perform(proposal, cancellation=cancellation)
        self._counters[f"actions_{outcome.status}"] += 1
        return outcome

    def pending(self, speaker: str) -> tuple[Pending, ...]:
        """Return what waits for a person at this device, oldest first."""
        return self._fleet.pending(speaker)

    async def settle(self, speaker: str, pending_id: str, *, approve: bool) -> Pending:
        """Take a person's answer to a pending action.

        Raises:
            ContractError: as the fleet does.
        """
        return await self._fleet.settle(speaker, pending_id, approve=approve)

    def stop(self, device_id: str | None, *, request_id: str, speaker: str) -> tuple[str, ...]:
        """Send the emergency stop."""
        return self._fleet.stop(device_id, request_id=request_id, speaker=speaker)


def _engine(figures: Mapping[str, float]) -> dict[str, JsonValue]:
    """Return the engine's own figures, and the occupancy: how many requests share a step."""
    if not figures:
        return {}
    return {**figures, "occupancy": _ratio(int(figures.get("jobs", 0)), int(figures.get("steps", 0)))}


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _percentiles(values: deque[float]) -> dict[str, JsonValue]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"p{round(share * 100)}": round(ordered[min(last, int(share * len(ordered)))], 3) for share in _SHARES}
