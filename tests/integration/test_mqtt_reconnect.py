"""Brokers that die, freeze, refuse, encrypt, or speak only MQTT 3.1.1."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from naila.config.settings import Settings, load_settings
from naila.errors import BrokerError, ConfigurationError
from naila.events import BrainStatus, Intent
from naila.mqtt.broker import EmbeddedBroker
from naila.mqtt.broker_address import BrokerAddress
from naila.mqtt.client import MqttClient, Reason
from naila.mqtt.device import Device
from naila.mqtt.publication import Publication
from support.mosquitto import Mosquitto, free_port, make_certificates
from support.proxy import ABORT, Proxy
from support.robots import EchoBrain, until

broker_needed = pytest.mark.broker


def say(text: str, id: str = "a1") -> Intent:  # noqa: A002 - the contract's word
    return Intent(device_id="r1", id=id, text=text)


def settings_for(port: int, **overrides: object) -> Settings:
    values = {"MQTT_HOST": "127.0.0.1", "MQTT_PORT": port, "MQTT_KEEPALIVE_S": 1, **overrides}
    return load_settings(env_file=None, environ={}, overrides=values)


@broker_needed
async def test_a_killed_broker_comes_back_and_everything_with_it(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with brain.running() as link, Device(mosquitto.settings(), "r1", session_expiry_s=60) as device:
        await device.ask(say("before"), timeout_s=5)
        mosquitto.kill()
        await until(lambda: not link.status.connected and not device.connection.connected)
        assert "127.0.0.1" in (link.status.error or "")
        mosquitto.start()
        loop = asyncio.get_running_loop()
        back = loop.time()
        await until(lambda: link.status.connected)
        assert loop.time() - back < 2.5  # the policy's second, and a slow machine
        assert (await device.ask(say("after", "a2"), timeout_s=5, repeat_s=0.3)).text == "you said: after"
        await device.wait_for_brain("online", timeout_s=5)
        await until(lambda: link.status.error is None)
        assert link.status.reconnects == 1


@broker_needed
async def test_the_loss_and_the_return_of_each_connection_are_told(mosquitto: Mosquitto) -> None:
    """Health follows at once: also when the connection for stops comes back later than the other."""
    brain = EchoBrain(mosquitto.settings())
    async with brain.running() as link:
        mosquitto.kill()
        await until(lambda: not link.status.connected)
        mosquitto.start()
        await until(lambda: link.status.connected and link.status.error is None)
        assert not all(connected for connected, _ in brain.told)
        assert brain.told[-1] == (True, None)


class Inattentive:
    """Listens to a client's connection without interest."""

    def on_message(self, message: Publication, mid: int) -> None:
        pass

    def on_sent(self, mid: int, reason: Reason) -> None:
        pass

    def on_subscribed(self, mid: int, reasons: Sequence[Reason]) -> None:
        pass


@pytest.mark.parametrize(("abort", "closed"), [(True, False), (False, True)])
async def test_a_reset_is_told_from_an_end_in_good_order_also_behind_messages(*, abort: bool, closed: bool) -> None:
    """Four ends in good order look like a rival, who is given way to for seconds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = BrokerAddress.from_settings(settings_for(server.getsockname()[1]))
        client = MqttClient(address, "3.1.1", Inattentive())
        await client.connect()
        broker, _ = server.accept()
        assert await asyncio.to_thread(broker.recv, 1000)
        broker.sendall(b"\x20\x02\x00\x00" + b"\x30\x04\x00\x01ax" * 5)
        if abort:
            broker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        broker.close()
        await asyncio.wait_for(client.lost, 5)
        assert client.closed_by_broker is closed
        client.close()


@broker_needed
async def test_what_both_sides_said_during_an_outage_arrives(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, persistent=True).start()
    brain = EchoBrain(broker.settings())
    async with brain.running() as link, Device(broker.settings(), "r1", session_expiry_s=60) as device:
        await device.ask(say("before"), timeout_s=5)
        broker.stop()
        await until(lambda: not link.status.connected and not device.connection.connected)
        for number in range(30):
            device.send(say(str(number), f"b{number}"))
        broker.start()
        await until(lambda: len(brain.accepted) >= 31)
        assert list(dict.fromkeys(brain.texts)) == ["before", *map(str, range(30))]
        heard: set[str] = set()
        while len(heard) < 30:
            event = await asyncio.wait_for(device.hear(), 5)
            heard.add(getattr(event, "id", ""))
            heard.discard("")
    broker.stop()


@broker_needed
async def test_a_frozen_broker_is_noticed_within_twice_the_keepalive(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings(MQTT_KEEPALIVE_S=1))
    async with brain.running() as link:
        loop = asyncio.get_running_loop()
        frozen = loop.time()
        mosquitto.freeze()
        progress = link.status.last_progress
        await until(lambda: not link.status.connected)
        assert loop.time() - frozen < 3.5
        assert link.status.last_progress > progress
        mosquitto.thaw()
        await until(lambda: link.status.connected)


@broker_needed
async def test_connections_that_are_reset_are_not_taken_for_a_rival(mosquitto: Mosquitto) -> None:
    """However many in a row: each time the brain is back within the policy's second."""
    async with Proxy(mosquitto.port) as proxy:
        brain = EchoBrain(settings_for(proxy.port, MQTT_KEEPALIVE_S=10))
        async with brain.running() as link:
            for number in range(1, 7):
                proxy.reset()
                await until(lambda number=number: link.status.reconnects == number, 2.5)  # type: ignore[misc]
                assert "twice" not in (link.status.error or "")


