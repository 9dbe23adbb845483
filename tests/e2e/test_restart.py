"""What a restart keeps, and how the daemon goes."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from pathlib import Path

import pytest

from naila.mqtt.device import Device
from support.brain import BrainMaker
from support.ear import Ear
from support.mosquitto import Mosquitto
from support.robots import until
from support.said import CLOCK, ask_of, story

pytestmark = [pytest.mark.broker, pytest.mark.model]


async def test_a_restart_keeps_conversations_and_replies(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port).start()
    async with Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        told = ask_of("r2", "My name is Ada. I keep my wrench in the blue box.")
        first = await device.ask(told)
        assert await asyncio.to_thread(brain.stop) == 0
        assert "model file" not in brain.log().partition("phase: stopping")[2]  # nobody loads what was just unloaded
        await device.wait_for_brain("offline")
        brain.start()
        await device.wait_for_brain("online")
        second = await device.ask(ask_of("r2", "Why would I keep it there?"))
        again = await device.ask(told)
    assert again == first
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + first.usage.completion_tokens
    shown = json.loads(brain.command("memory", "show", "r2", "--json").stdout)
    assert [turn["reply_text"] for turn in shown["turns"]] == [first.text, second.text]
    assert [fact["fact"] for fact in shown["facts"]] == [{"key": "name", "value": "Ada"}]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_in_mid_answer_leaves_what_is_not_answered_to_the_next_process(
    broker: Mosquitto, make_brain: BrainMaker, number: signal.Signals
) -> None:
    """The limit for running answers has passed: nothing is said, nothing is remembered, and both are answered later."""
    brain = make_brain(broker.port, SHUTDOWN_TIMEOUT_S="0", LLM_MAX_TOKENS="1500").start()
    async with Ear(broker.settings(), "naila/#") as ear, Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        running, waiting = story("r2"), ask_of("r2", CLOCK)
        device.send(running)
        await ear.until_object("naila/devices/r2/reply/stream", lambda item: item["text"] != "")
        device.send(waiting)
        await asyncio.sleep(0.2)
        began = time.monotonic()
        brain.signal(number)
        assert await asyncio.to_thread(brain.wait) == 0
        assert time.monotonic() - began < 5
        await ear.until(lambda message: (message.topic, message.payload) == ("naila/ai/status", b"offline"), 5)
        assert (ear.objects("naila/devices/r2/reply"), ear.objects("naila/devices/r2/error")) == ([], [])
        states = [message.payload.decode() for message in ear.on("naila/ai/status")]
        assert states[-3:] == ["online", "stopping", "offline"]
        shown = json.loads(brain.command("inbox", "list", "--json").stdout)
        assert [line["id"] for line in shown] == [running.id, waiting.id]
        assert json.loads(brain.command("memory", "show", "r2", "--json").stdout)["turns"] == []
        brain.start(LLM_MAX_TOKENS="20")
        await ear.until_object("naila/devices/r2/reply", lambda reply: reply["id"] == waiting.id, 60)
    assert [reply["id"] for reply in ear.objects("naila/devices/r2/reply")] == [running.id, waiting.id]
    assert "cancelled" not in [reply["finish_reason"] for reply in ear.objects("naila/devices/r2/reply")]


async def test_a_running_answer_may_finish_within_the_limit(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port, SHUTDOWN_TIMEOUT_S="30", LLM_MAX_TOKENS="60").start()
    async with Ear(broker.settings(), "naila/devices/r2/#") as ear, Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        device.send(story("r2"))
        await ear.until_object("naila/devices/r2/reply/stream", lambda item: item["text"] != "")
        assert await asyncio.to_thread(brain.stop) == 0
        reply = await ear.until_object("naila/devices/r2/reply", lambda _: True, 5)
    assert reply["finish_reason"] in {"stop", "length"}


async def test_a_signal_while_the_model_loads_ends_the_daemon(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port).start()
    await asyncio.to_thread(brain.wait_for_log, "phase: models")
    assert await asyncio.to_thread(brain.stop) == 0
    assert "Traceback" not in brain.log()


async def test_a_killed_daemon_is_said_to_be_offline_by_its_will(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port).start()
    async with Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        request = ask_of("r2", "Hello!")
        first = await device.ask(request)
        await asyncio.to_thread(brain.kill)
        assert await device.wait_for_brain("offline", timeout_s=10) == "offline"
        brain.start()
        await device.wait_for_brain("online")
        assert await device.ask(request) == first


async def test_the_settings_are_read_again_on_sighup(broker: Mosquitto, make_brain: BrainMaker) -> None:
    brain = make_brain(broker.port)
    env_file = brain.folder / ".env"
    text = "x" * 2000
    brain.start()
    async with Ear(broker.settings(), "naila/#") as ear, Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        for wrong in ("MQTT_MAX_PAYLOAD_BYTES=lots", "PERSONA=pirate", "LLM_MODE=api"):
            env_file.write_text(f"{wrong}\n")
            brain.signal(signal.SIGHUP)
            name, _, value = wrong.partition("=")
            await asyncio.to_thread(brain.wait_for_log, f"{name}={value!r}")
            assert (await device.ask(ask_of("r2", CLOCK), timeout_s=15)).text
        assert b"stopping" not in [message.payload for message in ear.on("naila/ai/status")]

        env_file.write_text("MQTT_MAX_PAYLOAD_BYTES=1024\n")
        brain.signal(signal.SIGHUP)
        await asyncio.to_thread(brain.wait_for_log, "phase: running", times=2)
        device.send(ask_of("r2", text))
        error = await ear.until_object("naila/devices/r2/error", lambda _: True)
        assert (error["code"], "1024" in error["message"]) == ("too_large", True)
        assert (await device.ask(ask_of("r2", CLOCK), timeout_s=15)).text
        brain.signal(signal.SIGHUP)
        brain.signal(signal.SIGTERM)
        assert await asyncio.to_thread(brain.wait) == 0
        await device.wait_for_brain("offline")


async def test_the_service_manager_is_told_everything(
    broker: Mosquitto, make_brain: BrainMaker, tmp_path: Path
) -> None:
    path = tmp_path / "notify"
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)

        async def until_told(line: str) -> None:
            async with asyncio.timeout(30):
                while not any(line in message.split("\n") for message in told):
                    told.append((await asyncio.get_running_loop().sock_recv(manager, 4096)).decode())

        brain = make_brain(broker.port, NOTIFY_SOCKET=str(path), WATCHDOG_USEC="300000").start()
        await until_told("READY=1")
        assert any(message.startswith("EXTEND_TIMEOUT_USEC=") for message in told)
        await until_told("STATUS=online")
        await until_told("WATCHDOG=1")
        told.clear()
        brain.signal(signal.SIGHUP)
        await until_told("RELOADING=1")
        assert any("MONOTONIC_USEC=" in message for message in told)
        await until_told("READY=1")
        assert not any("STOPPING=1" in message for message in told)
        brain.signal(signal.SIGTERM)
        await until_told("STOPPING=1")
        assert await asyncio.to_thread(brain.wait) == 0


async def test_a_second_daemon_with_the_same_client_id_is_noticed(broker: Mosquitto, make_brain: BrainMaker) -> None:
    one, two = make_brain(broker.port).start(), make_brain(broker.port)
    async with Device(broker.settings(), "r2") as device:
        await device.wait_for_brain("online")
        two.start()
        await until(lambda: "does the brain run twice?" in one.log() + two.log(), timeout_s=30)
