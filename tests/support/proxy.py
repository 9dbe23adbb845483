"""A TCP proxy that does to connections what networks do: delays, stalls, trickles, cuts, resets, and falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

CHUNK = 65_536
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST


class Listener(Protocol):
    """Sees what flows through a connection."""

    def up(self, data: bytes) -> None:
        """Take bytes from the client."""
        ...

    def down(self, data: bytes) -> None:
        """Take bytes from the server."""
        ...


class Proxy:
    """Listens on a port of its own and passes on to another one, while its `async with` block lasts.

    Args:
        target: the port of the server on the loopback interface.
        listen: makes who sees what flows through a new connection.

    Attributes:
        port: where it listens.
        delay_s: how much later each piece arrives.
        bytes_per_s: how fast it passes on; 0: as fast as it can.
        opened_at: monotonic times at which clients connected.
    """

    def __init__(self, target: int, *, listen: Callable[[], Listener] | None = None) -> None:
        self.port = 0
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self.opened_at: list[float] = []
        self._target = target
        self._listen = listen
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._pipes: dict[asyncio.Task[None], _Pipe] = {}

    async def __aenter__(self) -> Self:
        self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.refuse()
        self.reset()
        ending = {*self._pipes, *([self._accepting] if self._accepting else [])}
        if ending:
            await asyncio.wait(ending)

    def accept(self) -> None:
        """Listen; again on the same port after `refuse`."""
        if self._server is not None:
            return
        self._server = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._server.setblocking(False)
        self.port = self._server.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(self._server), name="proxy")

    def refuse(self) -> None:
        """Listen no more, from the loop's next round on: connections are refused. Those that stand go on."""
        if self._server is not None and self._accepting is not None:
            self._accepting.cancel()
            self._server = None

    def stall(self) -> None:
        """Pass nothing on, but lose nothing."""
        self._flowing.clear()

    def resume(self) -> None:
        """Undo `stall`."""
        self._flowing.set()

    def cut(self) -> None:
        """Close every connection in good order, in mid-message."""
        for pipe in self._pipes.values():
            pipe.end(abort=False)

    def reset(self) -> None:
        """Reset every connection: RST on both sides."""
        for pipe in self._pipes.values():
            pipe.end(abort=True)

    def half_open(self) -> None:
        """Lose, in silence, all that comes on the connections that stand, and keep them open. New ones work."""
        for pipe in self._pipes.values():
            pipe.silent = True

    async def _accept(self, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with server:  # closed when the loop no longer watches it
            while True:
                client, _ = await loop.sock_accept(server)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.opened_at.append(time.monotonic())
                pipe = _Pipe(client, self._listen() if self._listen else None)
                task = asyncio.create_task(self._serve(pipe), name="proxied connection")
                self._pipes[task] = pipe
                task.add_done_callback(self._pipes.pop)

    async def _serve(self, pipe: _Pipe) -> None:
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_connect(pipe.server, ("127.0.0.1", self._target))
            up, down = (pipe.listener.up, pipe.listener.down) if pipe.listener else (None, None)
            flows = [
                asyncio.create_task(self._flow(pipe, pipe.client, pipe.server, up)),
                asyncio.create_task(self._flow(pipe, pipe.server, pipe.client, down)),
            ]
            ended = asyncio.create_task(pipe.ended.wait())
            try:
                await asyncio.wait({*flows, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (*flows, ended):
                    task.cancel()
                await asyncio.gather(*flows, ended, return_exceptions=True)
        pipe.close()

    async def _flow(
        self, pipe: _Pipe, source: socket.socket, sink: socket.socket, see: Callable[[bytes], None] | None
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data = await loop.sock_recv(
                source, min(CHUNK, max(1, self.bytes_per_s // 20)) if self.bytes_per_s else CHUNK
            )
            if not data:
                if pipe.silent:
                    await pipe.ended.wait()
                return
            await self._flowing.wait()
            if self.delay_s or self.bytes_per_s:
                await asyncio.sleep(self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0))
            if pipe.silent:
                continue
            if see is not None:
                see(data)
            await loop.sock_sendall(sink, data)


class _Pipe:
    """One client's connection and the one that was opened for it."""

    def __init__(self, client: socket.socket, listener: Listener | None) -> None:
        self.client = client
        self.server = socket.socket()
        self.server.setblocking(False)
        self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.listener = listener
        self.silent = False
        self.ended = asyncio.Event()

    def end(self, *, abort: bool) -> None:
        """Ask for its end."""
        if abort and not self.ended.is_set():
            for side in (self.client, self.server):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        self.ended.set()

    def close(self) -> None:
        """Close both sides."""
        self.client.close()
        self.server.close()
