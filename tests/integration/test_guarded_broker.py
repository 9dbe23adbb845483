"""config/mosquitto as users install it: TLS, client ids, limits, passwords that come and go, and the brain on it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from naila.cli import main
from naila.config.settings import Settings
from naila.errors import BrokerError
from naila.events import Action, BrainStatus, DeviceStatus, EmergencyStop, Intent
from naila.mqtt.device import Device
from naila.mqtt.publication import Publication
from support.guarded import CONFIG, V5, VERSIONS, WITNESS, GuardedMosquitto, Peer, certificates_for
from support.robots import EchoBrain, until

pytestmark = pytest.mark.broker

USERS = {who: f"{who}'s own" for who in ("rover", "lamp", "naila", "operator")}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = certificates_for(tmp_path_factory.mktemp("certificates"), "localhost", "127.0.0.1", "::1")
    return certificates_for(folder, client="naila")


@pytest.fixture
def broker(tmp_path: Path, certificates: Path) -> Iterator[GuardedMosquitto]:
    broker = GuardedMosquitto(tmp_path, USERS, certificates)
    with broker:
        yield broker


def local(broker: GuardedMosquitto, user: str, **more: object) -> Settings:
    return broker.settings(MQTT_USERNAME=user, MQTT_PASSWORD=USERS[user], **more)


def far(broker: GuardedMosquitto, user: str, **more: object) -> Settings:
    ca = str(broker.certificates / "ca.crt")
    return local(broker, user, **{"MQTT_PORT": broker.tls_port, "MQTT_TLS_CA": ca, **more})


def tls_peer(broker: GuardedMosquitto, user: str, version: MQTTProtocolVersion = V5, **more: str) -> Peer:
    return Peer(broker.tls_port, user, USERS[user], version, ca=broker.certificates / "ca.crt", **more)  # type: ignore[arg-type]


class StoppingBrain(EchoBrain):
    """An echo that sends `stop` as the dispatcher would."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, on_stop=self._halt)

    def _halt(self, stop: EmergencyStop, request_id: str) -> None:
        self.link.publish(
            Action(
                device_id=stop.device_id or "rover",
                id="x1",
                request_id=request_id,
                name="stop",
                arguments={},
                expires_at="2030-01-01T00:00:00Z",
                seq=1,
                ttl_ms=10_000,
            )
        )


@asynccontextmanager
async def at_work(settings: Settings, broker: GuardedMosquitto) -> AsyncIterator[None]:
    """Let a brain and a rover go through all that they say to each other, and look for refusals."""
    brain = StoppingBrain(settings)
    async with brain.running() as link:
        await asyncio.wait_for(link.hearing(), 10)
        async with Device(far(broker, "rover"), "rover", presence=True, capabilities={"name": "Rover"}) as rover:
            await rover.wait_for_brain("online")
            reply = await rover.ask(Intent(device_id="rover", id="a1", text="hello"), timeout_s=10)
            assert reply.text == "you said: hello"
            rover.send(EmergencyStop(device_id="rover"))
            async with asyncio.timeout(10):
                while not isinstance(await rover.hear(), Action):
                    pass
            await until(lambda: any(isinstance(event, DeviceStatus) for event in brain.accepted))
            yield
            assert rover.connection.error is None
        assert link.status.error is None


async def test_the_brain_and_a_device_do_their_work(broker: GuardedMosquitto) -> None:
    async with at_work(local(broker, "naila"), broker):
        pass


async def test_the_brain_on_another_machine_has_a_listener_of_its_own(tmp_path: Path, certificates: Path) -> None:
    files = {"MQTT_TLS_CERT": str(certificates / "naila.crt"), "MQTT_TLS_KEY": str(certificates / "naila.key")}
    with GuardedMosquitto(tmp_path, USERS, certificates, certified=True) as broker:
        async with at_work(far(broker, "naila", MQTT_PORT=broker.certified_port, **files), broker):
            pass
        device = Device(far(broker, "rover", MQTT_PORT=broker.certified_port), "rover", connect_timeout_s=1)
        with pytest.raises(BrokerError):
            async with device:
                pass


