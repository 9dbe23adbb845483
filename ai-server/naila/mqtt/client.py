"""The only home of paho-mqtt: one of its clients, driven by the asyncio loop.

paho's own threads are not used. Its socket is watched by the loop and its timers are called by `look_after`; only
`connect`, which blocks on name resolution, TCP and TLS, runs in a worker thread, and meanwhile the loop leaves paho
alone. What comes out is in NAILA's own types; when and how often to connect is `connection`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from naila.mqtt.broker_address import BrokerAddress, Version
from naila.mqtt.publication import Publication, Subscription

log = logging.getLogger(__name__)

RECEIVE_MAXIMUM = 256
CONNECT_TIMEOUT_S = 5.0
READ_SLICE_S = 0.002

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the broker did something: MQTT 5's reason codes, also for 3.1.1.

    Attributes:
        code: the number; 128 and above is a failure.
        text: its name.
    """

    code: int
    text: str

    @property
    def is_failure(self) -> bool:
        """Whether something was refused."""
        return self.code >= 128


class Listener(Protocol):
    """Who is told what happens on a connection, always in the loop's thread."""

    def on_message(self, message: Publication, mid: int) -> None:
        """A message came; `mid` acknowledges it. Must not raise."""
        ...

    def on_sent(self, mid: int, reason: Reason) -> None:
        """A message was acknowledged, or written where no acknowledgement comes."""
        ...

    def on_subscribed(self, mid: int, reasons: Sequence[Reason]) -> None:
        """The broker answered a subscription, filter by filter."""
        ...


