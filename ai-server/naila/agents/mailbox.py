"""Requests waiting their turn: one at a time for each device, in order; devices don't wait for each other.

Every request that was accepted gets exactly one reply or one error. Bounds: `max_per_device` waiting requests for
each device and `max_waiting` in all; beyond, a request is refused as `busy`. A request is one until it is answered:
its repeat while it waits or runs is ignored, its repeat after that gets the same reply again. A partial transcript is
no request: it is read in ahead, while its device has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from naila.agents.transcripts import Reader, Transcripts
from naila.config.patterns import UNKNOWN
from naila.errors import ContractError, ErrorCode, StorageError
from naila.events import Cancel, DeviceStatus, ErrorNotice, Inbound, Intent, Reply, Timing
from naila.ports import Cancellation, Clock, ConversationMemory, Publisher

MAX_WAITING: Final = 1024
MAX_RECENT: Final = 512
MAX_STATUSES: Final = 4096
CANCEL_GRACE_S: Final = 6.0  # longer than a model is given to stop
TYPICAL_TURN_S: Final = 5.0

Key: TypeAlias = tuple[str, str]

log = logging.getLogger(__name__)


class Turns(Reader, Protocol):
    """Whoever answers: the orchestrator."""

    async def handle(self, intent: Intent, *, cancellation: Cancellation, received_at: float) -> Reply:
        """Answer one request."""
        ...


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that was accepted and is not answered yet."""

    intent: Intent
    received_at: float
    cancellation: Cancellation = field(default_factory=Cancellation)

    @property
    def key(self) -> Key:
        """What makes it the same request when it is sent again."""
        return self.intent.device_id, self.intent.id


