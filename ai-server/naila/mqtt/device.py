"""A device's side of the contract, for the command line, tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Final, Self, TypeAlias

from naila.config.settings import Settings
from naila.errors import BrokerError, ContractError
from naila.events import (
    ActionPending,
    BrainState,
    BrainStatus,
    Capabilities,
    DeviceStatus,
    ErrorNotice,
    Inbound,
    Intent,
    JsonValue,
    Outbound,
    Reply,
    StreamItem,
)
from naila.fleet import ID_RULE, is_id
from naila.mqtt.broker_address import BrokerAddress
from naila.mqtt.codec import Codec
from naila.mqtt.connection import Connection
from naila.mqtt.connection_state import ConnectionState, Receipt
from naila.mqtt.publication import Publication
from naila.mqtt.topics import Topics

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
MAX_HEARD = 10_000
# A refused action is told twice: as an error for programs, and in the reply that follows.
TOLD_IN_THE_REPLY: Final = frozenset(
    {
        "unknown_action",
        "bad_arguments",
        "out_of_range",
        "rate_limited",
        "not_confirmed",
        "device_offline",
        "action_failed",
    }
)

_Answer: TypeAlias = Reply | StreamItem | ErrorNotice | ActionPending


class Device:
    """One device, connected while its `async with` block lasts.

    Args:
        settings: which broker, and how.
        device_id: who it is.
        capabilities: what it declares on every connection; None declares nothing.
        presence: say `online` on every connection and `offline` at the end, also by the last will.
        client_id: names the connection at the broker; made up where not given.
        session_expiry_s: how long the broker keeps its session; 0 starts afresh each time.
        connect_timeout_s: how long entering the block may take.
        rng: source of the jitter between attempts to connect.

    Raises:
        ConfigurationError: the TLS files cannot be used.
        ContractError: the device id is none.
    """

    def __init__(
        self,
        settings: Settings,
        device_id: str,
        *,
        capabilities: Mapping[str, JsonValue] | None = None,
        presence: bool = False,
        client_id: str | None = None,
        session_expiry_s: int = 0,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        rng: random.Random | None = None,
    ) -> None:
        if not is_id(device_id):
            raise ContractError("bad_topic", f"{device_id!r} is no device id: {ID_RULE}")
        self.device_id = device_id
        self.brain_status: BrainState | None = None
        self._timeout_s = connect_timeout_s
        self._topics = Topics(settings.mqtt_topic_root)
        self._codec = Codec(self._topics, settings.mqtt_max_payload_bytes)
        self._birth: list[Inbound] = []
        self._farewell: list[Inbound] = []
        if presence:
            self._birth.append(DeviceStatus(device_id=device_id, status="online"))
            self._farewell.append(DeviceStatus(device_id=device_id, status="offline"))
        if capabilities is not None:
            self._birth.append(Capabilities(device_id=device_id, document=capabilities))
        self._answers: dict[str, asyncio.Queue[_Answer]] = {}
        self._heard: asyncio.Queue[Outbound] = asyncio.Queue(MAX_HEARD)
        self._brain_changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._connection = Connection(
            BrokerAddress.from_settings(
                settings,
                client_id=client_id or f"naila-device-{device_id[:32]}-{secrets.token_hex(4)}",
                session_expiry_s=session_expiry_s,
                will=next((self._codec.encode(event) for event in self._farewell), None),
            ),
            on_message=self._on_message,
            subscriptions=self._topics.for_device(device_id),
            birth=lambda: [self._codec.encode(event) for event in self._birth],
            rng=rng,
        )

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._connection.run(), name=f"device {self.device_id}")
        try:
            await asyncio.wait_for(self._connection.ready(), self._timeout_s)
        except TimeoutError:
            await self._end()
            why = self._connection.state.error or "the broker does not answer"
            raise BrokerError(why) from None
        except asyncio.CancelledError:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connection.stop([self._codec.encode(event) for event in self._farewell])
        await self._end()

    @property
    def connection(self) -> ConnectionState:
        """How the connection is doing; to be read only."""
        return self._connection.state

    def send(self, event: Inbound) -> None:
        """Send an event, now or when the broker is back."""
        self._connection.publish(self._codec.encode(event))

    def send_raw(self, message: Publication) -> None:
        """Send anything anywhere: what the contract refuses, for tests."""
        self._connection.publish(message)

    async def hear(self) -> Outbound:
        """Return the next event that belongs to no running `ask` or `stream`; the last 10,000 are kept."""
        return await self._heard.get()

    async def ask(self, intent: Intent, *, timeout_s: float = 120.0, repeat_s: float | None = None) -> Reply:
        """Send an intent and return its reply.

        Args:
            intent: what is wanted.
            timeout_s: how long to wait.
            repeat_s: send the same id again after so many seconds without a reply, as the contract advises devices.

        Raises:
            ContractError: the brain refused it.
            TimeoutError: no reply came.
        """
        async with contextlib.aclosing(self.stream(intent, timeout_s=timeout_s, repeat_s=repeat_s)) as answers:
            async for item in answers:
                if isinstance(item, Reply):
                    return item
        raise TimeoutError("no reply came")

    async def stream(
        self, intent: Intent, *, timeout_s: float = 120.0, repeat_s: float | None = None
    ) -> AsyncGenerator[StreamItem | ActionPending | Reply]:
        """Send an intent; yield the pieces of its answer, if it asked for them, and last the reply.

        An action of it that waits for a person's approval is yielded too: `send` the `Confirmation`.

        Raises:
            ContractError: the brain refused it.
            TimeoutError: no reply came in time.
        """
        answers = self._answers.setdefault(intent.id, asyncio.Queue())
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            self.send(intent)
            while True:
                answer = await self._next(answers, intent, deadline, repeat_s)
                if isinstance(answer, ErrorNotice):
                    if answer.code in TOLD_IN_THE_REPLY:
                        continue
                    raise ContractError(answer.code, answer.message, device_id=answer.device_id, request_id=answer.id)
                yield answer
                if isinstance(answer, Reply):
                    return
        finally:
            self._answers.pop(intent.id, None)

    async def wait_for_brain(self, *states: BrainState, timeout_s: float | None = 30.0) -> BrainState:
        """Return the brain's state once it is one of these; without a timeout, however long that takes.

        Raises:
            TimeoutError: it did not become so.
        """
        async with asyncio.timeout(timeout_s):
            while self.brain_status not in states:
                self._brain_changed.clear()
                await self._brain_changed.wait()
        return self.brain_status

    async def _next(
        self,
        answers: asyncio.Queue[_Answer],
        intent: Intent,
        deadline: float,
        repeat_s: float | None,
    ) -> _Answer:
        loop = asyncio.get_running_loop()
        while True:
            until = deadline if repeat_s is None else min(deadline, loop.time() + repeat_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    return await answers.get()
            if loop.time() >= deadline:
                raise TimeoutError(f"no reply to {intent.id!r} came in time")
            self.send(intent)

    def _on_message(self, message: Publication, receipt: Receipt) -> None:
        self._connection.ack(receipt)
        try:
            event = self._codec.decode_outbound(message)
        except ContractError as exc:
            log.warning("a message on %s breaks the contract: %s", message.topic, exc)
            return
        if isinstance(event, BrainStatus):
            self.brain_status = event.status
            self._brain_changed.set()
        if isinstance(event, Reply | StreamItem | ErrorNotice):
            waiting = self._answers.get(event.id or "")
        else:
            waiting = self._answers.get(event.request_id) if isinstance(event, ActionPending) else None
        if waiting is not None and isinstance(event, Reply | StreamItem | ErrorNotice | ActionPending):
            waiting.put_nowait(event)
            return
        if self._heard.full():
            self._heard.get_nowait()
        self._heard.put_nowait(event)

    async def _end(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
