"""The engine as a process of its own: its death costs the running answers, its warmth survives."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import psutil
import pytest

from naila.events import Reply
from naila.mqtt.device import Device
from support.brain import Brain, BrainMaker
from support.mosquitto import Mosquitto
from support.often import HowOften
from support.robots import until
from support.said import ask_of, story

pytestmark = [pytest.mark.broker, pytest.mark.model]


def engine_of(brain: Brain) -> int | None:
    """Return the engine process's id, if there is one."""
    children = psutil.Process(brain.pid).children()
    return next((child.pid for child in children if "naila.inference.worker" in " ".join(child.cmdline())), None)


def kv_files(brain: Brain) -> list[Path]:
    return sorted((brain.folder / "state" / "kv").rglob("*.kv"))


def is_another(brain: Brain, gone: int) -> bool:
    """Tell whether there is an engine process again, and not the one that is gone."""
    return engine_of(brain) not in {None, gone}


async def next_reply(device: Device) -> Reply:
    """Wait for a reply that nobody else waits for."""
    while True:
        heard = await asyncio.wait_for(device.hear(), 30)
        if isinstance(heard, Reply):
            return heard


async def first_text(device: Device, request_id: str) -> None:
    """Wait until the answer to a request is being written."""
    while True:
        heard = await asyncio.wait_for(device.hear(), 30)
        if getattr(heard, "id", None) == request_id and getattr(heard, "text", ""):
            return


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_dead_engine_costs_only_the_running_answer_and_heals(
    broker: Mosquitto, make_brain: BrainMaker, number: signal.Signals, how_often: HowOften
) -> None:
    brain = make_brain(broker.port).start()
    async with Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        for _ in range(how_often(1, 20)):
            running = story("r2")
            device.send(running)
            await first_text(device, running.id)
            dead = engine_of(brain)
            assert dead is not None
            os.kill(dead, number)
            reply = await next_reply(device)
            assert (reply.id, reply.degraded) == (running.id, True)
            meanwhile = await device.ask(ask_of("r2", "Thank you!"))
            assert meanwhile.text
            await until(partial(is_another, brain, dead), 20)
            await device.wait_for_brain("online")
            healed = await device.ask(ask_of("r2", "What is ice?"))
            assert (healed.source, healed.degraded) == ("llm", False)
    assert f"died of {number.name}" in brain.log()


async def test_an_engine_that_hangs_is_killed_and_heals(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port).start()
    async with Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        hung = engine_of(brain)
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        reply = await device.ask(ask_of("r2", "What is ice?"), timeout_s=40)
        assert reply.degraded
        await until(lambda: engine_of(brain) not in {None, hung}, 30)
        await device.wait_for_brain("online")
        assert not (await device.ask(ask_of("r2", "What is ice?"))).degraded


async def test_the_engine_dies_with_the_daemon(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port).start()
    async with Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
    engine = engine_of(brain)
    assert engine is not None
    brain.kill()
    await until(lambda: not psutil.pid_exists(engine), 5)


async def test_a_conversation_is_as_warm_after_a_restart_as_before(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port).start()
    async with Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        for text in ("I keep my wrench in the blue box.", "The blue box is under the old wooden table."):
            before = await device.ask(ask_of("r2", text))
        assert await asyncio.to_thread(brain.stop) == 0
        await device.wait_for_brain("offline")
        brain.start()
        await device.wait_for_brain("online")
        after = await device.ask(ask_of("r2", "Why do I keep it there?"))
    known = before.usage.prompt_tokens + before.usage.completion_tokens
    assert after.usage.prompt_tokens > known
    assert after.usage.cached_tokens >= known - 5


@pytest.mark.parametrize("worker", ["thread", "process"])
async def test_what_is_forgotten_is_gone_from_the_kv_cache_and_from_disk(
    broker: Mosquitto, make_brain: BrainMaker, worker: str
) -> None:
    brain = make_brain(broker.port, LLM_WORKER=worker).start()
    async with Device(broker.settings(), "r2") as device, Device(broker.settings(), "r3") as other:
        await device.wait_for_brain("online")
        told = await device.ask(ask_of("r2", "I keep my wrench in the blue box under the table."))
        await other.ask(ask_of("r3", "I keep my wrench in the red box under the table."))
        await until(lambda: any(b'"r2/' in path.read_bytes()[:500] for path in kv_files(brain)))
        await asyncio.to_thread(brain.command, "memory", "forget", "r2")
        await until(lambda: not any(b'"r2/' in path.read_bytes()[:500] for path in kv_files(brain)))
        again = await device.ask(ask_of("r2", "I keep my wrench in the blue box under the table."))
        assert again.usage.prompt_tokens == told.usage.prompt_tokens
        assert again.usage.cached_tokens <= told.usage.cached_tokens + 12
    assert await asyncio.to_thread(brain.stop) == 0
    await asyncio.to_thread(brain.command, "memory", "forget", "r3")
    assert not any(b'"r3/' in path.read_bytes()[:500] for path in kv_files(brain))
