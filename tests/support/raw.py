"""An MQTT 3.1.1 client that publishes whatever bytes it is told to, and lives with the consequences."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from types import TracebackType
from typing import Self

PATIENCE_S = 20.0


class RawClient:
    """Publishes with QoS 0 or 1; connects again where the broker throws it out.

    Args:
        port: the broker's, on the loopback interface.
    """

    def __init__(self, port: int) -> None:
        self.thrown_out = 0
        self._port = port
        self._packet = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def publish(self, topic: bytes, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Publish, valid or not; where that costs the connection, open another one."""
        self._packet = self._packet % 65_535 + 1
        packet = self._packet.to_bytes(2) if qos else b""
        body = len(topic).to_bytes(2) + topic + packet + payload
        await self.send(bytes([0x30 | qos << 1 | retain]) + _length(len(body)) + body)

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        try:
            assert self._writer is not None
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            await self._come_back()

    async def settle(self) -> None:
        """Return when the broker has dealt with everything that was sent."""
        await self.send(b"\xc0\x00")
        try:
            async with asyncio.timeout(PATIENCE_S):
                while await self._kind() != 0xD0:
                    pass
        except (OSError, asyncio.IncompleteReadError):
            await self._come_back()

    async def _kind(self) -> int:
        """Read a packet, and return its first byte."""
        assert self._reader is not None
        kind, length = await self._reader.readexactly(2)
        await self._reader.readexactly(length)  # PUBACK and PINGRESP are short
        return kind

    async def _come_back(self) -> None:
        self.thrown_out += 1
        await self._close()
        await self._connect()

    async def _connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        name = f"raw-{secrets.token_hex(4)}".encode()
        body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2) + name
        self._writer.write(b"\x10" + _length(len(body)) + body)
        await self._reader.readexactly(4)

    async def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()


def _length(value: int) -> bytes:
    out = bytearray()
    while True:
        value, seven = value >> 7, value & 0x7F
        out.append(seven | (0x80 if value else 0))
        if not value:
            return bytes(out)
