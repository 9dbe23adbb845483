"""What an alert sets off: a device says something, or something is proposed to be done.

A proposal of an alert is one like any other: the envelope decides whether it is done.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from naila.config.monitoring import WantedAction, WatchRule
from naila.devices.pace import Window
from naila.events import DEFAULT_CONVERSATION, Alert, Reply
from naila.fleet import STOP, Outcome, Proposal
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


class Stops(Protocol):
    """Whoever sends emergency stops, and ends what was asked before them."""

    def stop(self, device_id: str | None, *, request_id: str, speaker: str) -> tuple[str, ...]:
        """Stop a device; never waits."""
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
        self._wanted: Final[asyncio.Queue[tuple[Proposal, Alert]]] = asyncio.Queue(MAX_WAITING)

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

    async def run(self) -> None:
        """Propose what alerts want done, until cancelled. What is slow keeps nobody else waiting."""
        acting = asyncio.Semaphore(MAX_ACTING)
        async with asyncio.TaskGroup() as group:
            while True:
                proposal, alert = await self._wanted.get()
                await acting.acquire()
                task = group.create_task(self._act(proposal, alert), name=f"alert action {proposal.request_id}")
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
        try:
            self._wanted.put_nowait((proposal, alert))
        except asyncio.QueueFull:
            _log.error("%s: %s of %s is not proposed: too many wait", alert.code, action.name, proposal.device_id)

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

    async def _act(self, proposal: Proposal, alert: Alert) -> None:
        outcome = await self._fleet.perform(proposal)
        if outcome.status == "done":
            _log.info("%s did %s, which %s wanted", proposal.device_id, proposal.name, alert.code)
            return
        told = _told(outcome)
        _log.warning("%s: %s", alert.code, told)
        self._publisher.publish(
            Alert(
                code="alert_action",
                severity="info" if outcome.status == "pending" else alert.severity,
                message=f"{told}. It was wanted because of {alert.code} of {alert.device_id}",
                device_id=proposal.device_id,
            )
        )


def _told(outcome: Outcome) -> str:
    proposal = outcome.proposal
    became = _BECAME.get(outcome.status, outcome.status)
    why = outcome.question if outcome.status == "pending" else outcome.message
    return f"{proposal.name} of {proposal.device_id} {became}{f': {why}' if why else ''}"
