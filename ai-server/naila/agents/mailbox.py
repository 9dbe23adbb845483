"""Requests waiting their turn: one at a time for each device, in order; devices don't wait for each other.

Every request that was accepted gets exactly one reply or one error. Bounds: `max_per_device` waiting requests for
each device and `max_waiting` in all; beyond, a request is refused as `busy`. A request is one until it is answered:
its repeat while it waits or runs is ignored, its repeat after that gets the same reply again. A partial transcript is
no request: it is read in ahead, while its device has none. One that waits for a person's yes holds up nobody and stays
a request; one that says stop waits for nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from naila.agents.transcripts import Reader, Transcripts
from naila.config.patterns import UNKNOWN
from naila.errors import ContractError, ErrorCode, StorageError
from naila.events import Cancel, ErrorNotice, Intent, Reply, Timing
from naila.ports import Cancellation, Clock, ConversationMemory, Publisher

MAX_WAITING: Final = 1024
MAX_RECENT: Final = 512
MAX_URGENT: Final = 256
CANCEL_GRACE_S: Final = 6.0  # longer than a model is given to stop
TYPICAL_TURN_S: Final = 5.0

Key: TypeAlias = tuple[str, str]

log = logging.getLogger(__name__)


class Turns(Reader, Protocol):
    """Whoever answers: the orchestrator."""

    async def handle(self, intent: Intent, *, cancellation: Cancellation, received_at: float) -> Reply | None:
        """Answer one request; None where it waits for a person and is answered later."""
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
        suspended: whether a request, by device and id, waits for a person.
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
        suspended: Callable[[str, str], bool] = lambda _device_id, _request_id: False,
    ) -> None:
        self._turns = turns
        self._transcripts = Transcripts(turns)
        self._memory = memory
        self._publisher = publisher
        self._clock = clock
        self._max_per_device = max_per_device
        self._max_waiting = max_waiting
        self._suspended = suspended
        self._queues: dict[str, deque[Waiting]] = {}
        self._running: dict[str, Waiting] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._open: set[Key] = set()
        self._recent: OrderedDict[Key, Reply] = OrderedDict()
        self._urgent: OrderedDict[str, None] = OrderedDict()
        self._aside: dict[asyncio.Task[None], Waiting] = {}
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

    async def accept(self, event: Intent | Cancel, *, received_at: float | None = None) -> None:
        """Take an event in. Nothing is awaited, so events are served in the order of their calls.

        Args:
            event: what came.
            received_at: when, on the monotonic clock; None: now.

        Raises:
            ContractError: the request is refused; it will not be answered otherwise.
        """
        match event:
            case Intent():
                self._enqueue(event, self._clock.monotonic() if received_at is None else received_at)
            case Cancel():
                self._cancel(event)

    def stop(self, device_id: str | None, request_id: str) -> None:
        """After an emergency stop: end what is being answered to the device, or to all; never waits.

        Args:
            device_id: which device; None: all.
            request_id: the request that said stop, which goes on, or is still to come and then waits for nobody.
        """
        self._urgent[request_id] = None
        if len(self._urgent) > MAX_URGENT:
            self._urgent.popitem(last=False)
        for waiting in list(self._running.values()):
            if waiting.intent.id != request_id and device_id in {None, waiting.intent.device_id}:
                waiting.cancellation.cancel()

    def deliver(self, intent: Intent, reply: Reply) -> None:
        """Publish the reply to a request that waited for a person."""
        self._finish(intent, reply)

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
        workers = [*self._workers.values(), *self._aside]
        if workers:
            _, late = await asyncio.wait(workers, timeout=timeout_s)
            for waiting in self._answering():
                waiting.cancellation.cancel()
            if late:
                await asyncio.wait(late, timeout=CANCEL_GRACE_S)
        for waiting in self._answering():
            self._refuse(waiting.intent, "internal", "the brain stopped before this was answered")
        for worker in [*self._workers.values(), *self._aside]:
            worker.cancel()
        self._stopped.set()

    def _answering(self) -> list[Waiting]:
        return [*self._running.values(), *self._aside.values()]

    def _enqueue(self, intent: Intent, received_at: float) -> None:
        key = intent.device_id, intent.id
        if intent.partial:
            self._read_ahead(intent)
            return
        if key in self._open or self._suspended(*key):
            log.debug("repeat of %s of %s, which is in progress", intent.id, intent.device_id)
            return
        if key in self._recent:
            self._publisher.publish(self._recent[key], to=intent)
            return
        waiting = Waiting(intent, received_at)
        if intent.id in self._urgent and self._group is not None and not self._stopping:
            self._open.add(key)
            task = self._group.create_task(self._answer_aside(waiting), name=f"stop {intent.id} of {intent.device_id}")
            self._aside[task] = waiting
            task.add_done_callback(self._aside.pop)
            return
        self._check_room(intent)
        self._transcripts.end(intent.device_id)
        self._open.add(key)
        self._queues.setdefault(intent.device_id, deque()).append(waiting)
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
            self._finish(waiting.intent, self._cancelled(waiting))
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

    async def _answer_aside(self, waiting: Waiting) -> None:
        try:
            await self._answer(waiting)
        finally:
            self._open.discard(waiting.key)

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
        if reply is not None:
            self._finish(intent, reply)

    async def _answered_before(self, intent: Intent) -> Reply | None:
        try:
            return await self._memory.answered(intent.device_id, intent.id)
        except StorageError:
            log.exception("%s of %s: memory cannot tell whether it was answered", intent.id, intent.device_id)
            return None

    def _finish(self, intent: Intent, reply: Reply) -> None:
        self._recent[intent.device_id, intent.id] = reply
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        self._publisher.publish(reply, to=intent)

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