@broker_needed
async def test_a_refused_password_is_said_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broker = Mosquitto(tmp_path, users={"brain": "right-secret"}).start()
    brain = EchoBrain(broker.settings(MQTT_USERNAME="brain", MQTT_PASSWORD="wrong-secret"))  # noqa: S106
    with caplog.at_level(logging.DEBUG):
        async with brain.running(wait=False) as link:
            await until(lambda: link.status.error is not None)
            assert "MQTT_USERNAME and MQTT_PASSWORD" in (link.status.error or "")
            await until(lambda: broker.log().count("not authorised") >= 2)
    assert "secret" not in caplog.text
    good = EchoBrain(broker.settings(MQTT_USERNAME="brain", MQTT_PASSWORD="right-secret"))  # noqa: S106
    async with good.running() as link:
        assert link.status.protocol == "5"
    broker.stop()


@broker_needed
async def test_tls_with_a_ca_of_ones_own(tmp_path: Path) -> None:
    ca, certificate, key = make_certificates(tmp_path)
    broker = Mosquitto(tmp_path, tls=(ca, certificate, key)).start()
    settings = broker.settings(MQTT_TLS_CA=str(ca))
    async with EchoBrain(settings).running(), Device(settings, "r1") as device:
        text = "long " * 10_000
        assert (await device.ask(say(text), timeout_s=5)).text == f"you said: {text}"
        for number in range(20):
            device.send(say("burst", f"b{number}"))
        assert (await device.ask(say("end", "a2"), timeout_s=5)).text == "you said: end"
    broker.stop()


@broker_needed
async def test_a_certificate_of_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other_ca, _, _ = make_certificates(tmp_path / "other")
    broker = Mosquitto(tmp_path, tls=make_certificates(tmp_path)).start()
    async with EchoBrain(broker.settings(MQTT_TLS_CA=str(other_ca))).running(wait=False) as link:
        await until(lambda: link.status.error is not None)
        assert "is not trusted" in (link.status.error or "")
    broker.stop()


def test_tls_files_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"MQTT_TLS_CA=.*/none\.pem: cannot be used"):
        BrokerAddress.from_settings(settings_for(1, MQTT_TLS_CA=str(tmp_path / "none.pem")))
    ca, _, _ = make_certificates(tmp_path)
    files = {"MQTT_TLS_CA": str(ca), "MQTT_TLS_CERT": str(tmp_path / "a"), "MQTT_TLS_KEY": str(tmp_path / "b")}
    with pytest.raises(ConfigurationError, match="MQTT_TLS_CERT="):
        BrokerAddress.from_settings(settings_for(1, **files))


def test_the_password_is_never_shown() -> None:
    address = BrokerAddress.from_settings(settings_for(1, MQTT_USERNAME="u", MQTT_PASSWORD="sesame"))  # noqa: S106
    assert "sesame" not in repr(address)
    assert "sesame" not in str(address)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionRefusedError(), "nothing listens at robot.local:1883"),
        (socket.gaierror(-2, "unknown"), "'robot.local' cannot be resolved: correct MQTT_HOST"),
        (TimeoutError(), "does not answer"),
        (OSError(101, "Network is unreachable"), "Network is unreachable"),
    ],
)
def test_what_is_wrong_is_said_with_the_fix(error: Exception, says: str) -> None:
    assert says in BrokerAddress(host="robot.local", port=1883, client_id="x").explain(error)


async def test_the_embedded_broker_serves_brain_and_device() -> None:
    port = free_port()
    settings = settings_for(port, MQTT_HOST="")
    async with EmbeddedBroker(port), EchoBrain(settings).running() as link, Device(settings, "r1") as device:
        assert link.status.protocol == "3.1.1"
        await device.wait_for_brain("online", timeout_s=5)
        assert (await device.ask(say("hello"), timeout_s=5)).text == "you said: hello"


async def test_a_broker_that_does_not_take_mqtt_5_is_spoken_to_in_3_1_1() -> None:
    port = free_port()
    async with EmbeddedBroker(port), Device(settings_for(port), "r1") as device:
        assert device.connection.protocol == "3.1.1"


