"""Model files that are missing, damaged, or replaced while in use: patterns answer, until a good one is there."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from naila.mqtt.device import Device
from support.brain import Brain
from support.often import HowOften
from support.said import CLOCK, ask_of
from support.scene import Scene, assert_well, running

pytestmark = [pytest.mark.broker, pytest.mark.model, pytest.mark.timeout(300)]
# The catalogue knows this file's SHA-256 by its name.
NAME: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
Damage = Callable[[Path, Path], None]


def put(source: Path, target: Path) -> None:
    """Put a file in its place at once, as a download does."""
    part = target.with_suffix(".part")
    shutil.copyfile(source, part)
    if target.is_dir():
        target.rmdir()
    part.replace(target)


def missing(good: Path, place: Path) -> None:
    place.unlink(missing_ok=True)


def empty(good: Path, place: Path) -> None:
    place.write_bytes(b"")


def half(good: Path, place: Path) -> None:
    put(good, place)
    os.truncate(place, good.stat().st_size // 2)


def header_only(good: Path, place: Path) -> None:
    put(good, place)
    os.truncate(place, 100)


def one_bit(good: Path, place: Path) -> None:
    change(good, place, good.stat().st_size // 2, 0x10)


def one_bit_of_the_header(good: Path, place: Path) -> None:
    change(good, place, 12, 0x80)


def another_version(good: Path, place: Path) -> None:
    change(good, place, 4, 0x60)


def a_page(good: Path, place: Path) -> None:
    place.write_bytes(b"<html>404 Not Found</html>" * 1000)


def noise(good: Path, place: Path) -> None:
    place.write_bytes(b"GGUF\x03\x00\x00\x00" + os.urandom(1_000_000))


def a_folder(good: Path, place: Path) -> None:
    place.unlink(missing_ok=True)
    place.mkdir()


def change(good: Path, place: Path, at: int, bits: int) -> None:
    """Flip bits of one byte."""
    put(good, place)
    with place.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ bits]))


EVERYDAY: Final[tuple[Damage, ...]] = (half, one_bit_of_the_header)
LONG: Final[tuple[Damage, ...]] = (*(missing, empty, header_only, one_bit, another_version, a_page, noise, a_folder),)


@pytest.mark.parametrize("damage", [*EVERYDAY, *LONG])
async def test_a_bad_model_is_survived_and_a_good_one_heals(
    scene: Scene, model_path: Path, damage: Damage, how_often: HowOften
) -> None:
    if damage in LONG and not how_often(0, 1):
        pytest.skip("only in the long run")
    place = scene.folder / NAME
    damage(model_path, place)
    brain = scene.brain(scene.broker.port, LLM_MODEL_PATH=str(place)).start()
    async with Device(scene.broker.settings(), "r2") as device:
        assert await device.wait_for_brain("online", "degraded") == "degraded"
        assert (await device.ask(ask_of("r2", CLOCK))).degraded
        scene.tally.extra["healed_s"] = round(await healing(device, brain, model_path, place), 2)
    check(scene, brain, how_often(15, 5))


@pytest.mark.parametrize("damage", [half, one_bit, a_page, missing, noise])
async def test_a_model_that_is_replaced_while_it_runs(
    scene: Scene, model_path: Path, damage: Damage, how_often: HowOften
) -> None:
    """The engine goes on with what it has mapped. It dies, and finds the bad one; a good one heals that."""
    if damage is not half and not how_often(0, 1):
        pytest.skip("only in the long run")
    place = scene.folder / NAME
    put(model_path, place)
    brain = scene.brain(scene.broker.port, LLM_MODEL_PATH=str(place)).start()
    async with Device(scene.broker.settings(), "r2") as device:
        assert await device.wait_for_brain("online", "degraded") == "online"
        spoilt = scene.folder / "spoilt.gguf"
        damage(model_path, spoilt)
        if spoilt.exists():
            spoilt.replace(place)
        else:
            place.unlink()
        assert (await device.ask(ask_of("r2", CLOCK))).text
        brain.kill_engine()
        assert await device.wait_for_brain("degraded") == "degraded"
        await asyncio.sleep(3)
        assert (await device.ask(ask_of("r2", CLOCK))).degraded
        scene.tally.extra["healed_s"] = round(await healing(device, brain, model_path, place), 2)
    check(scene, brain, how_often(15, 5))


async def test_a_model_that_is_overwritten_under_the_engine(
    scene: Scene, model_path: Path, how_often: HowOften
) -> None:
    """The worst way: the pages that the engine has mapped go away. It dies of it; the daemon does not."""
    place = scene.folder / NAME
    put(model_path, place)
    brain = scene.brain(scene.broker.port, LLM_MODEL_PATH=str(place)).start()
    async with Device(scene.broker.settings(), "r2") as device:
        assert await device.wait_for_brain("online", "degraded") == "online"
        os.truncate(place, 1000)
        reply = await device.ask(ask_of("r2", "What is ice?"), timeout_s=40, repeat_s=5)
        assert reply.text
        scene.tally.extra["healed_s"] = round(await healing(device, brain, model_path, place), 2)
    check(scene, brain, how_often(15, 5))


async def healing(device: Device, brain: Brain, good: Path, place: Path) -> float:
    """Put the good file there; return how long it takes until the model answers."""
    put(good, place)
    began = time.monotonic()
    await running(brain)
    await device.wait_for_brain("online", timeout_s=90)
    reply = await device.ask(ask_of("r2", "What is ice?", max_tokens=4), timeout_s=60)
    assert (reply.degraded, reply.source) == (False, "llm")
    return time.monotonic() - began


def check(scene: Scene, brain: Brain, limit_s: float) -> None:
    """Hold what was seen against what is asked for."""
    scene.report()
    assert_well(brain)
    healed_s = scene.tally.extra["healed_s"]
    assert isinstance(healed_s, float)
    assert healed_s <= limit_s
