"""The harness itself: a witness that sees nothing would find every run good."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path

import pytest

from naila.events import Intent
from naila.mqtt.device import Device
from support.overheard import Overheard
from support.proxy import Proxy
from support.robots import EchoBrain, until
from support.scene import Scene
from support.tally import Tally


def test_the_books_tell_what_went_wrong(tmp_path: Path) -> None:
    tally = Tally("made-up")
    for number in range(5):
        tally.sent(("r2", f"q{number}"))
    tally.sent(("r2", "q0"))
    tally.accepted(("r2", "q3"))
    tally.replied(("r2", "q0"), b"one")
    tally.replied(("r2", "q0"), b"one")
    tally.replied(("r2", "q1"), b"one")
    tally.replied(("r2", "q1"), b"another")
    tally.refused(("r2", "q2"), "expired")
    tally.refused(None, "busy")
    tally.acted(("r2", "q0"), "beep")
    tally.acted(("r2", "q0"), "beep")
    tally.acted(("r2", "q0"), "turn")
    tally.redelivered()
    tally.fault("lightning")
    tally.over()
    tally.replied(("r2", "q1"), b"another")
    counts = tally.report(tmp_path)
    assert (counts.requests, counts.sent, counts.accepted) == (5, 6, 1)
    assert (counts.answered_once, counts.answered_twice, counts.replies_again) == (1, 1, 2)
    assert (counts.refused_told, counts.refused_for_good) == (2, 1)
    assert (counts.lost, counts.accepted_lost) == (2, 1)
    assert (counts.actions, counts.actions_twice, counts.actions_again) == (3, 1, 1)
    assert counts.recovery_p95_s is not None
    assert json.loads((tmp_path / "made-up.json").read_text())["faults"] == {"lightning": 1}
    assert "lightning" in (tmp_path / "made-up.svg").read_text()
    assert len((tmp_path / "made-up.trouble.txt").read_text().splitlines()) == 4


@pytest.mark.broker
async def test_the_witness_hears_an_acknowledgement_and_nothing_before_it(scene: Scene) -> None:
    heard: list[tuple[str, str]] = []
    clients: list[str] = []
    async with Proxy(scene.broker.port, listen=lambda: Overheard(heard.append, clients.append)) as proxy:
        brain = EchoBrain(scene.broker.settings(MQTT_PORT=proxy.port, MQTT_CLIENT_ID="echo"))
        brain.gate.clear()
        async with brain.running(), Device(scene.broker.settings(), "r2") as device:
            await device.wait_for_brain("online")
            device.send(Intent(device_id="r2", id="q1", text="x" * 200))
            await until(lambda: brain.link.status.received == 1)
            assert heard == []
            brain.gate.set()
            await until(lambda: bool(heard))
    assert heard == [("r2", "q1")]
    assert sorted(clients) == ["echo", "echo-stop"]


async def test_the_proxy_does_what_networks_do() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy:
        opened = [await asyncio.open_connection("127.0.0.1", proxy.port)]
        reader, writer = opened[0]

        async def round_trip_s() -> float:
            began = time.monotonic()
            writer.write(b"hello")
            await asyncio.wait_for(reader.readexactly(5), 0.5)
            return time.monotonic() - began

        assert await round_trip_s() < 0.2
        proxy.delay_s = 0.1
        assert await round_trip_s() >= 0.2
        proxy.delay_s = 0
        proxy.bytes_per_s = 50
        assert await round_trip_s() >= 0.2
        proxy.bytes_per_s = 0
        proxy.stall()
        with pytest.raises(TimeoutError):
            await round_trip_s()
        proxy.resume()
        await asyncio.wait_for(reader.readexactly(5), 1)
        proxy.half_open()
        with pytest.raises(TimeoutError):
            await round_trip_s()
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        opened.append(await asyncio.open_connection("127.0.0.1", proxy.port))
        reader, writer = opened[-1]
        assert await round_trip_s() < 0.2
        proxy.cut()
        assert await reader.read(1) == b""
        proxy.refuse()
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.accept()
        opened.append(await asyncio.open_connection("127.0.0.1", proxy.port))
        for _, each in opened:
            each.close()