async def test_a_person_at_the_brains_machine_may_talk_to_it(broker: GuardedMosquitto) -> None:
    settings = local(broker, "naila")
    async with EchoBrain(settings).running(), Device(settings, "cli") as person:
        await person.wait_for_brain("online")
        assert (await person.ask(Intent(device_id="cli", id="a1", text="hello"), timeout_s=10)).source == "pattern"
        assert person.connection.error is None


@pytest.mark.parametrize("version", VERSIONS.values())
def test_a_device_does_not_throw_out_another_by_its_client_id(
    broker: GuardedMosquitto, version: MQTTProtocolVersion
) -> None:
    with tls_peer(broker, "rover", version, client_id="rover") as rover:
        assert rover.is_welcome()
        with tls_peer(broker, "lamp", version, client_id="rover") as lamp:
            assert lamp.is_welcome()
            with broker.peer(WITNESS) as witness:
                rover.subscribe("naila/devices/rover/action")
                lamp.subscribe("naila/devices/rover/action")
                witness.publish(["naila/devices/rover/action"])
                assert rover.topics(by=witness) == {"naila/devices/rover/action"}
                assert lamp.topics(by=witness) == set()
        assert not rover.lost.is_set()


async def test_a_device_does_not_throw_out_the_brain_by_its_client_id(broker: GuardedMosquitto) -> None:
    settings = local(broker, "naila", MQTT_CLIENT_ID="brain")
    async with EchoBrain(settings).running() as link:
        for client_id in ("brain", "brain-stop", "brain-home-assistant"):
            with tls_peer(broker, "lamp", client_id=client_id) as lamp:
                assert await asyncio.to_thread(lamp.is_welcome)
        await asyncio.sleep(0.1)
        assert link.status.connected
        assert link.status.reconnects == 0


async def test_a_device_that_trusts_another_ca_does_not_give_its_password_away(
    broker: GuardedMosquitto, tmp_path: Path
) -> None:
    other = certificates_for(tmp_path / "other", "127.0.0.1")
    device = Device(far(broker, "rover", MQTT_TLS_CA=str(other / "ca.crt")), "rover", connect_timeout_s=1)
    with pytest.raises(BrokerError, match="is not trusted"):
        async with device:
            pass
    assert "u'rover'" not in broker.log()


async def test_the_certificate_is_only_for_its_names(tmp_path: Path) -> None:
    with GuardedMosquitto(tmp_path, USERS, certificates_for(tmp_path / "certificates", "brain.local")) as broker:
        device = Device(far(broker, "rover"), "rover", connect_timeout_s=1)
        with pytest.raises(BrokerError, match="is not trusted"):
            async with device:
                pass


async def test_nothing_but_tls_is_spoken_to_the_network(broker: GuardedMosquitto) -> None:
    device = Device(local(broker, "rover", MQTT_PORT=broker.tls_port), "rover", connect_timeout_s=1)
    with pytest.raises(BrokerError):
        async with device:
            pass
    shipped = [line for line in (CONFIG / "naila.conf").read_text().splitlines() if line.startswith("listener")]
    assert shipped == ["listener 1883 127.0.0.1", "listener 8883"]


