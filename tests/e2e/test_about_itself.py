"""What the brain says about itself has exactly the contract's fields."""

from __future__ import annotations

from typing import Any

import pytest

import naila
from naila.config.settings import Settings
from naila.mqtt.device import Device
from support.ear import Ear
from support.said import CLOCK, GREETING, ask_of

pytestmark = [pytest.mark.broker, pytest.mark.model]

NUMBER = (int, float)


async def test_the_status_is_a_retained_word(settings: Settings) -> None:
    async with Ear(settings, "naila/ai/status") as ear:
        status = await ear.until(lambda _: True)
    assert (status.payload, status.retain) == (b"online", True)


async def test_the_health_is_retained(settings: Settings) -> None:
    async with Ear(settings, "naila/ai/health") as ear:
        message = await ear.until(lambda _: True)
    (health,) = ear.objects("naila/ai/health")[:1]
    assert message.retain
    assert message.content_type == "application/json"
    assert set(health) == {"status", "version", "uptime_s", "phase", "components"}
    assert (health["status"], health["version"], health["phase"]) == ("online", naila.__version__, "running")
    assert health["uptime_s"] > 0
    assert set(health["components"]) >= {"mqtt", "llm", "memory"}
    for component in health["components"].values():
        assert component["status"] == "ok"
        assert set(component) <= {"status", "detail"}


async def test_the_health_is_published_again_and_again(settings: Settings) -> None:
    async with Ear(settings, "naila/ai/health") as ear:
        first = await ear.until_object("naila/ai/health", lambda _: True)
        later = await ear.until_object("naila/ai/health", lambda found: found["uptime_s"] > first["uptime_s"])
    assert later["uptime_s"] - first["uptime_s"] < 5


async def test_the_metrics_are_those_of_the_contract(settings: Settings) -> None:
    async with Ear(settings, "naila/ai/metrics") as ear, Device(settings, "metered") as device:
        before = await ear.until_object("naila/ai/metrics", lambda _: True)
        reply = await device.ask(ask_of("metered", GREETING))
        await device.ask(ask_of("metered", CLOCK))
        count = before["counters"]["replies"]
        metrics = await ear.until_object("naila/ai/metrics", lambda found: found["counters"]["replies"] >= count + 2)
    kinds: dict[str, Any] = {
        "llm_status": str,
        "model_name": str,
        "inference_time_ms": NUMBER,
        "tokens_generated": int,
        "tokens_per_second": NUMBER,
        "context_length": int,
        "temperature": NUMBER,
        "hardware_acceleration": str,
        "queue_depth": int,
        "rss_bytes": int,
        "memory_available_bytes": int,
        "prefix_hit_rate": NUMBER,
        "latency_ms": dict,
        "counters": dict,
    }
    assert {name: isinstance(metrics[name], kind) for name, kind in kinds.items()} == dict.fromkeys(kinds, True)
    assert set(metrics) >= set(kinds)
    assert metrics["llm_status"] == "loaded"
    assert metrics["hardware_acceleration"] == "cpu"
    assert metrics["context_length"] == 2048
    assert metrics["inference_time_ms"] > 0
    assert metrics["tokens_generated"] >= reply.usage.completion_tokens
    assert set(metrics["latency_ms"]["total_ms"]) == {"p50", "p95", "p99"}
    assert metrics["counters"]["replies_pattern"] > 0


async def test_a_reply_has_the_fields_of_the_contract(settings: Settings) -> None:
    async with Ear(settings, "naila/devices/formal/#") as ear, Device(settings, "formal") as device:
        await device.ask(ask_of("formal", "What is a robot?", stream=True))
        await ear.until(lambda message: message.topic.endswith("/reply"))
    (reply,) = ear.objects("naila/devices/formal/reply")
    required = {"id", "text", "intent", "source", "degraded", "conversation_id", "finish_reason", "actions"}
    assert set(reply) == {*required, "model", "usage", "timing"}
    assert reply["actions"] == []
    assert set(reply["usage"]) == {"prompt_tokens", "cached_tokens", "completion_tokens"}
    assert set(reply["timing"]) == {"queue_ms", "ttft_ms", "total_ms", "tokens_per_second"}
    for piece in ear.objects("naila/devices/formal/reply/stream"):
        assert {"id", "seq", "text", "done"} <= set(piece) <= {"id", "seq", "text", "done", "sentence_end"}
