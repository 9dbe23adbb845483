"""NAILA's own broker configuration (config/mosquitto) on a real Mosquitto, and plain clients that try what they may."""

from __future__ import annotations

import queue
import signal
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from naila.mqtt.password_file import PasswordFile
from support.mosquitto import Mosquitto, free_port

CONFIG = Path(__file__).parents[2] / "config" / "mosquitto"
PATIENCE_S = 20.0
V311, V5 = MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5
VERSIONS = {"3.1.1": V311, "5": V5}
WITNESS = "witness"
# Beside the rules under test: somebody who sees and does everything, and a topic for everybody to wait on.
MORE_RULES = f"\nuser {WITNESS}\ntopic readwrite #\npattern readwrite fence/%u\n"


def certificates_for(folder: Path, *names: str, client: str | None = None) -> Path:
    """Call the script that users call; return where the certificates are."""
    arguments = [str(folder), *names] if client is None else ["--client", client, str(folder)]
    subprocess.run([CONFIG / "make-certificates", *arguments], check=True, capture_output=True)
    return folder


class GuardedMosquitto(Mosquitto):
    """A Mosquitto with `naila.conf` and `naila.acl` as they are shipped, but for ports, paths and who runs it.

    Args:
        folder: where its files go.
        users: passwords by user; `witness` may do everything.
        certificates: a folder with ca.crt, server.crt and server.key.
        certified: also listen on `certified_port`, where clients need a certificate.
        wrapped: the lines of a mosquitto.conf that includes naila.conf.
    """

    def __init__(
        self,
        folder: Path,
        users: dict[str, str],
        certificates: Path,
        *,
        certified: bool = False,
        wrapped: tuple[str, ...] = (),
    ) -> None:
        super().__init__(folder)
        self.tls_port = free_port()
        self.certified_port = free_port()
        self.passwords = PasswordFile(folder / "naila.passwords")
        self.certificates = certificates
        self._given = {**users, WITNESS: "sees all"}
        self._certified = certified
        self._wrapped = wrapped
        for user, password in self._given.items():
            self.passwords.add(user, password)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def reload(self) -> None:
        """Make it read its files again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def client(self, user: str | None, version: MQTTProtocolVersion = V5, **more: Any) -> Peer:
        """Return a client that is not connected yet, with the user's password, on this machine's listener."""
        return Peer(self.port, user, self._given.get(user or ""), version, **more)

    @contextmanager
    def peer(self, user: str, version: MQTTProtocolVersion = V5, **more: Any) -> Iterator[Peer]:
        """Yield a connected client."""
        with self.client(user, version, **more) as peer:
            assert peer.is_welcome()
            yield peer

    def _config(self) -> list[str]:
        rules = self._folder / "naila.acl"
        rules.write_text((CONFIG / "naila.acl").read_text() + MORE_RULES)
        text = (CONFIG / "naila.conf").read_text()
        if self._certified:
            head, own, rest = text.partition("#listener 8884")
            block, blank, tail = rest.partition("\n\n")
            text = head + (own + block).replace("#", "") + blank + tail
        for shipped, here in (
            ("listener 1883", f"listener {self.port}"),
            ("listener 8883", f"listener {self.tls_port} 127.0.0.1"),
            ("listener 8884", f"listener {self.certified_port} 127.0.0.1"),
            ("/etc/mosquitto/naila.passwords", str(self.passwords.path)),
            ("/etc/mosquitto/naila.acl", str(rules)),
            ("/etc/mosquitto/certs/naila-", f"{self.certificates}/"),
            ("/etc/mosquitto/ca_certificates/naila-ca.crt", f"{self.certificates}/ca.crt"),
        ):
            assert shipped in text, shipped
            text = text.replace(shipped, here)
        if self._wrapped:
            folder = self._folder / "conf.d"
            folder.mkdir(exist_ok=True)
            (folder / "naila.conf").write_text(text)
            return ["user root", *self._wrapped, f"include_dir {folder}"]
        return ["user root", f"persistence_location {self._folder}/", *text.splitlines()]


class Peer:
    """A client of the broker, connected while its `with` block lasts, that keeps no rule but the broker's.

    Args:
        port: where.
        user: user name; None says none.
        password: of the user.
        version: MQTT version.
        client_id: its client id.
        ca: trust this CA, and speak TLS.
        will: a topic for its last will, retained or not.
        clean: whether it starts with a clean session (MQTT 3.1.1).
    """

    def __init__(
        self,
        port: int,
        user: str | None,
        password: str | None,
        version: MQTTProtocolVersion = V5,
        *,
        client_id: str | None = None,
        ca: Path | None = None,
        will: tuple[str, bool] | None = None,
        clean: bool = True,
    ) -> None:
        self.user = user
        self.heard: list[MQTTMessage] = []
        self.answer: queue.Queue[bool] = queue.Queue()
        self.lost = threading.Event()
        self._fence = threading.Event()
        self._subscribed = threading.Event()
        self._port = port
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or uuid.uuid4().hex,
            clean_session=clean if version != V5 else None,
            protocol=version,
            reconnect_on_failure=False,
        )
        self._client.username_pw_set(user, password)
        if ca is not None:
            self._client.tls_set(ca_certs=str(ca), cert_reqs=ssl.CERT_REQUIRED)
        if will is not None:
            topic, retain = will
            self._client.will_set(topic, topic.encode(), qos=1, retain=retain)
        self._client.on_socket_open = lambda _c, _u, sock: _at_once(sock)
        self._client.on_connect = lambda _c, _u, _f, reason, _p: self.answer.put(not reason.is_failure)
        self._client.on_disconnect = lambda *_: self.lost.set()
        self._client.on_message = lambda _c, _u, message: self._hear(message)
        self._client.on_subscribe = lambda *_: self._subscribed.set()

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def is_welcome(self) -> bool:
        """Whether the broker accepted the connection; waits for its answer."""
        return self.answer.get(timeout=PATIENCE_S)

    def publish(self, topics: Sequence[str], *, retain: bool = False, payload: bytes | None = None) -> None:
        """Publish each topic's name, or something else, on it; return when the broker has answered to all."""
        sent = [
            self._client.publish(topic, topic.encode() if payload is None else payload, qos=1, retain=retain)
            for topic in topics
        ]
        for each in sent:
            each.wait_for_publish(PATIENCE_S)
            assert each.is_published()

    def push(self, topic: str, payload: bytes) -> None:
        """Publish, and do not wait."""
        self._client.publish(topic, payload, qos=1)

    def subscribe(self, *filters: str) -> None:
        """Subscribe, whether the broker grants it or not; return when it has answered."""
        self._subscribed.clear()
        self._client.subscribe([(one, 1) for one in (*filters, f"fence/{self.user}")])
        assert self._subscribed.wait(PATIENCE_S)

    def topics(self, by: Peer) -> set[str]:
        """Return on which topics it has heard something by now; `by` is the witness, who can reach everybody."""
        self._fence.clear()
        by.publish([f"fence/{self.user}"])
        assert self._fence.wait(PATIENCE_S)
        return {message.topic for message in self.heard}

    def fenced(self) -> bool:
        """Wait for anything on a topic that only serves waiting."""
        return self._fence.wait(PATIENCE_S)

    def drop(self) -> None:
        """Lose the connection without a word, so that the will is published."""
        connection = self._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)
        assert self.lost.wait(PATIENCE_S)

    def _hear(self, message: MQTTMessage) -> None:
        if message.topic.startswith("fence/"):
            self._fence.set()
        else:
            self.heard.append(message)


def _at_once(connection: object) -> None:
    """Let small packets not wait for each other's acknowledgement."""
    assert isinstance(connection, socket.socket)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
