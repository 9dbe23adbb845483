"""Actions that were sent and not finished: whose they are, until when, and which result belongs to which."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

from naila.errors import ErrorCode
from naila.events import Action, ActionResult, JsonValue
from naila.fleet import OutcomeStatus, Proposal

_MAX_PAST: Final = 4096

Match = Literal["first", "late", "stopped", "again", "foreign", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an action ended, as far as is known.

    Attributes:
        status: as in an outcome.
        code: why it failed, or is not known.
        message: the same in words.
        result: what the device returned.
    """

    status: OutcomeStatus
    code: ErrorCode | None = None
    message: str = ""
    result: JsonValue = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Running:
    """One action on its way.

    Attributes:
        action: as sent.
        proposal: as cleared.
        group: nothing else of it may run.
        begin_by: after this it is not begun, and nobody waits for its result, in seconds on the monotonic clock.
        until: after this its result is late, and its group is free: what was begun in time may still move until then.
        ending: set once, when something is known or the time is over; whoever asked waits for it.
    """

    action: Action
    proposal: Proposal
    group: str | None
    begin_by: float
    until: float
    ending: asyncio.Future[Ending]

    def end(self, ending: Ending) -> bool:
        """Tell whoever waits; false where they were told something before."""
        if self.ending.done():
            return False
        self.ending.set_result(ending)
        return True


class Roll:
    """Who runs what. It belongs to the event loop's thread, and never waits.

    An action stays on it, and blocks its group, until its result, its time or a stop; that nobody waits for it any more
    does not end it.
    """

    def __init__(self) -> None:
        self._running: Final[dict[str, dict[str, Running]]] = {}
        self._past: Final[OrderedDict[str, tuple[str, Match]]] = OrderedDict()

    def add(self, running: Running) -> None:
        """Begin one."""
        self._running.setdefault(running.action.device_id, {})[running.action.id] = running

    def give_up(self, running: Running) -> None:
        """Take one off that was never sent."""
        mine = self._running.get(running.action.device_id, {})
        mine.pop(running.action.id, None)
        if not mine:
            self._running.pop(running.action.device_id, None)

    def of(self, device_id: str, now: float) -> tuple[Running, ...]:
        """Return what a device has not finished."""
        mine = self._running.get(device_id, {})
        for running in [each for each in mine.values() if each.until <= now]:
            self._leave(running, "late")
        return tuple(mine.values())

    def devices(self) -> tuple[str, ...]:
        """Return who has something running."""
        return tuple(self._running)

    def match(self, result: ActionResult, now: float) -> tuple[Match, Running | None]:
        """Find what a result belongs to; only the first of the right device, in time, ends an action."""
        running = next((each for each in self.of(result.device_id, now) if each.action.id == result.id), None)
        if running is not None:
            self._leave(running, "again")
            return "first", running
        if result.id in self._past:
            device_id, what = self._past[result.id]
            if device_id != result.device_id:
                return "foreign", None
            self._past[result.id] = (device_id, "again")
            return what, None
        if any(result.id in mine for mine in self._running.values()):
            return "foreign", None
        return "unknown", None

    def clear(self, device_id: str) -> tuple[Running, ...]:
        """End all of a device, because it was stopped."""
        ended = tuple(self._running.get(device_id, {}).values())
        for running in ended:
            self._leave(running, "stopped")
        return ended

    def _leave(self, running: Running, what: Match) -> None:
        device_id = running.action.device_id
        mine = self._running.get(device_id, {})
        mine.pop(running.action.id, None)
        if not mine:
            self._running.pop(device_id, None)
        self._past[running.action.id] = (device_id, what)
        while len(self._past) > _MAX_PAST:
            self._past.popitem(last=False)
