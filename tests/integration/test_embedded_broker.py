"""The embedded broker among programs that are not ours: mosquitto_pub, mosquitto_sub, port probes."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from naila.config.settings import Settings, load_settings
from naila.events import Health, Intent
from naila.mqtt.broker import EmbeddedBroker
from naila.mqtt.device import Device
from support.mosquitto import free_port
from support.robots import EchoBrain, until

pytestmark = pytest.mark.broker


def settings_for(port: int) -> Settings:
    return load_settings(env_file=None, environ={}, overrides={"MQTT_HOST": "", "MQTT_PORT": port})


@asynccontextmanager
async def mosquitto_sub(port: int, topic: str) -> AsyncIterator[asyncio.StreamReader]:
    """Watch a topic; the first message that was retained there has been read."""
    watching = await asyncio.create_subprocess_exec(
        "mosquitto_sub", "-p", str(port), "-v", "-t", topic, stdout=asyncio.subprocess.PIPE
    )
    assert watching.stdout is not None
    try:
        assert await asyncio.wait_for(watching.stdout.readline(), 5)
        yield watching.stdout
    finally:
        watching.terminate()
        await watching.communicate()


async def mosquitto_pub(port: int, topic: str, message: str, *options: str) -> None:
    publishing = await asyncio.create_subprocess_exec(
        "mosquitto_pub", "-p", str(port), "-t", topic, "-m", message, *options
    )
    assert await asyncio.wait_for(publishing.wait(), 5) == 0


@pytest.mark.parametrize("watched", ["naila/#", "naila/ai/status"])
async def test_who_publishes_and_leaves_is_heard_while_others_watch(watched: str) -> None:
    port = free_port()
    brain = EchoBrain(settings_for(port), answers=False)
    async with EmbeddedBroker(port), brain.running() as link:
        link.publish(Health(status="online", version="1", uptime_s=1, phase="run", components={}))
        for number in range(20):  # more that a new client could be sent in vain
            await mosquitto_pub(port, f"naila/devices/s{number}/status", "online", "-r", "-q", "1")
        async with mosquitto_sub(port, watched):
            for number in range(20):
                await mosquitto_pub(port, "naila/devices/r2/intent", f"hello {number}")
            await until(lambda: len(brain.texts) == 20)
        assert brain.texts == [f"hello {number}" for number in range(20)]


async def test_who_subscribes_still_gets_what_was_retained() -> None:
    port = free_port()
    async with EmbeddedBroker(port):
        await mosquitto_pub(port, "lab/a", "1", "-r")
        await mosquitto_pub(port, "lab/b", "2", "-r")
        async with mosquitto_sub(port, "lab/a"), mosquitto_sub(port, "lab/+") as both:
            assert await asyncio.wait_for(both.readline(), 5) == b"lab/b 2\n"


async def test_who_comes_back_to_a_kept_session_still_gets_what_was_retained() -> None:
    port = free_port()
    async with EmbeddedBroker(port):
        await mosquitto_pub(port, "lab/a", "1", "-r")
        for _ in range(2):
            once = await asyncio.create_subprocess_exec(
                *("mosquitto_sub", "-p", str(port), "-t", "lab/a", "-c", "-i", "keeper", "-q", "1", "-C", "1"),
                stdout=asyncio.subprocess.PIPE,
            )
            told, _ = await asyncio.wait_for(once.communicate(), 5)
            assert told == b"1\n"


def probe(port: int, *, abort: bool) -> None:
    """Connect and close, as a look at the port does; `abort` closes with a reset."""
    with socket.create_connection(("127.0.0.1", port)) as looking:
        if abort:
            looking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("abort", [False, True])
async def test_a_look_at_the_port_is_no_error(abort: bool, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    settings = settings_for(port)
    with caplog.at_level(logging.WARNING):
        async with EmbeddedBroker(port), EchoBrain(settings).running():
            for _ in range(5):
                await asyncio.to_thread(probe, port, abort=abort)
            async with Device(settings, "r2") as device:
                reply = await device.ask(Intent(device_id="r2", id="a1", text="hello"), timeout_s=5)
        assert reply.text == "you said: hello"
    assert [record.getMessage() for record in caplog.records] == []