class Mailbox:
    """Takes what devices send and sees that it is answered.

    Intake may begin before `run`, while the model still loads: requests wait.

    Args:
        turns: answers a request.
        memory: knows what was answered before a restart.
        publisher: the way out.
        clock: the time.
        max_per_device: most waiting requests of one device.
        max_waiting: most waiting requests in all.
    """

    def __init__(
        self,
        *,
        turns: Turns,
        memory: ConversationMemory,
        publisher: Publisher,
        clock: Clock,
        max_per_device: int,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._turns = turns
        self._transcripts = Transcripts(turns)
        self._memory = memory
        self._publisher = publisher
        self._clock = clock
        self._max_per_device = max_per_device
        self._max_waiting = max_waiting
        self._queues: dict[str, deque[Waiting]] = {}
        self._running: dict[str, Waiting] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._open: set[Key] = set()
        self._recent: OrderedDict[Key, Reply] = OrderedDict()
        self._statuses: OrderedDict[str, DeviceStatus] = OrderedDict()
        self._turn_s = TYPICAL_TURN_S
        self._stopping = False
        self._stopped = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._open) - len(self._running)

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return len(self._running)

    def status_of(self, device_id: str) -> DeviceStatus | None:
        """Return what a device last said about itself."""
        return self._statuses.get(device_id)

    async def accept(self, event: Inbound) -> None:
        """Take an event in. Nothing is awaited, so events are served in the order of their calls.

        Raises:
            ContractError: the request is refused; it will not be answered otherwise.
        """
        match event:
            case Intent():
                self._enqueue(event)
            case Cancel():
                self._cancel(event)
            case DeviceStatus():
                self._statuses[event.device_id] = event
                self._statuses.move_to_end(event.device_id)
                if len(self._statuses) > MAX_STATUSES:
                    self._statuses.popitem(last=False)

    async def run(self) -> None:
        """Answer requests until drained."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for device_id in list(self._queues):
                    self._wake(device_id)
                await self._stopped.wait()
            finally:
                self._group = None

    async def drain(self, timeout_s: float) -> None:
        """Stop: refuse what comes and what waits, let what runs finish within a limit, then cut it short."""
        self._stopping = True
        self._transcripts.close()
        for queue in self._queues.values():
            while queue:
                waiting = queue.popleft()
                self._open.discard(waiting.key)
                self._refuse(waiting.intent, "busy", "the brain is stopping: send this again later")
        workers = list(self._workers.values())
        if workers:
            _, late = await asyncio.wait(workers, timeout=timeout_s)
            for waiting in self._running.values():
                waiting.cancellation.cancel()
            if late:
                await asyncio.wait(late, timeout=CANCEL_GRACE_S)
        for waiting in self._running.values():
            self._refuse(waiting.intent, "internal", "the brain stopped before this was answered")
        for worker in self._workers.values():
            worker.cancel()
        self._stopped.set()

    def _enqueue(self, intent: Intent) -> None:
        key = intent.device_id, intent.id
        if intent.partial:
            self._read_ahead(intent)
            return
        if key in self._open:
            log.debug("repeat of %s of %s, which is in progress", intent.id, intent.device_id)
            return
        if key in self._recent:
            self._publisher.publish(self._recent[key], to=intent)
            return
        self._check_room(intent)
        self._transcripts.end(intent.device_id)
        self._open.add(key)
        self._queues.setdefault(intent.device_id, deque()).append(Waiting(intent, self._clock.monotonic()))
        self._wake(intent.device_id)

    def _read_ahead(self, intent: Intent) -> None:
        """Have a partial transcript read in, unless it is late or its prompt would lack an answer not yet given."""
        late = (intent.device_id, intent.id) in self._recent
        if self._group is not None and not (self._stopping or late or intent.device_id in self._queues):
            self._transcripts.grow(intent, self._group)

    def _check_room(self, intent: Intent) -> None:
        queued = len(self._queues.get(intent.device_id, ()))
        if self._stopping:
            message = "the brain is stopping: send this again later"
        elif queued >= self._max_per_device:
            message = f"{queued} requests of this device are waiting: come back in about {self._wait_s(queued)} s"
        elif self.waiting >= self._max_waiting:
            message = f"{self.waiting} requests are waiting in all: come back in about {self._wait_s(1)} s"
        else:
            return
        raise ContractError("busy", message, device_id=intent.device_id, request_id=intent.id)

    def _wait_s(self, turns: int) -> int:
        return max(1, round(turns * self._turn_s))

    def _cancel(self, cancel: Cancel) -> None:
        queue = self._queues.get(cancel.device_id, deque())
        for waiting in [waiting for waiting in queue if cancel.id in {None, waiting.intent.id}]:
            queue.remove(waiting)
            self._open.discard(waiting.key)
            self._finish(waiting, self._cancelled(waiting))
        running = self._running.get(cancel.device_id)
        if running is not None and cancel.id in {None, running.intent.id}:
            running.cancellation.cancel()

    def _wake(self, device_id: str) -> None:
        if self._group is not None and device_id not in self._workers:
            self._workers[device_id] = self._group.create_task(self._serve(device_id), name=f"turns of {device_id}")

    async def _serve(self, device_id: str) -> None:
        """Answer a device's requests, one after another, until none waits."""
        queue = self._queues[device_id]
        try:
            while queue:
                waiting = self._running[device_id] = queue.popleft()
                try:
                    await self._answer(waiting)
                finally:
                    del self._running[device_id]
                    self._open.discard(waiting.key)
        finally:
            del self._workers[device_id]
            if not queue:
                del self._queues[device_id]

    async def _answer(self, waiting: Waiting) -> None:
        intent = waiting.intent
        reply = await self._answered_before(intent)
        if reply is None:
            started = self._clock.monotonic()
            try:
                reply = await self._turns.handle(
                    intent, cancellation=waiting.cancellation, received_at=waiting.received_at
                )
            except ContractError as exc:
                self._refuse(intent, exc.code, str(exc))
                return
            self._turn_s += (self._clock.monotonic() - started - self._turn_s) / 8
        self._finish(waiting, reply)

    async def _answered_before(self, intent: Intent) -> Reply | None:
        try:
            return await self._memory.answered(intent.device_id, intent.id)
        except StorageError:
            log.exception("%s of %s: memory cannot tell whether it was answered", intent.id, intent.device_id)
            return None

    def _finish(self, waiting: Waiting, reply: Reply) -> None:
        self._recent[waiting.key] = reply
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        self._publisher.publish(reply, to=waiting.intent)

    def _refuse(self, intent: Intent, code: ErrorCode, message: str) -> None:
        notice = ErrorNotice(device_id=intent.device_id, code=code, message=message, id=intent.id)
        self._publisher.publish(notice, to=intent)

    def _cancelled(self, waiting: Waiting) -> Reply:
        waited_ms = round((self._clock.monotonic() - waiting.received_at) * 1000, 3)
        return Reply(
            device_id=waiting.intent.device_id,
            id=waiting.intent.id,
            text="",
            intent=waiting.intent.intent or UNKNOWN,
            source="pattern",
            degraded=False,
            conversation_id=waiting.intent.conversation_id,
            finish_reason="cancelled",
            timing=Timing(queue_ms=waited_ms, total_ms=waited_ms),
        )
