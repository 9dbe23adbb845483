"""Requests waiting their turn: one at a time for each device, in order; devices don't wait for each other.

A request is on disk before anything is done for it, and before the broker is told that it came; it stays there until
the broker has its answer. So whatever happens, each that was accepted gets one reply or one error, from this process
or the next, and is carried out once.

Bounds: `max_per_device` waiting requests for each device, and `max_waiting` in all that wait or whose answers the
broker does not have; beyond, a request is refused as `busy`. At most `max_running` turns run at once, and devices take
turns: one that was answered queues up behind those that wait. A request is one until it is answered: its repeat while
it waits or runs is ignored, its repeat after that gets the same reply again. A partial transcript is no request: it is
read in ahead, while its device has none. One that waits for a person's yes holds up nobody and stays a request; one
that says stop waits for nobody, not even for the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from naila.agents.outbox import Key, Outbox
from naila.agents.transcripts import Reader, Transcripts
from naila.config.patterns import UNKNOWN
from naila.errors import ContractError, StorageError
from naila.events import Cancel, ErrorNotice, Intent, Reply, Timing
from naila.kept import Begun, KeptRequest
from naila.orchestration.wanted import Wish
from naila.ports import Cancellation, Clock, Inbox, Publisher

MAX_WAITING: Final = 1000
MAX_RUNNING: Final = 128
MAX_URGENT: Final = 256
CANCEL_GRACE_S: Final = 2.0
TYPICAL_TURN_S: Final = 5.0
RETRY_S: Final = 1.0

log = logging.getLogger(__name__)


class Turns(Reader, Protocol):
    """Whoever answers: the orchestrator."""

    async def handle(
        self, intent: Intent, *, cancellation: Cancellation, received_at: float, is_old: bool = False
    ) -> Reply | None:
        """Answer one request; None where it waits for a person and is answered later."""
        ...

    async def conclude(self, wish: Wish, *, cancellation: Cancellation, received_at: float) -> Reply:
        """Return the reply of a wish that is over, and remember it. Does not raise."""
        ...


def _new_future() -> asyncio.Future[KeptRequest]:
    return asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A request that was taken in and is not answered yet."""

    intent: Intent
    received_at: float
    is_old: bool = False
    cancellation: Cancellation = field(default_factory=Cancellation)
    kept: asyncio.Future[KeptRequest] = field(default_factory=_new_future)  # cancelled: it never was

    @property
    def key(self) -> Key:
        """What makes it the same request when it is sent again."""
        return self.intent.device_id, self.intent.id


