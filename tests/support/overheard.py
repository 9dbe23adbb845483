"""What a brain acknowledged, as it went over the wire: the only witness that does not believe the brain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

CONNECT, PUBLISH, PUBACK = 1, 3, 4
Key = tuple[str, str]


class Overheard:
    """Listens to one MQTT 5 connection of a brain; `proxy.Proxy(listen=…)` makes one for each.

    Args:
        acknowledged: told the device and the id of each intent that the brain acknowledged.
        connected: told the client id when it says CONNECT.
    """

    def __init__(self, acknowledged: Callable[[Key], None], connected: Callable[[str], None] = lambda _: None) -> None:
        self._acknowledged = acknowledged
        self._connected = connected
        self._upward = bytearray()
        self._downward = bytearray()
        self._unacknowledged: dict[int, Key] = {}

    def up(self, data: bytes) -> None:
        """Take bytes from the brain."""
        self._upward += data
        for kind, _, body in _packets(self._upward):
            if kind == CONNECT:
                self._connected(_connecting(body))
            if kind == PUBACK and (key := self._unacknowledged.pop(int.from_bytes(body[:2]), None)):
                self._acknowledged(key)

    def down(self, data: bytes) -> None:
        """Take bytes from the broker."""
        self._downward += data
        for kind, flags, body in _packets(self._downward):
            if kind == PUBLISH and flags & 0b0110:
                packet, key = _published(body)
                if key is not None:
                    self._unacknowledged[packet] = key


def _packets(buffer: bytearray) -> Iterator[tuple[int, int, bytes]]:
    """Take whole packets out of a buffer: kind, flags and what follows the fixed header."""
    while len(buffer) >= 2:
        length, at = _number(buffer, 1)
        if length is None or len(buffer) < at + length:
            return
        first, body = buffer[0], bytes(buffer[at : at + length])
        del buffer[: at + length]
        yield first >> 4, first & 0xF, body


def _number(data: bytes | bytearray, at: int) -> tuple[int | None, int]:
    """Read a variable byte integer; return it, or None where it is not all there, and where it ends."""
    value = 0
    for place in range(4):
        if at + place >= len(data):
            return None, at
        value |= (data[at + place] & 0x7F) << (7 * place)
        if not data[at + place] & 0x80:
            return value, at + place + 1
    raise ValueError("no MQTT")


def _connecting(body: bytes) -> str:
    at = 10  # protocol name, version, flags, keepalive
    properties, at = _number(body, at)
    return _text(body, at + (properties or 0))


def _published(body: bytes) -> tuple[int, Key | None]:
    topic = _text(body, 0)
    at = 2 + len(topic.encode())
    packet = int.from_bytes(body[at : at + 2])
    properties, at = _number(body, at + 2)
    levels = topic.split("/")
    if levels[-1] != "intent":
        return packet, None
    try:
        request = json.loads(body[at + (properties or 0) :])["id"]
    except (ValueError, TypeError, KeyError):
        return packet, None
    return packet, (levels[-2], str(request))


def _text(data: bytes, at: int) -> str:
    return data[at + 2 : at + 2 + int.from_bytes(data[at : at + 2])].decode()
