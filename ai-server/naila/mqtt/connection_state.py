"""What a connection tells about itself and its messages."""

from __future__ import annotations

from dataclasses import dataclass

from naila.mqtt.broker_address import Version


@dataclass(frozen=True, slots=True)
class Receipt:
    """What it takes to acknowledge a message; worthless once its connection is gone, when the broker sends it again."""

    connection: int
    mid: int
    qos: int


@dataclass(slots=True)
class ConnectionState:
    """How a connection is doing.

    Attributes:
        connected: accepted by the broker, now.
        protocol: the MQTT version in use, once connected.
        error: why it is not connected, or what the broker refuses, with what to do.
        received: messages taken from the broker.
        published: messages acknowledged by the broker, or written where no acknowledgement comes.
        dropped: messages given up because too many waited.
        reconnects: connections after the first.
        last_progress: monotonic time at which the connection was last looked after.
    """

    connected: bool = False
    protocol: Version | None = None
    error: str | None = None
    received: int = 0
    published: int = 0
    dropped: int = 0
    reconnects: int = 0
    last_progress: float = 0.0
