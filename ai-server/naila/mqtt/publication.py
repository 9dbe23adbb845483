"""One MQTT message, and one subscription, as NAILA sees them, free of any library's types."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A message, received or to be sent.

    Attributes:
        topic: where.
        payload: the bytes.
        qos: 0 or 1 (a received message may have 2).
        retain: kept by the broker; on a received message: it was kept, or asked to be.
        response_topic: MQTT 5: where an answer is also wanted.
        correlation_data: MQTT 5: echoed with the answer.
        content_type: MQTT 5: what the payload is.
        message_expiry: MQTT 5: seconds after which the broker forgets the message.
        urgent: goes before all others, and is never given up for want of room; not on the wire.
        note: what it is to whoever sends it, who is told of its end by that; not on the wire.
    """

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = None
    message_expiry: int | None = None
    urgent: bool = field(default=False, compare=False)
    note: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What is to be heard, with QoS 1.

    Attributes:
        topic: a topic filter.
        retain_as_published: MQTT 5: a live message has the retain flag that it was published with. Without it, and
            with 3.1.1, only what the broker kept from before has the flag.
    """

    topic: str
    retain_as_published: bool = True
