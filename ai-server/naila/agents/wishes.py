"""Requests that wait for a person's yes or no, for seconds or across a restart, without holding up anybody.

Each gets exactly one reply: when its action is approved and done, denied, expired, cancelled, or stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from naila.errors import ContractError, StorageError
from naila.events import DEFAULT_CONVERSATION, Confirmation, Intent, Reply
from naila.fleet import Pending
from naila.orchestration.wanted import Wish
from naila.orchestration.wish import FAILED, Answer, Performer, SuspendedWishes, interrupted, not_approved
from naila.ports import Cancellation, Clock, ConversationMemory, Fleet

MAX_EARLY: Final = 256
CANCEL_GRACE_S: Final = 2.0

Key: TypeAlias = tuple[str, str]

log = logging.getLogger(__name__)


class Endings(Protocol):
    """Whoever carries wishes out and tells what became of them: the orchestrator."""

    def performer(self, intent: Intent, *, cancellation: Cancellation, received_at: float) -> Performer:
        """Return what the wish of a request is carried out with."""
        ...

    async def conclude(self, wish: Wish, *, cancellation: Cancellation, received_at: float) -> Reply:
        """Return the reply of a wish that is over, and remember it. Does not raise."""
        ...


@dataclass(slots=True)
class _Waiting:
    """A request whose wish waits, or goes on."""

    wish: Wish
    received_at: float
    cancellation: Cancellation = field(default_factory=Cancellation)
    goes_on: bool = False
    is_asked: bool = False  # its pending action is being settled

    @property
    def pending_id(self) -> str | None:
        return self.wish.pending.id if self.wish.pending is not None else None


class Wishes:
    """Keeps suspended requests open and goes on with them.

    Args:
        fleet: knows what is pending, and settles it.
        suspended: keeps their wishes.
        endings: returns who carries them out and tells.
        memory: knows what was answered before a restart.
        deliver: publishes the reply to a request.
        clock: the time.
        on_approved: told of an approved action that an alert wanted: no request waits for it.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        suspended: SuspendedWishes,
        endings: Callable[[], Endings],
        memory: ConversationMemory,
        deliver: Callable[[Intent, Reply], None],
        clock: Clock,
        on_approved: Callable[[Pending], None] = lambda _: None,
    ) -> None:
        self._fleet = fleet
        self._suspended = suspended
        self._endings = endings
        self._memory = memory
        self._deliver = deliver
        self._clock = clock
        self._on_approved = on_approved
        self._open: dict[Key, _Waiting] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopped = asyncio.Event()
        self._not_begun: list[tuple[str, Coroutine[object, object, None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        # Answers that came before the question was on disk.
        self._early: dict[str, Answer] = {}

    def is_open(self, device_id: str, request_id: str) -> bool:
        """Whether a request waits for a person, or is being carried out after that."""
        return (device_id, request_id) in self._open

    def awaited(self, request: Intent) -> tuple[Pending, ...]:
        """Return what waits for a person in the conversation of a request, oldest first.

        What an alert wants is asked in the device's own conversation, like what it makes the device say.
        """
        mine = {
            waiting.pending_id
            for waiting in self._open.values()
            if not waiting.goes_on
            and waiting.wish.request.device_id == request.device_id
            and waiting.wish.request.conversation_id == request.conversation_id
        }
        is_own = request.conversation_id == DEFAULT_CONVERSATION
        return tuple(
            pending
            for pending in self._fleet.pending(request.device_id)
            if pending.id in mine or (is_own and pending.proposal.by == "alert")
        )

    async def suspend(self, wish: Wish) -> None:
        """Keep a wish that waits.

        Raises:
            StorageError: it cannot be kept.
        """
        await self._suspended.suspend(wish)
        request = wish.request
        self._open[request.device_id, request.id] = waiting = _Waiting(wish, self._clock.monotonic())
        self._look(waiting)

    async def settle(self, device_id: str, pending_id: str, *, approve: bool) -> None:
        """Take a person's answer; the request goes on by itself.

        Raises:
            ContractError: `not_confirmed`: nothing of that id waits for this device, or the answer came too late.
        """
        waiting = next((each for each in self._resting() if each.pending_id == pending_id), None)
        mine = waiting is not None and not waiting.is_asked and waiting.wish.request.device_id == device_id
        if waiting is not None and mine:
            waiting.is_asked = True
        try:
            pending = await self._fleet.settle(device_id, pending_id, approve=approve)
        except ContractError:
            if waiting is not None and mine and not waiting.goes_on:
                self._go_on(waiting, "unheard" if approve else "denied")
            raise
        if pending.proposal.by == "alert":
            if approve:
                self._on_approved(pending)
        elif waiting is None:
            self._early[pending_id] = "approved" if approve else "denied"
            if len(self._early) > MAX_EARLY:
                del self._early[next(iter(self._early))]
        elif not waiting.goes_on:
            self._go_on(waiting, "approved" if approve else "denied")

    async def confirm(self, confirmation: Confirmation) -> None:
        """Take a person's answer that came as a message.

        Raises:
            ContractError: `not_confirmed`: nothing of that id waits for this device.
        """
        await self.settle(confirmation.device_id, confirmation.id, approve=confirmation.approve)

    def expired(self, pending: Pending) -> None:
        """Give up a request whose pending action nobody approved in time."""
        self._end_pending(pending, "expired")

    def withdrawn(self, pending: Pending) -> None:
        """Give up a request whose pending action an emergency stop took away."""
        self._end_pending(pending, "stopped")

    def cancel(self, device_id: str, request_id: str | None) -> None:
        """Give up a request that waits, or all of a device; what is being carried out ends with its step."""
        for waiting in list(self._open.values()):
            request = waiting.wish.request
            if request.device_id != device_id or request_id not in {None, request.id}:
                continue
            waiting.cancellation.cancel()
            if not waiting.goes_on:
                self._start(waiting, self._give_up(waiting))

    async def restore(self) -> None:
        """Take up what the process before this one left: what still waits goes on waiting, the rest is told.

        What has expired meanwhile must be told to `expired` before `give_up_lost`.
        """
        try:
            found = [each async for each in self._suspended.found()]
        except StorageError:
            log.exception("the requests that waited for a person cannot be read")
            return
        for wish, waits in found:
            request = wish.request
            reply = await self._answered(request)
            if reply is not None:
                self._deliver(request, reply)
                await self._forget(request)
                continue
            waiting = self._open[request.device_id, request.id] = _Waiting(wish, self._clock.monotonic())
            if not waits:
                self._start(waiting, self._end(waiting, interrupted(wish)))

    def give_up_lost(self) -> None:
        """Give up the restored requests whose pending action is gone: its answer was lost with the process."""
        for waiting in self._resting():
            if not self._is_pending(waiting):
                self._go_on(waiting, "lost")

    async def run(self) -> None:
        """Go on with what was answered, until drained."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name, work in self._not_begun:
                self._begin(group, name, work)
            self._not_begun.clear()
            await self._stopped.wait()

    async def drain(self, timeout_s: float) -> None:
        """Let what goes on finish within a limit; what waits, waits on for the next process."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        for waiting in self._open.values():
            waiting.cancellation.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=CANCEL_GRACE_S)
        for task in list(self._tasks):
            task.cancel()
        self._stopped.set()

    def _resting(self) -> list[_Waiting]:
        return [each for each in self._open.values() if not each.goes_on]

    def _end_pending(self, pending: Pending, answer: Answer) -> None:
        for waiting in self._resting():
            if waiting.pending_id == pending.id:
                self._go_on(waiting, answer)

    def _is_pending(self, waiting: _Waiting) -> bool:
        device_id = waiting.wish.request.device_id
        return any(pending.id == waiting.pending_id for pending in self._fleet.pending(device_id))

    def _look(self, waiting: _Waiting) -> None:
        """Go on at once where the question was settled while it was being kept."""
        early = self._early.pop(waiting.pending_id or "", None)
        if early is not None:
            self._go_on(waiting, early)
        elif not self._is_pending(waiting):
            self._go_on(waiting, "stopped")

    def _go_on(self, waiting: _Waiting, answer: Answer) -> None:
        self._start(waiting, self._resume(waiting, answer))

    def _start(self, waiting: _Waiting, work: Coroutine[object, object, None]) -> None:
        if self._stopped.is_set():
            work.close()  # the next process finds it as it is on disk
            return
        waiting.goes_on = True
        request = waiting.wish.request
        name = f"wish {request.id} of {request.device_id}"
        if self._group is None:
            self._not_begun.append((name, work))
        else:
            self._begin(self._group, name, work)

    def _begin(self, group: asyncio.TaskGroup, name: str, work: Coroutine[object, object, None]) -> None:
        task = group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resume(self, waiting: _Waiting, answer: Answer) -> None:
        request = waiting.wish.request
        performer = self._endings().performer(
            request, cancellation=waiting.cancellation, received_at=waiting.received_at
        )
        try:
            wish = await self._suspended.resume(request, answer, performer)
        except Exception:
            # The reply must not be lost with the graph; nobody knows how far it came.
            log.exception("the wish %s of %s failed", request.id, request.device_id)
            wish = interrupted(waiting.wish, FAILED) if answer == "approved" else not_approved(waiting.wish, answer)
        if wish.pending is not None:
            waiting.wish, waiting.goes_on, waiting.is_asked = wish, False, False
            self._look(waiting)
            return
        await self._end(waiting, wish)

    async def _give_up(self, waiting: _Waiting) -> None:
        """Deny what a cancelled request waits for."""
        request, pending_id = waiting.wish.request, waiting.pending_id
        try:
            if pending_id is not None:
                await self._fleet.settle(request.device_id, pending_id, approve=False)
        except ContractError:
            log.debug("%s was settled meanwhile", pending_id)
        await self._resume(waiting, "cancelled")

    async def _end(self, waiting: _Waiting, wish: Wish) -> None:
        request = wish.request
        reply = await self._endings().conclude(wish, cancellation=waiting.cancellation, received_at=waiting.received_at)
        # Together: from now on a repeat gets the same reply.
        self._open.pop((request.device_id, request.id), None)
        self._deliver(request, reply)
        await self._forget(request)

    async def _answered(self, request: Intent) -> Reply | None:
        try:
            return await self._memory.answered(request.device_id, request.id)
        except StorageError:
            log.exception("%s of %s: memory cannot tell whether it was answered", request.id, request.device_id)
            return None

    async def _forget(self, request: Intent) -> None:
        try:
            await self._suspended.end(request)
        except StorageError:
            log.exception("the wish %s of %s cannot be removed", request.id, request.device_id)
