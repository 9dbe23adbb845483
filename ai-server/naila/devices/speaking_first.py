"""What an alert sets off: a device says something, or something is proposed to be done.

A proposal of an alert is one like any other: the envelope decides whether it is done. Where a person must approve it,
it is proposed again after the yes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from naila.config.monitoring import WantedAction, WatchRule
from naila.devices.pace import Window
from naila.events import DEFAULT_CONVERSATION, Alert, Reply, Severity
from naila.fleet import STOP, Outcome, Pending, Proposal
from naila.ports import Clock, Fleet, Publisher

_log = logging.getLogger(__name__)

MAX_ACTING: Final = 64
MAX_WAITING: Final = 256
SAYINGS_PER_MINUTE: Final = 6

_BECAME: Final = {
    "pending": "waits for a person's yes",
    "unanswered": "was sent, and nothing is known of it since",
    "stopped": "was stopped",
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An action that waits to be proposed.

    Attributes:
        proposal: what is wanted.
        since: since when, on the monotonic clock.
        severity: how bad it is where it is not done.
        why: why it is wanted, as a sentence without its end.
    """

    proposal: Proposal
    since: float
    severity: Severity
    why: str


class Stops(Protocol):
    """Whoever sends emergency stops, and ends what was asked before them."""

    def stop(self, device_id: str | None, *, request_id: str, speaker: str) -> tuple[str, ...]:
        """Stop a device; never waits."""
        ...

    def stopped_since(self, device_id: str, received_at: float) -> bool:
        """Whether a device was stopped since a moment of the monotonic clock."""
        ...


class SpeakingFirst:
    """Says and proposes. Belongs to the event loop's thread; keep `run` running.

    Args:
        fleet: does what an alert wants done, within all limits.
        stops: sends a stop that an alert wants.
        publisher: the way out of what devices are to say, and of what became of actions.
        clock: the time.
        make_id: makes ids of requests.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        stops: Stops,
        publisher: Publisher,
        clock: Clock,
        make_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._fleet: Final = fleet
        self._stops: Final = stops
        self._publisher: Final = publisher
        self._clock: Final = clock
        self._make_id: Final = make_id
        self._said: Final = Window(SAYINGS_PER_MINUTE, 60.0)
        self._wanted: Final[asyncio.Queue[_Wanted]] = asyncio.Queue(MAX_WAITING)

    def react(self, device_id: str, rule: WatchRule, alert: Alert, filled: Mapping[str, str]) -> None:
        """Do what a rule wants, an action before words; nothing is awaited.

        Args:
            device_id: whom the alert is about.
            rule: what it comes from.
            alert: what was told.
            filled: what is filled into the text of `say`.
        """
        if rule.action is not None:
            self._want(device_id, rule.action, alert)
        if rule.say is not None:
            self._say(device_id, rule.say.format(**filled))

    def approved(self, pending: Pending) -> None:
        """Do what an alert wanted and a person approved, even in the life of another process; nothing is awaited."""
        proposal = replace(pending.proposal, confirmation=pending.id)
        self._propose(
            _Wanted(proposal, self._clock.monotonic(), "warning", "An alert wanted it, and a person said yes")
        )

    async def run(self) -> None:
        """Propose what alerts want done, until cancelled. What is slow keeps nobody else waiting."""
        acting = asyncio.Semaphore(MAX_ACTING)
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = await self._wanted.get()
                await acting.acquire()
                task = group.create_task(self._act(wanted), name=f"alert action {wanted.proposal.request_id}")
                task.add_done_callback(lambda _: acting.release())

    def _want(self, device_id: str, action: WantedAction, alert: Alert) -> None:
        proposal = Proposal(
            device_id=action.device or device_id,
            name=action.name,
            arguments=dict(action.arguments),
            request_id=self._make_id(),
            speaker=device_id,
            by="alert",
        )
        if action.name == STOP:
            # A stop has no queue to wait in.
            self._stops.stop(proposal.device_id, request_id=proposal.request_id, speaker=device_id)
            return
        why = f"It was wanted because of {alert.code} of {alert.device_id}"
        self._propose(_Wanted(proposal, self._clock.monotonic(), alert.severity, why))

    def _propose(self, wanted: _Wanted) -> None:
        try:
            self._wanted.put_nowait(wanted)
        except asyncio.QueueFull:
            proposal = wanted.proposal
            _log.error("%s of %s is not proposed: too many wait. %s", proposal.name, proposal.device_id, wanted.why)

    def _say(self, device_id: str, text: str) -> None:
        now = self._clock.monotonic()
        if self._said.wait_s(device_id, now) > 0:
            _log.warning("%s said enough within a minute; left out: %s", device_id, text)
            return
        self._said.count(device_id, now)
        self._publisher.publish(
            Reply(
                device_id=device_id,
                id=self._make_id(),
                text=text,
                intent="alert",
                source="pattern",
                degraded=False,
                conversation_id=DEFAULT_CONVERSATION,
                finish_reason="stop",
            )
        )

    async def _act(self, wanted: _Wanted) -> None:
        proposal = wanted.proposal
        if self._stops.stopped_since(proposal.device_id, wanted.since):
            message = "an emergency stop came before it was proposed"
            outcome = Outcome(proposal=proposal, id=proposal.request_id, status="stopped", message=message)
        else:
            outcome = await self._fleet.perform(proposal)
        if outcome.status == "done":
            _log.info("%s did %s. %s", proposal.device_id, proposal.name, wanted.why)
            return
        told = f"{_told(outcome)}. {wanted.why}"
        _log.warning("%s", told)
        self._publisher.publish(
            Alert(
                code="alert_action",
                severity="info" if outcome.status == "pending" else wanted.severity,
                message=told,
                device_id=proposal.device_id,
            )
        )


def _told(outcome: Outcome) -> str:
    proposal = outcome.proposal
    became = _BECAME.get(outcome.status, outcome.status)
    why = outcome.question if outcome.status == "pending" else outcome.message
    return f"{proposal.name} of {proposal.device_id} {became}{f': {why}' if why else ''}"