async def test_a_taken_port_is_said_with_the_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"127\.0\.0\.1:{port}.*set MQTT_PORT"):
            async with EmbeddedBroker(port):
                pass


@broker_needed
async def test_3_1_1_can_be_asked_for(mosquitto: Mosquitto) -> None:
    settings = mosquitto.settings(MQTT_PROTOCOL="3.1.1")
    async with EchoBrain(settings).running() as link, Device(settings, "r1") as device:
        assert link.status.protocol == "3.1.1"
        assert (await device.ask(say("hello"), timeout_s=5)).text == "you said: hello"


CONNACK_3_UNSUPPORTED = b"\x20\x02\x00\x01"
CONNACK_3_ACCEPTED = b"\x20\x02\x00\x00"
CONNACK_5_ACCEPTED = b"\x20\x03\x00\x00\x00"
DISCONNECT_5_TAKEN_OVER = b"\xe0\x02\x8e\x00"
CONNACK_5_UNSUPPORTED = b"\x20\x03\x00\x84\x00"


@asynccontextmanager
async def old_broker(refusal: bytes) -> AsyncIterator[tuple[int, list[int]]]:
    """A listener that refuses MQTT 5 in these words, takes 3.1.1, and records what the link asked it for."""
    versions: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packet = await reader.read(4096)
        version = packet[packet.index(b"MQTT") + 4]
        if b"-stop" not in packet:
            versions.append(version)
        writer.write(refusal if version == 5 else CONNACK_3_ACCEPTED)
        if version != 5:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], versions
        server.close()


@pytest.mark.parametrize("refusal", [b"", CONNACK_3_UNSUPPORTED, CONNACK_5_UNSUPPORTED])
async def test_every_way_to_refuse_mqtt_5_leads_to_3_1_1(refusal: bytes) -> None:
    async with old_broker(refusal) as (port, versions):
        brain = EchoBrain(settings_for(port))
        running = asyncio.create_task(brain.link.run())
        await until(lambda: brain.link.status.connected)
        assert versions == [5, 4]
        assert brain.link.status.protocol == "3.1.1"
        running.cancel()
        await asyncio.wait({running})


async def test_a_takeover_that_the_broker_announces_is_said_at_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(CONNACK_5_ACCEPTED + DISCONNECT_5_TAKEN_OVER)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        brain = EchoBrain(settings_for(server.sockets[0].getsockname()[1], MQTT_CLIENT_ID="twin"))
        running = asyncio.create_task(brain.link.run())
        rival = "another client with the client id 'twin': does the brain run twice?"
        await until(lambda: rival in (brain.link.status.error or ""))
        running.cancel()
        await asyncio.wait({running})
        server.close()


async def test_a_refused_subscription_is_said() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(CONNACK_5_ACCEPTED)
        packet = await reader.read(4096)
        at = 3 if packet[1] & 0x80 else 2  # the packet's length takes one byte, or two
        writer.write(b"\x90\x06" + packet[at : at + 2] + b"\x00\x01\x87\x01")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        brain = EchoBrain(settings_for(server.sockets[0].getsockname()[1]))
        running = asyncio.create_task(brain.link.run())
        await until(lambda: "refused the subscription to naila/devices/+/cancel" in (brain.link.status.error or ""))
        assert brain.link.status.connected
        running.cancel()
        await asyncio.wait({running})
        server.close()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@broker_needed
async def test_nothing_is_left_behind(mosquitto: Mosquitto) -> None:
    async with EchoBrain(mosquitto.settings()).running():
        pass  # what is opened once, such as the loop's executor
    before_fds, before_tasks = _open_files(), asyncio.all_tasks()
    for _ in range(5):
        async with EchoBrain(mosquitto.settings()).running(), Device(mosquitto.settings(), "r1") as device:
            await device.ask(say("hello"), timeout_s=5)
    assert _open_files() == before_fds
    assert asyncio.all_tasks() == before_tasks


async def test_stop_and_cancel_while_there_is_no_broker() -> None:
    brain = EchoBrain(settings_for(free_port()))
    async with brain.running(wait=False) as link:
        await until(lambda: link.status.error is not None)
    again = EchoBrain(settings_for(free_port()))
    running = asyncio.create_task(again.link.run())
    await until(lambda: again.link.status.error is not None)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


async def test_a_listener_that_never_answers_does_not_hold_up_the_stop() -> None:
    rng = random.Random(1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        brain = EchoBrain(settings_for(deaf.getsockname()[1]))
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(brain.link.run())
            began = brain.link.status.last_progress
            await until(lambda: brain.link.status.last_progress > began + rng.uniform(0.5, 1))
            stopped = loop.time()
            await brain.link.stop(BrainStatus(status="offline"))
        assert loop.time() - stopped < 1