def test_a_call_of_the_script_again_renews_the_certificate_under_the_same_ca(tmp_path: Path) -> None:
    folder = certificates_for(tmp_path / "certificates", "a.local")
    before = {name: (folder / name).read_bytes() for name in ("ca.crt", "ca.key", "server.crt", "server.key")}
    certificates_for(folder, "a.local", "10.0.0.1")
    after = {name: (folder / name).read_bytes() for name in before}
    assert [name for name in before if before[name] == after[name]] == ["ca.crt", "ca.key"]
    check = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "10.0.0.1"]
    subprocess.run([*check, "-CAfile", folder / "ca.crt", folder / "server.crt"], check=True, capture_output=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(before)
    assert {name: oct((folder / name).stat().st_mode & 0o777) for name in before} == {
        "ca.crt": "0o644",
        "ca.key": "0o600",
        "server.crt": "0o644",
        "server.key": "0o600",
    }


@pytest.mark.parametrize(
    "arguments",
    [[], ["certificates"], ["certificates", "a b"], ["certificates", "a,DNS:b"], ["--client", "ca", "certificates"]],
)
def test_the_script_refuses_what_it_cannot_use(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run([CONFIG / "make-certificates", *arguments], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"make-certificates: ")
    assert list(tmp_path.iterdir()) == []


def test_the_script_does_not_make_a_second_ca_where_half_of_one_is(tmp_path: Path) -> None:
    folder = certificates_for(tmp_path / "certificates", "a.local")
    (folder / "ca.key").unlink()
    command = [str(CONFIG / "make-certificates"), str(folder), "a.local"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert b"has only one of ca.crt and ca.key" in done.stderr
    assert done.returncode == 2


def test_a_device_that_is_added_may_speak_after_a_reload(
    broker: GuardedMosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(broker.passwords.path)
    assert main(["devices", "add", "arm", "--for", "shell", "--password-file", path]) == 0
    password = capsys.readouterr().out.splitlines()[0].removeprefix("DEVICE_PASSWORD=")
    with Peer(broker.port, "arm", password) as early:
        assert not early.is_welcome()
    broker.reload()
    with Peer(broker.port, "arm", password) as arm:
        assert arm.is_welcome()
        assert main(["devices", "add", "arm", "--replace", "--password-file", path]) == 0
        broker.reload()
        assert arm.lost.wait(10)  # its password is the old one
    with Peer(broker.port, "arm", password) as late:
        assert not late.is_welcome()


def test_a_device_whose_password_is_taken_away_is_thrown_out(broker: GuardedMosquitto) -> None:
    with broker.peer("lamp") as lamp, broker.peer("rover") as rover:
        assert main(["devices", "remove-credentials", "lamp", "--password-file", str(broker.passwords.path)]) == 0
        broker.reload()
        assert lamp.lost.wait(10)
        assert not rover.lost.is_set()
    with broker.client("lamp") as late:
        assert not late.is_welcome()


@pytest.mark.parametrize("version", VERSIONS.values())
def test_what_is_a_little_too_large_reaches_the_brain_and_what_is_huge_does_not(
    broker: GuardedMosquitto, version: MQTTProtocolVersion
) -> None:
    topic = "naila/devices/rover/intent"
    with broker.peer(WITNESS) as witness, broker.peer("rover", version) as rover:
        witness.subscribe(topic)
        rover.publish([topic], payload=b"x" * 70_000)
        assert witness.topics(by=witness) == {topic}
        rover.push(topic, b"x" * 2_000_000)
        assert rover.lost.wait(10)
        assert witness.topics(by=witness) == {topic}
        assert len(witness.heard) == 1


def test_what_is_retained_outlives_a_restart(broker: GuardedMosquitto) -> None:
    topic = "naila/devices/rover/capabilities"
    with broker.peer("rover") as rover:
        rover.publish([topic], retain=True)
    broker.restart()
    with broker.peer(WITNESS) as witness:
        witness.subscribe(topic)
        assert witness.topics(by=witness) == {topic}


def test_it_is_an_addition_to_the_configuration_that_debian_ships(tmp_path: Path, certificates: Path) -> None:
    debian = (
        f"pid_file {tmp_path}/mosquitto.pid",
        "persistence true",
        f"persistence_location {tmp_path}/",
        f"log_dest file {tmp_path}/mosquitto.log",
    )
    with GuardedMosquitto(tmp_path, USERS, certificates, wrapped=debian) as broker, broker.peer("rover"):
        pass


async def test_a_refused_message_is_told_to_who_speaks_mqtt_5(broker: GuardedMosquitto) -> None:
    async with Device(far(broker, "rover"), "rover") as rover:
        rover.send_raw(Publication(topic="naila/devices/lamp/intent", payload=b"jump", qos=1))
        await until(lambda: rover.connection.error is not None)
        assert "allow it in the broker's access rules" in (rover.connection.error or "")


async def test_nobody_but_the_brain_can_say_how_the_brain_is(broker: GuardedMosquitto) -> None:
    async with EchoBrain(local(broker, "naila")).running():
        with broker.peer("operator") as person, broker.peer("rover") as rover:
            topics = ("naila/ai/status",)
            await asyncio.to_thread(rover.publish, topics, retain=True, payload=b"offline")
            await asyncio.to_thread(person.publish, topics, retain=True, payload=b"offline")
            await asyncio.to_thread(person.subscribe, *topics)
            await until(lambda: bool(person.heard))
            assert [message.payload for message in person.heard] == [BrainStatus(status="online").status.encode()]
