"""One MQTT message as NAILA sees it, free of any library's types."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = None
    message_expiry: int | None = None
