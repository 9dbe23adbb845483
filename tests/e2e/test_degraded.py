"""Without a model the brain answers all the same, says so, and heals without a restart."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from naila.errors import ContractError
from naila.mqtt.device import Device
from support.brain import BrainMaker
from support.ear import Ear
from support.mosquitto import Mosquitto
from support.said import CLOCK, GREETING, ask_of

pytestmark = [pytest.mark.broker, pytest.mark.model]

# The catalogue knows this file's SHA-256 by its name.
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def put(source: Path, target: Path) -> None:
    """Put a file in its place at once, as a download does."""
    part = target.with_suffix(".part")
    shutil.copyfile(source, part)
    part.replace(target)


def missing(good: Path, place: Path) -> None:
    """Leave the place empty."""


def truncated(good: Path, place: Path) -> None:
    put(good, place)
    os.truncate(place, good.stat().st_size // 2)


def flipped(good: Path, place: Path) -> None:
    put(good, place)
    with place.open("r+b") as file:
        file.seek(good.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))


def another_thing(good: Path, place: Path) -> None:
    place.write_bytes(b"<html>404 Not Found</html>" * 1000)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (missing, "there is no such file"),
        (truncated, "bytes"),
        (flipped, "SHA-256"),
        (another_thing, "GGUF"),
    ],
)
async def test_a_model_that_cannot_be_served_is_named_survived_and_healed(  # noqa: PLR0917 - fixtures
    damage: Callable[[Path, Path], None],
    says: str,
    broker: Mosquitto,
    make_brain: BrainMaker,
    model_path: Path,
    tmp_path: Path,
) -> None:
    place = tmp_path / NAME
    damage(model_path, place)
    brain = make_brain(broker.port, LLM_MODEL_PATH=str(place), METRICS_INTERVAL_S="0.3").start()
    async with Ear(broker.settings(), "naila/ai/#") as ear, Device(broker.settings(), "r2") as device:
        assert await device.wait_for_brain("online", "degraded") == "degraded"
        health = await ear.until_object("naila/ai/health", lambda found: found["status"] == "degraded")
        assert health["components"]["llm"]["status"] == "down"
        assert says in health["components"]["llm"]["detail"]
        assert NAME in health["components"]["llm"]["detail"]
        alert = await ear.until_object("naila/ai/alerts", lambda _: True)
        assert set(alert) == {"code", "severity", "message"}
        assert (alert["code"], alert["severity"]) == ("model_failed", "critical")
        metrics = await ear.until_object("naila/ai/metrics", lambda _: True)
        assert metrics["llm_status"] == "error"

        told = await device.ask(ask_of("r2", "Hello, my name is Ada."))
        clock = await device.ask(ask_of("r2", CLOCK))
        for reply in (told, clock):
            assert (reply.degraded, reply.source, reply.model) == (True, "pattern", None)
            assert reply.text

        put(model_path, place)
        began = time.monotonic()
        assert await device.wait_for_brain("online", timeout_s=20) == "online"
        assert time.monotonic() - began < 10
        healed = await device.ask(ask_of("r2", "What do you think of the sea?"))
        assert (healed.degraded, healed.source) == (False, "llm")
        recovered = await ear.until_object("naila/ai/alerts", lambda found: found["code"] == "model_recovered")
        assert recovered["severity"] == "info"
    # What patterns answered is remembered like any other turn.
    shown = json.loads((await asyncio.to_thread(brain.command, "memory", "show", "r2", "--json")).stdout)
    assert [turn["reply_text"] for turn in shown["turns"]] == [told.text, clock.text, healed.text]
    assert [fact["fact"]["value"] for fact in shown["facts"]] == ["Ada"]
    assert "phase: running" in brain.log()
    assert brain.log().count("phase: configuration") == 1


async def test_a_model_folder_that_is_empty_is_watched(
    broker: Mosquitto, make_brain: BrainMaker, model_path: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    make_brain(broker.port, LLM_MODEL_PATH="", MODELS_DIR=str(models)).start()
    async with Device(broker.settings(), "r2") as device:
        assert await device.wait_for_brain("online", "degraded") == "degraded"
        put(model_path, models / NAME)
        await device.wait_for_brain("online", timeout_s=20)
        assert (await device.ask(ask_of("r2", GREETING))).source == "llm"


async def test_while_the_database_fails_requests_wait_and_are_told_and_then_answered(
    broker: Mosquitto, make_brain: BrainMaker
) -> None:
    brain = make_brain(broker.port).start()
    async with Ear(broker.settings(), "naila/ai/#") as ear, Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        with closing(sqlite3.connect(brain.environ["MEMORY_PATH"], isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(ContractError, match="cannot write to its disk") as told:
                await device.ask(waits := ask_of("r2", CLOCK), timeout_s=20)
            assert told.value.code == "busy"
            alert = await ear.until_object("naila/ai/alerts", lambda _: True)
            assert (alert["code"], "holds its lock" in alert["message"]) == ("memory_failed", True)
            health = await ear.until_object(
                "naila/ai/health", lambda found: found["components"]["memory"]["status"] == "down"
            )
            assert "holds its lock" in health["components"]["memory"]["detail"]
            assert await device.wait_for_brain("degraded") == "degraded"
            other.execute("ROLLBACK")
        kept = await device.ask(waits, timeout_s=20, repeat_s=1)
        assert await device.wait_for_brain("online") == "online"
        await ear.until_object("naila/ai/alerts", lambda found: found["code"] == "memory_recovered")
    shown = json.loads((await asyncio.to_thread(brain.command, "memory", "show", "r2", "--json")).stdout)
    assert [turn["reply_text"] for turn in shown["turns"]] == [kept.text]
