"""What waits for a person's yes, and the approvals that were given: each for exactly one action, once, for a while."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from naila.devices.plain_json import shown
from naila.devices.trail import rfc3339
from naila.errors import ContractError, StorageError
from naila.fleet import Pending, Proposal, is_id
from naila.ports import Clock, DeviceStore

_log = logging.getLogger(__name__)

MAX_PER_SPEAKER: Final = 8
MAX_PENDING: Final = 256


@dataclass(frozen=True, slots=True)
class _Held:
    """A pending action, or its approval, until a moment on the monotonic clock."""

    pending: Pending
    until: float


class Confirmations:
    """Keeps pending actions on disk, and approvals in memory only: a restart loses an approval, never repeats one.

    What was settled is used up on disk before it counts, so that no crash brings it back. Between the two, a stop
    wins: whatever `withdraw` takes away is gone, also for those who wait for the disk.

    Args:
        store: the disk.
        clock: the time.
        timeout_s: how long a person may think.
    """

    def __init__(self, store: DeviceStore, clock: Clock, *, timeout_s: float) -> None:
        self._store: Final = store
        self._clock: Final = clock
        self._timeout_s: Final = timeout_s
        self._waiting: Final[dict[str, _Held]] = {}
        self._settling: Final[dict[str, _Held]] = {}
        self._approved: Final[dict[str, _Held]] = {}
        self._leftovers: Final[deque[str]] = deque(maxlen=4 * MAX_PENDING)
        self._disk_failed = False

    async def load(self) -> None:
        """Take up what waited when the process ended; what has expired meanwhile is among the next `expired`.

        Raises:
            StorageError: the disk failed.
        """
        for pending in list(await self._store.load_pending())[-MAX_PENDING:]:
            self._waiting[pending.id] = _Held(pending, self._clock.monotonic() + self._left_s(pending))

    async def ask(self, pending_id: str, proposal: Proposal, question: str) -> Pending | None:
        """Keep an action that waits for a person. Return None where a stop took it away while it was being kept.

        Raises:
            ContractError: `busy`: too many wait already.
            StorageError: the disk failed.
        """
        mine = len(self.of(proposal.speaker))
        if mine >= MAX_PER_SPEAKER:
            raise ContractError("busy", f"{proposal.name}: {mine} actions wait for an answer here: answer those first")
        if len(self._waiting) >= MAX_PENDING:
            raise ContractError("busy", f"{proposal.name}: {MAX_PENDING} actions wait for an answer: try again later")
        pending = Pending(
            id=pending_id,
            proposal=replace(proposal, expires_at_monotonic=None),
            question=question,
            expires_at=rfc3339(self._clock.now() + timedelta(seconds=self._timeout_s)),
        )
        self._waiting[pending_id] = _Held(pending, self._clock.monotonic() + self._timeout_s)
        try:
            await self._store.keep_pending(pending)
        except BaseException:
            self._waiting.pop(pending_id, None)
            self._leftovers.append(pending_id)
            raise
        if pending_id not in self._waiting:
            self._leftovers.append(pending_id)  # it may have been used up on disk before it was there
            return None
        return pending

    def of(self, speaker: str) -> tuple[Pending, ...]:
        """Return what waits for a person at a device, oldest first."""
        now = self._clock.monotonic()
        return tuple(
            held.pending
            for held in self._waiting.values()
            if held.pending.proposal.speaker == speaker and held.until > now
        )

    async def settle(self, speaker: str, pending_id: str, *, approve: bool) -> Pending:
        """Take a person's answer.

        Raises:
            ContractError: `not_confirmed`: nothing of that id waits here, or it could not be used up on disk.
        """
        held = self._waiting.get(pending_id)
        if held is None or held.pending.proposal.speaker != speaker or held.until <= self._clock.monotonic():
            raise ContractError(
                "not_confirmed",
                f"id: nothing called {shown(repr(pending_id), 80)} waits for an answer here: "
                "it was answered or withdrawn, or has expired",
                device_id=speaker,
                request_id=pending_id if is_id(pending_id) else None,
            )
        del self._waiting[pending_id]
        self._settling[pending_id] = held
        try:
            problem = await self._use_up(pending_id, approve=approve)
            if problem is None and pending_id not in self._settling:
                problem = "an emergency stop came"
            if problem is None and held.until <= self._clock.monotonic():
                problem = "it has expired"
        finally:
            self._settling.pop(pending_id, None)
        if problem is not None:
            name = held.pending.proposal.name
            raise ContractError(
                "not_confirmed", f"{name}: not done: {problem}", device_id=speaker, request_id=pending_id
            )
        if approve:
            self._approved[pending_id] = held
        return held.pending

    def approval(self, confirmation: str | None) -> Pending | None:
        """Use an approval up and return what it was given for; None where there is none, or it has expired."""
        held = self._approved.pop(confirmation, None) if isinstance(confirmation, str) else None
        return held.pending if held is not None and held.until > self._clock.monotonic() else None

    def withdraw(self, device_id: str | None) -> tuple[Pending, ...]:
        """Take away what waits or was approved for a device, or asked through it; None: everything. Never waits."""
        gone: list[Pending] = []
        for held_by_id in (self._waiting, self._settling, self._approved):
            for pending_id, held in tuple(held_by_id.items()):
                proposal = held.pending.proposal
                if device_id is None or device_id in (proposal.device_id, proposal.speaker):
                    del held_by_id[pending_id]
                    gone.append(held.pending)
                    self._leftovers.append(pending_id)
        return tuple(gone)

    def expired(self) -> tuple[Pending, ...]:
        """Take away what nobody answered in time. Never waits."""
        now = self._clock.monotonic()
        for pending_id in [each for each, held in self._approved.items() if held.until <= now]:
            del self._approved[pending_id]
        gone = [held.pending for held in self._waiting.values() if held.until <= now]
        for pending in gone:
            del self._waiting[pending.id]
            self._leftovers.append(pending.id)
        return tuple(gone)

    async def tidy(self) -> None:
        """Use up on disk what was taken away; what the disk refuses is tried again the next time."""
        for _ in range(len(self._leftovers)):
            pending_id = self._leftovers.popleft()
            try:
                await self._store.settle_pending(pending_id)
            except StorageError as exc:
                if not self._disk_failed:
                    _log.warning("actions that wait no longer could not be taken off the disk: %s", exc)
                self._disk_failed = True
                self._leftovers.append(pending_id)
                return
        self._disk_failed = False

    @property
    def is_busy(self) -> bool:
        """Whether something waits, for a person or for the disk."""
        return bool(self._waiting or self._leftovers)

    async def _use_up(self, pending_id: str, *, approve: bool) -> str | None:
        try:
            first = await self._store.settle_pending(pending_id)
        except StorageError as exc:
            # A no stands, whatever the disk says; a yes that might come back after a crash does not.
            self._leftovers.append(pending_id)
            return f"the answer could not be kept ({exc})" if approve else None
        return None if first else "it was answered before"

    def _left_s(self, pending: Pending) -> float:
        try:
            expires_at = datetime.fromisoformat(pending.expires_at)
        except ValueError:
            return 0.0
        if expires_at.tzinfo is None:
            return 0.0
        # A clock that was set back while nobody looked must not give it more time than anything has.
        return min(self._timeout_s, (expires_at - self._clock.now()).total_seconds())
