"""The embedded broker for the first run: amqtt, on the loopback interface only.

It speaks MQTT 3.1.1, lets everybody on this machine in and forgets everything when it ends. A fleet needs a real one.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from types import TracebackType
from typing import Any, Self

from naila.errors import BrokerError, ConfigurationError

HOST = "127.0.0.1"


class EmbeddedBroker:
    """A broker in this process, for as long as its `async with` block lasts.

    Args:
        port: where it listens.

    Raises:
        ConfigurationError: amqtt is not installed.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._make = _broker_class()
        self._broker: Any = None

    async def __aenter__(self) -> Self:
        self._check_port()
        broker = self._make(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await broker.start()
        self._broker = broker
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._broker.shutdown()

    def _check_port(self) -> None:
        """Say plainly that the port is taken, where amqtt would log a stack trace."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self.port))
            except OSError as exc:
                raise BrokerError(
                    f"the embedded broker cannot listen on {HOST}:{self.port} ({exc.strerror}). If a broker runs there "
                    f"already, set MQTT_HOST={HOST} to use it; else set MQTT_PORT to a free port"
                ) from exc


def _broker_class() -> Any:
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        from amqtt.broker import Broker  # noqa: PLC0415 - optional, and slow to import
    except ImportError as exc:
        raise ConfigurationError(
            "MQTT_HOST is empty, which asks for the embedded broker, but amqtt is not installed: "
            "pip install 'naila[broker]', or set MQTT_HOST to your broker"
        ) from exc

    class MendedBroker(Broker):  # type: ignore[misc] # amqtt is optional: without it there are no types
        """amqtt, less what goes wrong in it for clients that do not stay."""

        async def _client_connected(self, listener_name: str, reader: Any, writer: Any) -> None:
            """Take a client that says something; who connects only to look is no error, and nobody stays half open."""
            try:
                first: bytes = await reader.read(1)
            except (EOFError, OSError):
                first = b""
            if first:
                await super()._client_connected(listener_name, _Unread(first, reader), writer)
            with contextlib.suppress(OSError):
                await writer.close()

        async def _publish_retained_messages_for_subscription(
            self, subscription: tuple[str, int], session: Any
        ) -> None:
            """Send what was retained to who subscribed to it.

            amqtt calls this with everybody's subscriptions for each client that connects. What a client did not ask for
            is wrong in itself, and where it has left already, writing to it loses what it sent and was not read yet.
            """
            holders = self._subscriptions.get(subscription[0], ())
            if any(holder.client_id == session.client_id for holder, _ in holders):
                await super()._publish_retained_messages_for_subscription(subscription, session)

    return MendedBroker


class _Unread:
    """A reader, as amqtt uses one, that gives back first what was already read from it."""

    def __init__(self, first: bytes, reader: Any) -> None:
        self._first = first
        self._reader = reader

    async def read(self, n: int = -1) -> bytes:
        if not self._first or n == 0:
            return await self._next(n)
        taken, self._first = self._first, b""
        return taken if n == len(taken) else taken + await self._next(n if n < 0 else n - len(taken))

    def feed_eof(self) -> None:
        self._reader.feed_eof()

    async def _next(self, n: int) -> bytes:
        read: bytes = await self._reader.read(n)
        return read
