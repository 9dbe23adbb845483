"""Brokers that die, come late, or are brought along."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from naila.config.settings import load_settings
from naila.mqtt.device import Device
from support.brain import BrainMaker
from support.ear import Ear
from support.mosquitto import Mosquitto, free_port
from support.robots import until
from support.said import CLOCK, ask_of, story

pytestmark = [pytest.mark.broker, pytest.mark.model]


async def test_a_broker_that_dies_and_comes_back_finds_the_brain_again(
    broker: Mosquitto, make_brain: BrainMaker
) -> None:
    """Even what was being answered meanwhile arrives."""
    make_brain(broker.port, LLM_MAX_TOKENS="200").start()
    async with Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        request = story("r2", stream=False, max_tokens=100)
        asking = asyncio.create_task(device.ask(request, timeout_s=40, repeat_s=1))
        await until(lambda: device.connection.published > 0)
        await asyncio.to_thread(broker.kill)
        await until(lambda: not device.connection.connected)
        await asyncio.to_thread(broker.start)
        reply = await asking
        assert reply.source == "llm"
        assert (await device.ask(ask_of("r2", CLOCK), timeout_s=15, repeat_s=1)).text
        async with Ear(broker.settings(), "naila/ai/#") as ear:
            # Degraded for a moment, while the connection for stops is not back yet.
            await ear.until_object(
                "naila/ai/health",
                lambda found: (found["status"], found["components"]["mqtt"]["status"]) == ("online", "ok"),
                15,
            )
            status = await ear.until(lambda message: message.topic == "naila/ai/status")
            assert status.payload == b"online"


async def test_a_broker_that_comes_late_is_waited_for(tmp_path: Path, make_brain: BrainMaker) -> None:
    broker = Mosquitto(tmp_path)
    brain = make_brain(broker.port).start()
    await asyncio.to_thread(brain.wait_for_log, "trying again")
    await asyncio.to_thread(brain.wait_for_log, "phase: running")
    broker.start()
    try:
        async with Device(broker.settings(), "r2") as device:
            await device.wait_for_brain("online", timeout_s=15)
            assert (await device.ask(ask_of("r2", CLOCK), timeout_s=15)).text
    finally:
        broker.stop()


async def test_without_a_broker_of_its_own_the_daemon_still_ends_in_good_order(make_brain: BrainMaker) -> None:
    brain = make_brain(free_port()).start()
    await asyncio.to_thread(brain.wait_for_log, "phase: running")
    assert await asyncio.to_thread(brain.stop) == 0


async def test_the_embedded_broker_serves_devices(make_brain: BrainMaker) -> None:
    port = free_port()
    brain = make_brain(port, MQTT_HOST="", LLM_MAX_TOKENS="16").start()
    settings = load_settings(env_file=None, environ={}, overrides={"MQTT_PORT": port})
    await asyncio.to_thread(brain.wait_for_log, "the brain is online")
    async with Device(settings, "r2") as device:
        assert device.connection.protocol == "3.1.1"
        await device.wait_for_brain("online")
        reply = await device.ask(ask_of("r2", "Hello!", stream=True), timeout_s=30)
        assert reply.text
        assert reply.source == "llm"
    said = await asyncio.to_thread(brain.command, "say", "Hello!")
    assert (said.returncode, said.stderr) == (0, "")
    assert await asyncio.to_thread(brain.stop) == 0
    assert "Traceback" not in brain.log()


async def test_where_a_broker_listens_already_no_second_one_is_begun(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port, MQTT_HOST="").start()
    async with Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        assert (await device.ask(ask_of("r2", CLOCK), timeout_s=15)).text
    assert "using what listens there" in brain.log()
