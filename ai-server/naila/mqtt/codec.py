"""Messages to events and back: the one place where both meet.

The brain decodes what devices send and encodes what it says; the command line, tests and benchmarks are devices too
and go the other way. `inbound` and `outbound` hold the wire forms.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from naila.events import Inbound, Outbound
from naila.mqtt.inbound import InboundCodec
from naila.mqtt.outbound import OutboundCodec
from naila.mqtt.publication import Publication
from naila.mqtt.topics import Topics


def random_id() -> str:
    """Return an id that nobody else makes."""
    return secrets.token_urlsafe(12)


class Codec:
    """The contract's wire forms.

    Args:
        topics: the topics of this installation.
        max_payload_bytes: larger messages are refused.
        make_id: makes the id of an intent that came without one.

    Attributes:
        make_id: the same, for what else needs an id.
    """

    def __init__(self, topics: Topics, max_payload_bytes: int, make_id: Callable[[], str] = random_id) -> None:
        self.make_id = make_id
        self._inbound = InboundCodec(topics, max_payload_bytes, make_id)
        self._outbound = OutboundCodec(topics, max_payload_bytes)

    def decode(self, message: Publication) -> Inbound | None:
        """Return what a device said; None where it only cleared a retained wish, or measured it before our time.

        Raises:
            ContractError: what was wrong and where; nothing else, whatever the bytes.
        """
        return self._inbound.decode(message)

    def said(self, message: Publication) -> tuple[str, str] | None:
        """Return through which device what was said, where a message is a small, live intent; cheap for any other."""
        return self._inbound.said(message)

    def decode_outbound(self, message: Publication) -> Outbound:
        """Return what the brain said, for devices.

        Raises:
            ContractError: what was wrong and where; nothing else, whatever the bytes.
        """
        return self._outbound.decode(message)

    def encode(self, event: Inbound | Outbound) -> Publication:
        """Return the message for an event of either direction.

        Raises:
            ValueError: the event holds a number that is not finite.
        """
        if isinstance(event, Inbound):
            return self._inbound.encode(event)
        return self._outbound.encode(event)
