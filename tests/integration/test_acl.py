"""Who may write and read what: config/mosquitto/naila.acl on a real Mosquitto, against a table."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from naila.devices.capabilities import read_profile
from naila.events import JsonValue
from naila.mqtt.discovery import Discovery
from naila.mqtt.topics import BRAIN_LEAVES, DEVICE_LEAVES, DiscoveryTopics, Topics
from support.guarded import VERSIONS, WITNESS, GuardedMosquitto, Peer, certificates_for

pytestmark = pytest.mark.broker

# The device itself, another device, the brain, a person's panel, Home Assistant.
WHO = ("rover", "lamp", "naila", "operator", "home_assistant")

# topic: who may write it | who may read it. Nobody else may, and nobody may do anything on a topic of no line.
TABLE = """
naila/devices/rover/intent                  rover home_assistant          | naila operator
naila/devices/rover/cancel                  rover                         | naila operator
naila/devices/rover/status                  rover                         | naila operator home_assistant
naila/devices/rover/capabilities            rover                         | naila operator home_assistant
naila/devices/rover/telemetry               rover                         | naila operator home_assistant
naila/devices/rover/action/result           rover                         | naila operator
naila/devices/rover/stop                    rover operator home_assistant | naila operator
naila/devices/rover/confirm                 rover                         | naila operator
naila/devices/rover/action                  naila                         | rover operator
naila/devices/rover/action/pending          naila                         | rover operator
naila/devices/rover/reply                   naila                         | rover operator home_assistant
naila/devices/rover/reply/stream            naila                         | rover operator
naila/devices/rover/error                   naila                         | rover operator home_assistant
naila/devices/rover/response                naila                         | rover operator
naila/devices/rover/response/a/b            naila                         | rover operator
naila/devices/rover                                                       | operator
naila/devices/rover/action/x                                              | operator
naila/devices/rover/stop/x                                                | operator
naila/devices/rover/other                                                 | operator
naila/devices/rover/                                                      | operator
naila/devices//action                       naila                         | operator
naila/devices/cli/intent                    naila home_assistant          | naila operator
naila/devices/cli/cancel                    naila                         | naila operator
naila/devices/cli/confirm                   naila                         | naila operator
naila/devices/cli/action                    naila                         | naila operator
naila/devices/cli/reply                     naila                         | naila operator home_assistant
naila/devices/cli/status                                                  | naila operator home_assistant
naila/devices/home_assistant/intent         home_assistant                | naila operator
naila/devices/home_assistant/action         naila                         | home_assistant operator
naila/devices/home_assistant/action/pending naila                         | home_assistant operator
naila/devices/home_assistant/reply          naila                         | home_assistant operator
naila/devices/operator/intent               operator home_assistant       | naila operator
naila/devices/operator/action               naila                         | operator
naila/devices/naila/intent                  naila home_assistant          | naila operator
naila/fleet/stop                            operator home_assistant       | naila operator
naila/fleet/other                                                         | operator
naila/ai/status                             naila                         | rover lamp naila operator home_assistant
naila/ai/health                             naila                         | naila operator home_assistant
naila/ai/metrics                            naila                         | naila operator home_assistant
naila/ai/alerts                             naila                         | naila operator home_assistant
naila                                                                     | operator
homeassistant/status                        home_assistant                | naila home_assistant
homeassistant/device/x/config               naila home_assistant          | naila home_assistant
homeassistant/sensor/x/config               home_assistant                | home_assistant
zigbee2mqtt/plug/set                                                      |
devices/rover/action                                                      |
"""


def rows() -> Iterator[tuple[str, tuple[set[str], set[str]]]]:
    for line in TABLE.strip().splitlines():
        left, right = line.split("|")
        topic, *writers = left.split()
        yield topic, (set(writers), set(right.split()))


ROWS = dict(rows())
TOPICS = tuple(ROWS)


def writable(who: str) -> set[str]:
    return {topic for topic, (writers, _) in ROWS.items() if who in writers}


def readable(who: str) -> set[str]:
    return {topic for topic, (_, readers) in ROWS.items() if who in readers}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedMosquitto]:
    folder = tmp_path_factory.mktemp("guarded")
    passwords = {who: f"{who}'s own" for who in (*WHO, "+", "rover/x", "r")}
    broker = GuardedMosquitto(folder, passwords, certificates_for(folder / "certificates", "127.0.0.1"))
    with broker:
        yield broker


@pytest.fixture
def witness(broker: GuardedMosquitto) -> Iterator[Peer]:
    """Somebody who hears all, on a broker that retains nothing."""
    with broker.peer(WITNESS) as peer:
        yield peer
        peer.publish(TOPICS, retain=True, payload=b"")


def retained(broker: GuardedMosquitto, witness: Peer) -> set[str]:
    with broker.peer(WITNESS) as fresh:
        fresh.subscribe("#")
        fresh.topics(by=witness)
        return {message.topic for message in fresh.heard if message.retain}


def test_the_table_has_every_topic_of_the_contract() -> None:
    topics = Topics("naila")
    own = {topics.device("rover", leaf) for leaf in DEVICE_LEAVES + BRAIN_LEAVES}
    about = {topics.brain_status, topics.health, topics.metrics, topics.alerts, topics.fleet_stop}
    assert own | about <= set(TOPICS)


def test_every_subscription_of_the_brain_and_of_a_device_is_readable() -> None:
    topics = Topics("naila")
    brain = {one.topic.replace("+", "rover") for one in (*topics.intake(), *topics.stops())}
    assert brain <= readable("naila")
    places = DiscoveryTopics("homeassistant", "naila")
    assert {places.birth, places.configs.replace("+", "x")} <= readable("naila")
    assert set(topics.for_device("rover")) <= readable("rover")


def test_home_assistant_may_use_every_topic_that_the_brain_shows_it() -> None:
    topics, places = Topics("naila"), DiscoveryTopics("homeassistant", "naila")
    discovery = Discovery(topics, places)
    example = json.loads((Path(__file__).parents[2] / "examples" / "rover.json").read_text())
    device = discovery.device(read_profile("rover", example), online=True, readings={})
    used = set(topics_in(device)) | set(topics_in(discovery.brain()))
    written = {topic for kind, topic in used if kind == "command_topic"}
    read = {topic for kind, topic in used if kind != "command_topic"}
    assert written <= writable("home_assistant")
    assert read <= readable("home_assistant")
    assert topics.device("rover", "intent") in written
    assert topics.device("rover", "telemetry") in read


def topics_in(document: JsonValue) -> Iterator[tuple[str, str]]:
    if isinstance(document, dict):
        for key, value in document.items():
            if isinstance(value, str) and (key == "topic" or key.endswith("_topic")):
                yield key, value
            yield from topics_in(value)
    elif isinstance(document, list):
        for each in document:
            yield from topics_in(each)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("retain", [False, True], ids=["live", "retained"])
def test_writing(broker: GuardedMosquitto, witness: Peer, who: str, version: str, *, retain: bool) -> None:
    witness.subscribe("#")
    with broker.peer(who, VERSIONS[version]) as peer:
        peer.publish(TOPICS, retain=retain)
        assert witness.topics(by=witness) == writable(who)
    assert retained(broker, witness) == (writable(who) if retain else set())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("retain", [False, True], ids=["live", "retained"])
def test_wills(broker: GuardedMosquitto, witness: Peer, who: str, version: str, *, retain: bool) -> None:
    witness.subscribe("#")
    for topic in TOPICS:
        with broker.client(who, VERSIONS[version], will=(topic, retain)) as peer:
            if peer.is_welcome():
                peer.drop()
    # A will is published when the broker notices the loss; it has noticed all when it publishes one that came later.
    with broker.client(who, VERSIONS[version], will=(f"fence/{who}", False)) as peer:
        assert peer.is_welcome()
        peer.drop()
    assert witness.fenced()
    assert witness.topics(by=witness) == writable(who)
    assert retained(broker, witness) == (writable(who) if retain else set())


WAYS = {
    "each topic": TOPICS,
    "everything": ("#",),
    "levels": (
        "+",
        "+/#",
        "naila/+/+/+",
        "+/+/+/+",
        "naila/devices/+/#",
        "+/+/+/+/+",
        "+/+",
        "+/+/+",
        "naila/+/+/+/+/+",
    ),
    "shared": ("$share/x/#", "$share/y/naila/devices/#", "$share/z/naila/devices/+/action"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("way", WAYS)
def test_reading(broker: GuardedMosquitto, witness: Peer, who: str, version: str, way: str) -> None:
    with broker.peer(who, VERSIONS[version]) as peer:
        peer.subscribe(*WAYS[way])
        witness.publish(TOPICS)
        assert peer.topics(by=witness) == readable(who)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("way", ["each topic", "everything", "levels"])
def test_reading_what_was_retained(broker: GuardedMosquitto, witness: Peer, who: str, version: str, way: str) -> None:
    witness.publish(TOPICS, retain=True)
    with broker.peer(who, VERSIONS[version]) as peer:
        peer.subscribe(*WAYS[way])
        assert peer.topics(by=witness) == readable(who)


@pytest.mark.parametrize(
    "trick", ["naila/devices/+/action", "$share/x/naila/devices/#", "$share/x/naila/devices/+/action"]
)
def test_a_trick_does_not_show_a_device_the_action_of_another(
    broker: GuardedMosquitto, witness: Peer, trick: str
) -> None:
    with broker.peer("lamp") as lamp, broker.peer("rover") as rover:
        lamp.subscribe(trick)
        rover.subscribe("naila/devices/rover/action")
        witness.publish(["naila/devices/rover/action"] * 4)
        assert lamp.topics(by=witness) == set()
        assert rover.topics(by=witness) == {"naila/devices/rover/action"}
        assert len(rover.heard) == 4


@pytest.mark.parametrize("who", ["+", "rover/x", "r"])
def test_a_user_name_made_of_wildcards_or_of_another_opens_nothing(
    broker: GuardedMosquitto, witness: Peer, who: str
) -> None:
    witness.subscribe("#")
    with broker.peer(who) as peer:
        peer.publish(TOPICS)
        assert witness.topics(by=witness) == set()
        peer.subscribe("#")
        witness.publish([topic for topic in TOPICS if topic != "naila/ai/status"])
        peer.subscribe("#")  # its answer comes after all that came before
        assert peer.heard == []


def test_a_client_id_made_of_another_opens_nothing(broker: GuardedMosquitto, witness: Peer) -> None:
    witness.subscribe("#")
    with broker.peer("lamp", client_id="rover") as peer:
        peer.publish(TOPICS)
        assert witness.topics(by=witness) == writable("lamp")


def test_a_message_that_waited_for_one_user_is_not_given_to_another(broker: GuardedMosquitto, witness: Peer) -> None:
    with broker.peer("rover", VERSIONS["3.1.1"], client_id="shared id", clean=False) as rover:
        rover.subscribe("naila/devices/rover/action")
        rover.drop()
    witness.publish(["naila/devices/rover/action"])
    with broker.peer("lamp", VERSIONS["3.1.1"], client_id="shared id", clean=False) as thief:
        thief.subscribe("naila/devices/lamp/action")
        assert thief.topics(by=witness) == set()
        witness.publish(["naila/devices/rover/action"])
        assert thief.topics(by=witness) == set()


def test_only_the_panel_sees_what_the_broker_says_of_itself(broker: GuardedMosquitto, witness: Peer) -> None:
    for who in WHO:
        with broker.peer(who) as peer:
            peer.subscribe("$SYS/broker/version")
            assert peer.topics(by=witness) == ({"$SYS/broker/version"} if who == "operator" else set())


def connect(version: str, user: str | None, password: str | None, will: str) -> bytes:
    """Return a CONNECT packet, with a will."""
    level, properties = (5, b"\0") if version == "5" else (4, b"")
    flags = 0b0000_0110 | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    fields = [text(f"raw {version}"), properties, text(will), text(will)]
    fields += [text(each) for each in (user, password) if each is not None]
    body = text("MQTT") + struct.pack("!BBH", level, flags, 60) + properties + b"".join(fields)
    return packet(0x10, body)


def text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def packet(kind: int, body: bytes) -> bytes:
    assert len(body) < 16_384
    low, high = len(body) % 128, len(body) // 128
    return bytes([kind, low | 0x80, high]) + body if high else bytes([kind, low]) + body


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("user", "password"),
    [
        (None, None),
        ("", ""),
        ("rover", None),
        ("rover", ""),
        ("rover", "wrong"),
        ("rover", "lamp's own"),
        ("ROVER", "rover's own"),
        ("rover ", "rover's own"),
        ("naila", "wrong"),
        ("nobody", "rover's own"),
    ],
    ids=str,
)
def test_who_does_not_say_the_right_password_does_nothing(
    broker: GuardedMosquitto, witness: Peer, version: str, user: str | None, password: str | None
) -> None:
    """Not even with a client that goes on as if it had been accepted, all in one piece."""
    witness.subscribe("#")
    witness.publish(TOPICS, retain=True)
    assert witness.topics(by=witness) == set(TOPICS)
    witness.heard.clear()
    properties = b"\0" if version == "5" else b""
    data = connect(version, user, password, "naila/devices/rover/status")
    data += b"".join(packet(0x30, text(topic) + properties + b"x") for topic in TOPICS)
    data += packet(0x82, b"\0\1" + properties + text("#") + b"\1")
    with socket.create_connection(("127.0.0.1", broker.port), 10) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while more := connection.recv(65_536):
                answer += more
        except ConnectionResetError:
            pass
    assert witness.topics(by=witness) == set()
    assert len(answer) <= 16
    if answer:  # a CONNACK that says no, then nothing
        assert answer[0] == 0x20
        assert answer[3] != 0
        assert not any(topic.encode() in answer for topic in TOPICS)


def test_the_raw_client_is_one_that_could_have_been_accepted(broker: GuardedMosquitto, witness: Peer) -> None:
    witness.subscribe("#")
    for version in VERSIONS:
        with socket.create_connection(("127.0.0.1", broker.port), 10) as connection:
            connection.sendall(connect(version, "rover", "rover's own", "naila/devices/rover/status"))
            assert connection.recv(4)[3] == 0


def test_the_rules_hold_for_another_root(tmp_path: Path) -> None:
    """Every rule names the root, so that replacing it is all that another MQTT_TOPIC_ROOT needs."""
    rules = (Path(__file__).parents[2] / "config" / "mosquitto" / "naila.acl").read_text().splitlines()
    topics = [line.split()[-1] for line in rules if line.startswith(("topic", "pattern"))]
    assert all(topic.startswith(("naila/", "homeassistant/", "$SYS/")) for topic in topics)
