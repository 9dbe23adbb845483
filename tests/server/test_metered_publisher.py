"""Figures gathered where replies go out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from naila.events import Alert, ErrorNotice, Metrics, Reply, Timing, Usage
from naila.ports import EnginePlan, ModelHeader
from naila.server.metrics import MeteredPublisher
from naila.services.llm_service import LoadedModel
from support.fakes import FakePublisher, an_intent

REPLY = Reply(
    device_id="r2",
    id="q1",
    text="All is well.",
    intent="question",
    source="llm",
    degraded=False,
    conversation_id="default",
    finish_reason="stop",
    model="fake",
    usage=Usage(prompt_tokens=100, cached_tokens=75, completion_tokens=10),
    timing=Timing(queue_ms=5.0, ttft_ms=50.0, total_ms=205.0, tokens_per_second=40.0),
)
LOADED = LoadedModel(
    header=ModelHeader(
        path=Path("fake.gguf"),
        name="fake",
        architecture="llama",
        file_bytes=1,
        n_layers=1,
        n_ctx_train=1,
        n_embd=1,
        n_heads=1,
        n_kv_heads=1,
        head_dim_k=1,
        head_dim_v=1,
        n_vocab=1,
    ),
    plan=EnginePlan(
        n_threads=1,
        n_threads_batch=1,
        n_gpu_layers=99,
        n_ctx=4096,
        n_cells=32_768,
        n_sequences=48,
        n_batch=512,
        use_mmap=True,
        acceleration="cuda",
        needed_bytes=1,
        available_bytes=2,
        reasons={},
    ),
    load_s=0.5,
)


@dataclass
class FakeService:
    """A service with or without a model."""

    loaded: LoadedModel | None = LOADED
    model_name: str | None = "fake"

    def figures(self) -> dict[str, float]:
        return {"steps": 10, "jobs": 25, "cells_used": 700} if self.loaded else {}


def snapshot(meter: MeteredPublisher, service: FakeService | None = None, *, failed: bool = False) -> Metrics:
    return meter.snapshot(
        service or FakeService(),
        temperature=0.7,
        failed=failed,
        queue_depth=3,
        tasks=40,
        restarts=2,
        link={"mqtt_received": 9},
    )


def test_what_is_published_goes_on_to_whom_it_is_for() -> None:
    publisher = FakePublisher()
    intent = an_intent()
    MeteredPublisher(publisher, slow_threshold_s=10).publish(REPLY, to=intent)
    assert publisher.published == [REPLY]
    assert publisher.requests == [intent]


def test_replies_errors_and_tokens_are_counted() -> None:
    meter = MeteredPublisher(FakePublisher(), slow_threshold_s=10)
    meter.publish(REPLY)
    meter.publish(replace(REPLY, source="pattern", degraded=True, usage=Usage()))
    meter.publish(ErrorNotice(device_id="r2", code="busy", message="later"))
    metrics = snapshot(meter)
    counters = metrics.extra["counters"]
    assert isinstance(counters, dict)
    assert {name: counters[name] for name in ("replies", "replies_llm", "replies_pattern", "replies_degraded")} == {
        "replies": 2,
        "replies_llm": 1,
        "replies_pattern": 1,
        "replies_degraded": 1,
    }
    assert (counters["errors_busy"], counters["mqtt_received"]) == (1, 9)
    assert metrics.tokens_generated == 10
    assert metrics.extra["prefix_hit_rate"] == 0.75
    assert (metrics.extra["queue_depth"], metrics.extra["tasks"]) == (3, 40)


def test_the_figures_are_those_of_the_last_answer_of_the_model() -> None:
    meter = MeteredPublisher(FakePublisher(), slow_threshold_s=10)
    meter.publish(REPLY)
    meter.publish(replace(REPLY, source="pattern", timing=Timing(total_ms=1.0)))
    metrics = snapshot(meter)
    assert (metrics.inference_time_ms, metrics.tokens_per_second) == (200.0, 40.0)
    assert (metrics.llm_status, metrics.model_name, metrics.context_length) == ("loaded", "fake", 4096)
    assert metrics.hardware_acceleration == "cuda"


def test_the_engines_figures_are_shown_with_its_occupancy() -> None:
    engine = snapshot(MeteredPublisher(FakePublisher(), slow_threshold_s=10)).extra["engine"]
    assert engine == {"steps": 10, "jobs": 25, "cells_used": 700, "occupancy": 2.5, "restarts": 2}


def test_before_anything_was_said_everything_is_nought() -> None:
    metrics = snapshot(MeteredPublisher(FakePublisher(), slow_threshold_s=10), FakeService(None, None))
    assert (metrics.llm_status, metrics.model_name, metrics.inference_time_ms) == ("unloaded", None, 0.0)
    assert (metrics.context_length, metrics.hardware_acceleration) == (0, "cpu")
    assert metrics.extra["latency_ms"] == {}
    assert metrics.extra["engine"] == {"restarts": 2}
    counters = metrics.extra["counters"]
    assert isinstance(counters, dict)
    assert counters["replies"] == 0


def test_a_model_that_could_not_be_loaded_is_an_error() -> None:
    metrics = snapshot(MeteredPublisher(FakePublisher(), slow_threshold_s=10), FakeService(None, None), failed=True)
    assert metrics.llm_status == "error"


def test_percentiles_are_of_the_last_thousand() -> None:
    meter = MeteredPublisher(FakePublisher(), slow_threshold_s=10)
    for number in range(3000):
        meter.publish(replace(REPLY, timing=Timing(total_ms=float(number))))
    latency = snapshot(meter).extra["latency_ms"]
    assert isinstance(latency, dict)
    assert latency["total_ms"] == {"p50": 2500.0, "p95": 2950.0, "p99": 2990.0}


def test_a_slow_answer_of_the_model_is_told() -> None:
    publisher = FakePublisher()
    meter = MeteredPublisher(publisher, slow_threshold_s=0.15)
    meter.publish(REPLY)
    meter.publish(replace(REPLY, source="pattern"))
    meter.publish(replace(REPLY, timing=replace(REPLY.timing, queue_ms=100.0)))
    (alert,) = [event for event in publisher.published if isinstance(event, Alert)]
    assert (alert.code, alert.severity, alert.device_id) == ("slow_inference", "warning", "r2")
    assert (alert.value, alert.threshold) == (0.2, 0.15)
    assert publisher.published[:2] == [REPLY, alert]