class MqttClient:
    """A client of one protocol version. It may connect again and again, and resends what was not acknowledged.

    Args:
        address: where and as whom.
        version: of the protocol.
        listener: who is told.

    Attributes:
        accepted: of this connection: the broker's answer; None when it closed without one.
        lost: of this connection: why it ended.
        closed_by_broker: of this connection: it was lost because the broker closed it in good order; neither was it
            reset nor did it fall silent.
        receive_maximum: of this connection: unacknowledged messages that the broker takes.
        is_resumed: of this connection: whether the broker kept our session, and what came for it meanwhile.
    """

    def __init__(self, address: BrokerAddress, version: Version, listener: Listener) -> None:
        self.version: Version = version
        self.accepted: asyncio.Future[Reason | None]
        self.lost: asyncio.Future[Reason]
        self.closed_by_broker = False
        self._was_reset = False
        self.receive_maximum = 65_535
        self.is_resumed = False
        self._address = address
        self._listener = listener
        self._fd: int | None = None
        self._arrived = select.poll()
        self._paho = self._make_paho()

    async def connect(self) -> None:
        """Open the socket and send CONNECT; `accepted` tells the rest.

        Raises:
            OSError: no connection came about.
            UnicodeError: the host name cannot be one.
        """
        loop = asyncio.get_running_loop()
        self.accepted, self.lost = loop.create_future(), loop.create_future()
        self.closed_by_broker = self._was_reset = False
        connecting = loop.run_in_executor(None, self._connect)
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(self._abandon)
            raise
        self._attach()

    def close(self) -> None:
        """Leave nothing of a connection behind, whatever state it is in."""
        self._detach()
        if sock := self._paho.socket():
            sock.close()
            self._paho.loop_read()  # paho notices by reading that its socket is gone

    def disconnect(self) -> None:
        """Say goodbye, so that the broker does not publish the will; `lost` tells when that is done."""
        self._paho.disconnect()

    def look_after(self) -> None:
        """Let paho look at its clock: keepalive. To be called every second or so."""
        if self._fd is not None:
            self._paho.loop_misc()

    def publish(self, message: Publication) -> int | None:
        """Send a message; return its packet id, or None for one of QoS 0 that could not go."""
        properties = _to_properties(message) if self.version == "5" else None
        info = self._paho.publish(message.topic, message.payload, message.qos, message.retain, properties)
        return info.mid if message.qos or info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def subscribe(self, subscriptions: Sequence[Subscription]) -> int | None:
        """Subscribe with QoS 1; return the packet id, or None if the connection is gone."""
        _, mid = self._paho.subscribe([(wanted.topic, self._options(wanted)) for wanted in subscriptions])
        return mid

    def ack(self, mid: int, qos: int) -> None:
        """Acknowledge a message of this connection."""
        if qos:
            self._paho.ack(mid, qos)

    def _options(self, wanted: Subscription) -> Any:
        return SubscribeOptions(qos=1, retainAsPublished=wanted.retain_as_published) if self.version == "5" else 1

    def _make_paho(self) -> Client:
        address, five = self._address, self.version == "5"
        paho = Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            clean_session=None if five else address.session_expiry_s == 0,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        paho.connect_timeout = CONNECT_TIMEOUT_S
        paho.max_inflight_messages_set(0)  # `SendQueue` bounds what flies, also what is sent again
        if address.username is not None:
            paho.username_pw_set(address.username, address.password)
        if address.tls is not None:
            paho.tls_set_context(address.tls)
        if will := address.will:
            paho.will_set(will.topic, will.payload, will.qos, will.retain)
        paho.on_connect = self._on_connect
        paho.on_disconnect = self._on_disconnect
        paho.on_message = self._on_message
        paho.on_publish = self._on_publish
        paho.on_subscribe = self._on_subscribe
        paho.on_socket_close = self._on_socket_close
        paho.on_socket_register_write = self._on_register_write
        paho.on_socket_unregister_write = self._on_unregister_write
        return paho

    def _connect(self) -> None:
        """Run in a worker thread."""
        address = self._address
        where = (address.host, address.port, address.keepalive_s)
        if self.version == "3.1.1":
            self._paho.connect(*where)
            return
        properties = _properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = address.session_expiry_s
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        self._paho.connect(*where, clean_start=address.session_expiry_s == 0, properties=properties)

    def _abandon(self, connecting: asyncio.Future[None]) -> None:
        """Nobody waits for this attempt any more: take its outcome and close its socket."""
        if not connecting.cancelled():
            connecting.exception()
        self.close()

    def _attach(self) -> None:
        sock = self._paho.socket()
        if not isinstance(sock, socket.socket):
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fd = sock.fileno()
        self._arrived.register(self._fd, select.POLLIN)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._fd, self._readable)
        if self._paho.want_write():
            loop.add_writer(self._fd, self._paho.loop_write)

    def _readable(self) -> None:
        # Mosquitto leaves Nagle's algorithm on: while the kernel delays its ACK of a PUBACK (40 ms on Linux), the
        # next message is held back there. The option wears off, hence at each read.
        if _QUICKACK is not None and isinstance(sock := self._paho.socket(), socket.socket):
            sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        loop = asyncio.get_running_loop()
        until = loop.time() + READ_SLICE_S
        self._read()
        # Much at a time, so that a flood is read through to what stands behind it; then others have their turn.
        while self._fd is not None and (self._decrypted() or self._arrived.poll(0)):
            if loop.time() >= until:
                if self._decrypted():  # of which the selector knows nothing
                    loop.call_soon(self._readable)
                return
            self._read()

    def _read(self) -> None:
        # Looked at before: paho treats a reset like an end in good order. The look clears it, and what came before the
        # reset is read first.
        sock = self._paho.socket()
        if isinstance(sock, socket.socket) and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._was_reset = True
        self._paho.loop_read()
        self.closed_by_broker = self.lost.done() and not self._was_reset

    def _decrypted(self) -> bool:
        """Whether TLS holds bytes that were not read yet."""
        sock = self._paho.socket()
        return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0

    def _detach(self) -> None:
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        self._arrived.unregister(fd)
        loop = asyncio.get_running_loop()
        loop.remove_reader(fd)
        loop.remove_writer(fd)

    def _on_connect(
        self, _client: Client, _data: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self.is_resumed = bool(flags.session_present)
        self.receive_maximum = getattr(properties, "ReceiveMaximum", 65_535)
        if not self.accepted.done():
            self.accepted.set_result(_reason(reason))

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if not self.accepted.done():
            self.accepted.set_result(None)
        if not self.lost.done():
            self.lost.set_result(_reason(reason))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            publication = _to_publication(message)
        except UnicodeDecodeError:
            log.warning("a message on a topic that is not UTF-8 was dropped")
            self.ack(message.mid, message.qos)
            return
        self._listener.on_message(publication, message.mid)

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._listener.on_sent(mid, _reason(reason))

    def _on_subscribe(
        self, _client: Client, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._listener.on_subscribed(mid, [_reason(reason) for reason in reasons])

    def _on_socket_close(self, _client: Client, _data: Any, _sock: Any) -> None:
        self._detach()

    def _on_register_write(self, _client: Client, _data: Any, _sock: Any) -> None:
        # Also called in the connecting thread: `_fd` is None then, and `_attach` catches up.
        if self._fd is not None:
            asyncio.get_running_loop().add_writer(self._fd, self._paho.loop_write)

    def _on_unregister_write(self, _client: Client, _data: Any, _sock: Any) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().remove_writer(self._fd)


def _reason(reason: ReasonCode) -> Reason:
    return Reason(reason.value, str(reason))


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]


def _to_publication(message: MQTTMessage) -> Publication:
    properties = message.properties
    return Publication(
        topic=message.topic,
        payload=bytes(message.payload),
        qos=message.qos,
        retain=bool(message.retain),
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation_data=getattr(properties, "CorrelationData", None),
        content_type=getattr(properties, "ContentType", None),
        message_expiry=getattr(properties, "MessageExpiryInterval", None),
    )


def _to_properties(message: Publication) -> Properties:
    properties = _properties(PacketTypes.PUBLISH)
    if message.response_topic is not None:
        properties.ResponseTopic = message.response_topic
    if message.correlation_data is not None:
        properties.CorrelationData = message.correlation_data
    if message.content_type is not None:
        properties.ContentType = message.content_type
    if message.message_expiry is not None:
        properties.MessageExpiryInterval = message.message_expiry
    return properties