class Mailbox:
    """Takes what devices send and sees that it is answered.

    Intake may begin before `run`, while the model still loads: requests wait.

    Args:
        turns: answers a request.
        inbox: keeps requests.
        publisher: the way out.
        clock: the time.
        max_per_device: most waiting requests of one device.
        max_waiting: most requests in all.
        max_running: most turns at once.
        suspended: whether a request, by device and id, waits for a person.
        give_up: has a request that waits for a person end.
    """

    def __init__(
        self,
        *,
        turns: Turns,
        inbox: Inbox,
        publisher: Publisher,
        clock: Clock,
        max_per_device: int,
        max_waiting: int = MAX_WAITING,
        max_running: int = MAX_RUNNING,
        suspended: Callable[[str, str], bool] = lambda _device_id, _request_id: False,
        give_up: Callable[[str, str], None] = lambda _device_id, _request_id: None,
    ) -> None:
        self._turns = turns
        self._transcripts = Transcripts(turns)
        self._inbox = inbox
        self._outbox = Outbox(inbox=inbox, publisher=publisher)
        self._publisher = publisher
        self._clock = clock
        self._max_per_device = max_per_device
        self._max_waiting = max_waiting
        self._slots = asyncio.Semaphore(max_running)
        self._suspended = suspended
        self._give_up = give_up
        self._queues: dict[str, deque[Waiting]] = {}
        self._running: dict[str, Waiting] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._open: dict[Key, Waiting] = {}
        self._urgent: OrderedDict[Key, None] = OrderedDict()
        self._aside: set[asyncio.Task[None]] = set()
        self._errands: set[asyncio.Task[None]] = set()
        self._turn_s = TYPICAL_TURN_S
        self._stopping = False
        self._closed = False
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

    @property
    def unkept(self) -> int:
        """How many requests wait for the disk: the broker was not told that they came."""
        return sum(not waiting.kept.done() for waiting in self._open.values())

    async def restore(self) -> None:
        """Take up what the process before this one left, in its order: unsent answers, and requests to be answered.

        Those that wait for a person must have been taken up before.

        Raises:
            StorageError: the inbox cannot be read.
        """
        for known in await self._inbox.undone():
            request = known.request
            key = request.device_id, request.id
            if self._suspended(*key) or key in self._open:
                continue
            if known.reply is not None:
                self._outbox.send(request, known.reply)
                continue
            received_at = self._clock.monotonic() - (known.age_s or 0.0)
            waiting = Waiting(request, received_at, is_old=known.age_s is None)
            waiting.kept.set_result(known)
            self._line_up(waiting)

    async def accept(
        self, event: Intent | Cancel, *, received_at: float | None = None, is_old: bool = False
    ) -> asyncio.Future[Any] | None:
        """Take an event in. Nothing is awaited, so events are served in the order of their calls.

        Args:
            event: what came.
            received_at: when, on the monotonic clock; None: now.
            is_old: it waited elsewhere before that, nobody knows for how long.

        Returns:
            What is done when the event is kept, and cancelled if it never will be; None: there is nothing to keep.

        Raises:
            ContractError: the request is refused; it will not be answered otherwise.
        """
        if isinstance(event, Cancel):
            self._cancel(event)
            return None
        return self._enqueue(event, self._clock.monotonic() if received_at is None else received_at, is_old=is_old)

    def stop(self, device_id: str | None, request: Key) -> None:
        """After an emergency stop: end what is being answered to the device, or to all; never waits.

        Args:
            device_id: which device; None: all.
            request: the request that said stop, which goes on, or is still to come and then waits for nobody.
        """
        self._urgent[request] = None
        if len(self._urgent) > MAX_URGENT:
            self._urgent.popitem(last=False)
        for waiting in list(self._running.values()):
            if waiting.key != request and device_id in {None, waiting.intent.device_id}:
                waiting.cancellation.cancel()
        # A process after this one knows nothing of the stop.
        self._inbox.outdate()

    def deliver(self, intent: Intent, reply: Reply) -> None:
        """Send the reply to a request that waited for a person."""
        self._outbox.decide(intent, reply)
        self._run_errand(self._outbox.give(intent, reply), f"answer to {intent.id} of {intent.device_id}")

    def ended(self, answer: Reply | ErrorNotice, *, is_delivered: bool) -> None:
        """Learn that the broker has an answer, or that it was given up before."""
        self._outbox.ended(answer, is_delivered=is_delivered)

    async def obey(self) -> None:
        """Do what an operator wants done with requests.

        Raises:
            StorageError: the inbox cannot be read or written.
        """
        for number, device_id, request_id, wanted in await self._inbox.orders():
            log.warning("an operator wants to %s %s of %s", wanted, request_id, device_id)
            if wanted == "drop":
                self._drop((device_id, request_id))
            else:
                self._outbox.send_again((device_id, request_id))
            await self._inbox.carried_out(number)

    async def run(self) -> None:
        """Answer requests until drained."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            books = group.create_task(self._outbox.run(), name="outbox")
            try:
                for device_id in list(self._queues):
                    self._wake(device_id)
                await self._stopped.wait()
            finally:
                self._group = None
                books.cancel()

    async def drain(self, timeout_s: float) -> None:
        """Stop: let what runs finish within a limit, then cut it. What is not answered stays in the inbox, untold."""
        self._stopping = True
        self._transcripts.close()
        running = {self._workers[device_id] for device_id in self._running} | self._aside
        late: set[asyncio.Task[None]] = set()
        if running:
            _, late = await asyncio.wait(running, timeout=timeout_s)
        for worker in {*late, *self._workers.values()}:
            worker.cancel()
        if late:
            await asyncio.wait(late, timeout=CANCEL_GRACE_S)
        if self._errands:
            await asyncio.wait(set(self._errands), timeout=CANCEL_GRACE_S)
        self._closed = True
        for errand in list(self._errands):
            errand.cancel()
        for waiting in self._open.values():
            waiting.kept.cancel()
        await self._outbox.tidy()
        self._stopped.set()

    def _enqueue(self, intent: Intent, received_at: float, *, is_old: bool) -> asyncio.Future[Any] | None:
        key = intent.device_id, intent.id
        if intent.partial:
            self._read_ahead(intent)
            return None
        if (same := self._open.get(key)) is not None:
            log.debug("repeat of %s of %s, which is in progress", intent.id, intent.device_id)
            return same.kept
        if self._suspended(*key):
            return None
        if (reply := self._outbox.recent(key)) is not None:
            self._outbox.repeat(intent, reply)
            return None
        waiting = Waiting(intent, received_at, is_old)
        if self._closed:
            waiting.kept.cancel()  # the broker brings it to the next process
            return waiting.kept
        if key in self._urgent and self._group is not None and not self._stopping:
            self._open[key] = waiting
            task = self._group.create_task(self._answer_aside(waiting), name=f"stop {intent.id} of {intent.device_id}")
            self._aside.add(task)
            task.add_done_callback(self._aside.discard)
        else:
            self._check_room(intent)
            self._transcripts.end(intent.device_id)
            self._line_up(waiting)
        self._run_errand(self._keep(waiting), f"keeping {intent.id} of {intent.device_id}")
        return waiting.kept

    def _line_up(self, waiting: Waiting) -> None:
        self._open[waiting.key] = waiting
        self._queues.setdefault(waiting.intent.device_id, deque()).append(waiting)
        self._wake(waiting.intent.device_id)

    async def _keep(self, waiting: Waiting) -> None:
        """Keep a request, however long that takes; its device is told once where it takes long."""
        intent, is_told = waiting.intent, False
        while not waiting.kept.done():
            try:
                known = await self._inbox.keep(intent, is_old=waiting.is_old)
            except StorageError as exc:
                if not is_told:
                    log.warning("%s of %s cannot be kept yet: %s", intent.id, intent.device_id, exc)
                    message = "the brain cannot write to its disk, and goes on when it can: come back in a minute"
                    notice = ErrorNotice(device_id=intent.device_id, code="busy", message=message, id=intent.id)
                    self._publisher.publish(notice, to=intent)
                is_told = True
                await asyncio.sleep(RETRY_S)
            else:
                if not waiting.kept.done():
                    waiting.kept.set_result(known)

    def _read_ahead(self, intent: Intent) -> None:
        """Have a partial transcript read in, unless it is late or its prompt would lack an answer not yet given."""
        late = self._outbox.recent((intent.device_id, intent.id)) is not None
        if self._group is not None and not (self._stopping or late or intent.device_id in self._queues):
            self._transcripts.grow(intent, self._group)

    def _check_room(self, intent: Intent) -> None:
        queued, held = len(self._queues.get(intent.device_id, ())), self.waiting + self._outbox.owed
        if queued >= self._max_per_device:
            message = f"{queued} requests of this device are waiting: come back in about {self._wait_s(queued)} s"
        elif held >= self._max_waiting:
            message = f"{held} requests are waiting in all: come back in about {self._wait_s(1)} s"
        else:
            return
        raise ContractError("busy", message, device_id=intent.device_id, request_id=intent.id)

    def _wait_s(self, turns: int) -> int:
        return max(1, round(turns * self._turn_s))

    def _cancel(self, cancel: Cancel) -> None:
        queue = self._queues.get(cancel.device_id, deque())
        for waiting in [waiting for waiting in queue if cancel.id in {None, waiting.intent.id}]:
            queue.remove(waiting)
            self._run_errand(self._tell_cancelled(waiting), f"cancelling {waiting.intent.id} of {cancel.device_id}")
        running = self._running.get(cancel.device_id)
        if running is not None and cancel.id in {None, running.intent.id}:
            running.cancellation.cancel()

    def _drop(self, key: Key) -> None:
        queue = self._queues.get(key[0], deque())
        for waiting in [waiting for waiting in queue if waiting.key == key]:
            queue.remove(waiting)
            self._open.pop(key, None)
            self._outbox.refuse(waiting.intent, "expired", "an operator dropped this request: send a new one")
            return
        running = self._running.get(key[0])
        if running is not None and running.key == key:
            running.cancellation.cancel()
        elif self._suspended(*key):
            self._give_up(*key)
        else:
            self._outbox.forget(key)

    def _wake(self, device_id: str) -> None:
        if self._group is not None and device_id not in self._workers:
            self._workers[device_id] = self._group.create_task(self._serve(device_id), name=f"turns of {device_id}")

    async def _serve(self, device_id: str) -> None:
        """Answer a device's requests, one after another, until none waits."""
        queue = self._queues[device_id]
        try:
            while queue and not self._stopping:
                await queue[0].kept
                async with self._slots:  # first come, first served: so devices take turns
                    if not queue or self._stopping or not queue[0].kept.done():
                        continue
                    waiting = self._running[device_id] = queue.popleft()
                    try:
                        await self._answer(waiting, waiting.kept.result())
                    finally:
                        del self._running[device_id]
                        self._open.pop(waiting.key, None)
        finally:
            del self._workers[device_id]
            if not queue:
                del self._queues[device_id]

    async def _answer_aside(self, waiting: Waiting) -> None:
        try:
            await self._answer(waiting, KeptRequest(request=waiting.intent))
        finally:
            self._open.pop(waiting.key, None)

    async def _answer(self, waiting: Waiting, known: KeptRequest) -> None:
        intent = waiting.intent
        if known.reply is not None:
            self._outbox.decide(intent, known.reply)
            self._outbox.send(intent, known.reply)
            return
        try:
            reply = await (self._tell_begun(waiting, known.begun) if known.begun else self._take_turn(waiting))
        except ContractError as exc:
            self._outbox.refuse(intent, exc.code, str(exc))
            return
        if reply is not None:
            await self._outbox.give(intent, reply)

    async def _take_turn(self, waiting: Waiting) -> Reply | None:
        started = self._clock.monotonic()
        reply = await self._turns.handle(
            waiting.intent,
            cancellation=waiting.cancellation,
            received_at=waiting.received_at,
            is_old=waiting.is_old,
        )
        self._turn_s += (self._clock.monotonic() - started - self._turn_s) / 8
        return reply

    async def _tell_begun(self, waiting: Waiting, begun: Begun) -> Reply:
        """Say what is known of a request that moved something and was never answered: it is not begun again."""
        log.warning(
            "%s of %s was being carried out when it ended: telling", waiting.intent.id, waiting.intent.device_id
        )
        wish = Wish(request=waiting.intent, left=begun.left, outcomes=begun.outcomes, ended=True)
        return await self._turns.conclude(wish, cancellation=waiting.cancellation, received_at=waiting.received_at)

    async def _tell_cancelled(self, waiting: Waiting) -> None:
        """Answer a request that will have no turn; what it was answered or has moved before stands."""
        reply = self._cancelled(waiting)
        try:
            known = await waiting.kept
            if known.reply is not None or known.begun is not None:
                await self._answer(waiting, known)
            else:
                await self._outbox.give(waiting.intent, reply)
        finally:
            self._open.pop(waiting.key, None)

    def _run_errand(self, errand: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(errand, name=name)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

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
