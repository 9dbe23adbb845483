"""The only way out for an action: proposals in, actions out, results in, and the emergency stop.

Between the decision about a proposal and its place among what runs nothing is awaited, so that two proposals can never
both pass a check that only one may. Then it is journalled, on disk, so that no restart sends it twice; and it is
published only if nothing came between. `stop` asks nobody: it publishes first, and looks after everything else later.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from naila.devices.audit import Audit, AuditEvent
from naila.devices.confirmations import Confirmations
from naila.devices.envelope import (
    MAX_QUESTION_CHARS,
    Circumstances,
    Cleared,
    NeedsConfirmation,
    Refused,
    approval_id,
    decide,
    no_yes_of,
    question_of,
)
from naila.devices.pace import Pace, Request, Requests
from naila.devices.permissions import Permissions
from naila.devices.plain_json import canonical, parsed, shown
from naila.devices.registry import Registry
from naila.devices.running import Ending, Roll, Running
from naila.devices.trail import Trail, rfc3339
from naila.errors import ContractError, StorageError
from naila.events import Action, ActionPending, ActionResult, DeviceStatus, JsonValue
from naila.fleet import STOP, ActionSpec, DeviceProfile, DeviceView, FleetView, Outcome, Pending, Proposal, is_id
from naila.ports import Cancellation, Clock, DeviceStore, Fleet, Journal, Publisher, StopCause

STOP_TTL_MS: Final = 10_000
_STOP_ANSWER_S: Final = 2.0
_MAX_RESULT_BYTES: Final = 4096
_MAX_SEEN: Final = 1024
_SWEEP_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard limits, whatever a device declared.

    Attributes:
        per_request: most actions of one request.
        per_minute: most actions to one device within any minute.
        confirm_timeout_s: how long a person may think.
    """

    per_request: int = 8
    per_minute: int = 60
    confirm_timeout_s: float = 60.0


class Dispatcher(Fleet):
    """Moves devices. It belongs to the event loop's thread; call `load` once before, and keep `run` running.

    Args:
        registry: what devices declared, and who is there.
        store: keeps what waits for a person.
        journal: keeps what is about to be sent.
        publisher: the way out.
        clock: the time.
        permissions: who may move whom.
        audit: where everything is written down.
        limits: see there.
        question: words what a person is asked before something is done.
        on_expired: told of what nobody answered in time.
        on_withdrawn: told of what a stop took away before it was done.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        store: DeviceStore,
        journal: Journal,
        publisher: Publisher,
        clock: Clock,
        permissions: Permissions,
        audit: Audit,
        limits: Limits = Limits(),
        question: Callable[[Proposal, DeviceProfile], str] = question_of,
        on_expired: Callable[[Pending], None] = lambda _: None,
        on_withdrawn: Callable[[Pending], None] = lambda _: None,
    ) -> None:
        self._registry: Final = registry
        self._journal: Final = journal
        self._publisher: Final = publisher
        self._clock: Final = clock
        self._permissions: Final = permissions
        self._trail: Final = Trail(audit, publisher, clock)
        self._question: Final = question
        self._on_expired: Final = on_expired
        self._on_withdrawn: Final = on_withdrawn
        self._confirmations: Final = Confirmations(store, clock, timeout_s=limits.confirm_timeout_s)
        self._pace: Final = Pace(per_minute=limits.per_minute, per_request=limits.per_request)
        self._roll: Final = Roll()
        self._unsent: Final[set[Running]] = set()
        # Everybody ever heard of, with the last sequence number; the least recently heard of leave first.
        self._seen: Final[OrderedDict[str, int]] = OrderedDict()
        self._requests: Final = Requests()
        self._news: Final = asyncio.Event()

    async def load(self) -> None:
        """Take up what waited for a person when the process ended.

        Raises:
            StorageError: the disk failed.
        """
        await self._confirmations.load()

    async def run(self) -> None:
        """End what nobody answers in time, until cancelled."""
        while True:
            self.sweep()
            await self._confirmations.tidy()
            self._news.clear()
            try:
                async with asyncio.timeout(_SWEEP_S if self._confirmations.is_busy else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    def sweep(self) -> None:
        """End what nobody answered in time, now."""
        for pending in self._confirmations.expired():
            proposal = pending.proposal
            reason = f"{proposal.name}: nobody said yes in time, so it was not done"
            self._trail.refuse("expired", proposal, pending.id, code="not_confirmed", message=reason)
            self._on_expired(pending)

    def view(self, speaker: str) -> FleetView:
        """Return the devices that can be spoken of through a device, as they are now; its own first."""
        self._see(speaker)
        now = self._clock.monotonic()
        profiles = sorted(
            self._registry.profiles(), key=lambda profile: (profile.device_id != speaker, profile.device_id)
        )
        return FleetView(
            speaker,
            tuple(
                DeviceView(
                    profile=profile,
                    online=self._registry.is_online(profile.device_id),
                    readings=self._registry.readings(profile.device_id),
                    running=tuple(name for name, _ in self._unfinished(profile.device_id, now)),
                )
                for profile in profiles
            ),
        )

    async def perform(self, proposal: Proposal, *, cancellation: Cancellation | None = None) -> Outcome:
        """Put a proposal through the envelope, send it, and wait for what became of it."""
        self._see(proposal.speaker)
        later, proposal = proposal.later, replace(proposal, later=())
        if proposal.name == STOP and is_id(proposal.device_id):
            return await self._perform_stop(replace(proposal, arguments={}), cancellation)
        now = self._clock.monotonic()
        request = self._requests.of(proposal, now)
        profile = self._registry.profile(proposal.device_id) if is_id(proposal.device_id) else None
        decision = decide(
            proposal,
            Circumstances(
                profile=profile,
                online=self._registry.is_online(profile.device_id) if profile else None,
                permitted=lambda profile: self._permissions.effect(proposal, profile),
                running=self._unfinished(profile.device_id, now) if profile else (),
                too_often=lambda spec: self._pace.refusal(proposal.device_id, spec, request, now),
                may_approve=self._permissions.may_approve,
                approval=self._confirmations.approval(proposal.confirmation),
                stopped=request.stopped,
                now=now,
            ),
        )
        if isinstance(decision, Refused):
            return self._refuse(proposal, decision)
        if cancellation is not None and cancellation.cause is not None:
            return self._refuse(proposal, Refused("expired", f"{proposal.name}: {_too_late(cancellation.cause)}"))
        if self._trail.is_full:
            return self._refuse(
                proposal, Refused("internal", f"{proposal.name}: the audit log cannot be written, so nothing is moved")
            )
        request.devices.add(proposal.device_id)
        proposal = replace(proposal, arguments=_object(decision.arguments))
        if isinstance(decision, NeedsConfirmation):
            assert profile is not None  # noqa: S101 - no decision but a refusal without one
            return await self._ask(proposal, profile)
        running = self._reserve(proposal, decision, request, now)
        return await self._send(running, decision.spec, request, later, cancellation)

    def pending(self, speaker: str) -> tuple[Pending, ...]:
        """Return what waits for a person at this device, oldest first."""
        return self._confirmations.of(speaker)

    async def settle(self, speaker: str, pending_id: str, *, approve: bool) -> Pending:
        """Take a person's answer to a pending action.

        Raises:
            ContractError: `not_confirmed`: nothing of that id waits for this device, or it has expired or was settled,
                or no yes counts there.
        """
        if approve and not self._permissions.may_approve(speaker):
            request_id = pending_id if is_id(pending_id) else None
            raise ContractError("not_confirmed", no_yes_of(speaker), device_id=speaker, request_id=request_id)
        pending = await self._confirmations.settle(speaker, pending_id, approve=approve)
        self._trail.record("approved" if approve else "denied", pending.proposal, pending.id)
        return pending

    def stop(self, device_id: str | None, *, request_id: str, speaker: str) -> tuple[str, ...]:
        """Send the emergency stop to one device, or to all; never waits. Return whom it was sent to."""
        targets = self._everybody(speaker) if device_id is None else (device_id,)
        sent = tuple(self._send_stop(target, request_id) for target in targets if is_id(target))
        for action in sent:
            self._stopped(action, speaker)
        self._take_back(device_id)
        return tuple(action.device_id for action in sent)

    def take_result(self, result: ActionResult) -> None:
        """Take what a device says became of an action. Only the first, of the right device and in time, counts."""
        self._see(result.device_id)
        now = self._clock.monotonic()
        match, running = self._roll.match(result, now)
        if running is None:
            self._trail.ignore(result, match)
            return
        ending = _ending_of(result)
        waited_for = running.end(ending)
        reason = ending.message if waited_for else f"{ending.message} (it came when nobody waited for it)".strip()
        self._trail.record(
            "done" if ending.status == "done" else "failed",
            running.proposal,
            running.action.id,
            code=ending.code,
            reason=reason or None,
            result=ending.result,
        )

    def take_status(self, status: DeviceStatus) -> None:
        """Learn that a device came or went. Who waits for one that went is told so; its groups stay blocked."""
        self._see(status.device_id)
        if status.status != "offline":
            return
        for running in self._roll.of(status.device_id, self._clock.monotonic()):
            name = running.action.name
            message = f"{status.device_id} went offline before it said whether {name} was done"
            self._end(running, Ending(status="unanswered", code="device_offline", message=message))

    def _reserve(self, proposal: Proposal, cleared: Cleared, request: Request, now: float) -> Running:
        """Give a cleared action its place. Nothing here waits, from the decision on."""
        spec = cleared.spec
        ttl_ms = max(1, int(cleared.left_s * 1000))
        # Arguments of its own: what whoever proposed it does with theirs must not reach the wire.
        action = self._action(proposal.device_id, proposal.request_id, spec.name, _object(cleared.arguments), ttl_ms)
        running = Running(
            action=action,
            proposal=proposal,
            group=spec.group,
            begin_by=now + ttl_ms / 1000,
            until=now + spec.ttl_ms / 1000,
            ending=asyncio.get_running_loop().create_future(),
        )
        self._pace.count(proposal.device_id, spec, request, now)
        self._roll.add(running)
        self._unsent.add(running)
        return running

    async def _send(
        self,
        running: Running,
        spec: ActionSpec,
        request: Request,
        later: tuple[Proposal, ...],
        cancellation: Cancellation | None,
    ) -> Outcome:
        """Journal an action that has its place, then publish it, and wait for what becomes of it.

        A stop, a loss of its device, another declaration, or the end of its time that came while the disk was waited
        for wins.
        """
        problem: StorageError | None = None
        try:
            await self._journal.begin(running.action, replace(running.proposal, later=later))
        except StorageError as exc:
            problem = exc
        except BaseException:
            self._roll.give_up(running)
            raise
        finally:
            self._unsent.discard(running)
        if request.stopped:
            running.end(Ending(status="stopped"))
        profile = self._registry.profile(running.action.device_id)
        if profile is None or profile.actions.get(spec.name) != spec:
            running.end(Ending(status="failed", code="unknown_action"))
        if problem is None and not self._is_overtaken(running, cancellation):
            self._trail.record("sent", running.proposal, running.action.id)
            left_s = running.begin_by - self._clock.monotonic()
            self._publisher.publish(replace(running.action, ttl_ms=max(1, round(left_s * 1000))))
            return await self._wait(running, cancellation, left_s)
        self._roll.give_up(running)
        outcome = self._not_sent(running, problem, cancellation)
        if problem is None:
            self._journal.end(outcome)
        return outcome

    def _is_overtaken(self, running: Running, cancellation: Cancellation | None) -> bool:
        is_cancelled = cancellation is not None and cancellation.cause is not None
        return running.ending.done() or is_cancelled or self._clock.monotonic() >= running.begin_by

    def _not_sent(self, running: Running, problem: StorageError | None, cancellation: Cancellation | None) -> Outcome:
        """Say why an action that was cleared did not go out."""
        proposal, name = running.proposal, running.action.name
        ending = running.ending.result() if running.ending.done() else None
        if ending is not None and ending.status == "stopped":
            message = f"{name}: an emergency stop came before it was sent"
            self._trail.record("stopped", proposal, running.action.id, reason=message)
            return Outcome(proposal=proposal, id=running.action.id, status="stopped", message=message)
        if problem is not None:
            refused = Refused("internal", f"{name}: it cannot be journalled, so nothing is moved ({problem})")
        elif ending is not None and ending.code == "unknown_action":
            refused = Refused("unknown_action", f"{name}: {running.action.device_id} declares it otherwise by now")
        elif ending is not None:
            refused = Refused(ending.code or "device_offline", f"{name}: {running.action.device_id} went offline")
        elif cancellation is not None and cancellation.cause is not None:
            refused = Refused("expired", f"{name}: {_too_late(cancellation.cause)}")
        else:
            refused = Refused("expired", f"{name}: its time was over before it could be sent")
        return replace(self._refuse(proposal, refused), id=running.action.id)

    async def _wait(self, running: Running, cancellation: Cancellation | None, wait_s: float) -> Outcome:
        name, device_id = running.action.name, running.action.device_id

        def leave(cause: StopCause) -> None:
            message = f"{_too_late(cause)} before {device_id} said whether {name} was done"
            self._end(running, Ending(status="unanswered", message=message))

        if cancellation is not None:
            cancellation.subscribe(leave)
        try:
            async with asyncio.timeout(wait_s):
                await asyncio.shield(running.ending)
        except TimeoutError:
            message = f"{device_id} did not say within {wait_s:.3g} s whether {name} was done"
            self._end(running, Ending(status="unanswered", message=message))
        except asyncio.CancelledError:
            leave("cancelled")
            raise
        ending = running.ending.result()
        outcome = Outcome(
            proposal=running.proposal,
            id=running.action.id,
            status=ending.status,
            code=ending.code,
            message=ending.message,
            result=ending.result,
        )
        self._journal.end(outcome)
        return outcome

    def _end(self, running: Running, ending: Ending) -> None:
        if running.end(ending) and running not in self._unsent:
            event: AuditEvent = "stopped" if ending.status == "stopped" else "unanswered"
            self._trail.record(event, running.proposal, running.action.id, code=ending.code, reason=ending.message)

    async def _ask(self, proposal: Proposal, profile: DeviceProfile) -> Outcome:
        """Keep it, and ask a person. What is not on disk is not asked: an answer to it could not be kept either."""
        pending_id = approval_id(profile.actions[proposal.name])
        question = shown(self._question(proposal, profile), MAX_QUESTION_CHARS)
        try:
            pending = await self._confirmations.ask(pending_id, proposal, question)
        except ContractError as exc:
            return self._refuse(proposal, Refused(exc.code, str(exc)))
        except StorageError as exc:
            return self._refuse(proposal, Refused("internal", f"{proposal.name}: cannot be asked about: {exc}"))
        if pending is None:
            self._news.set()
            return self._refuse(proposal, Refused("expired", f"{proposal.name}: an emergency stop came: not done"))
        self._trail.record("pending", proposal, pending.id, reason=question)
        self._publisher.publish(
            ActionPending(
                device_id=proposal.speaker,
                id=pending.id,
                request_id=proposal.request_id,
                name=proposal.name,
                arguments=pending.proposal.arguments,
                question=question,
                expires_at=pending.expires_at,
            )
        )
        self._news.set()
        return Outcome(proposal=proposal, id=pending.id, status="pending", question=question)

    def _refuse(self, proposal: Proposal, refused: Refused) -> Outcome:
        outcome = Outcome(proposal=proposal, id=_new_id(), status="refused", code=refused.code, message=refused.message)
        self._trail.refuse("refused", proposal, outcome.id, code=refused.code, message=refused.message)
        return outcome

    def _unfinished(self, device_id: str, now: float) -> tuple[tuple[str, str | None], ...]:
        """Return what a device has not finished, as (name, group); a stop that it has not answered blocks nothing."""
        return tuple(
            (each.action.name, each.group) for each in self._roll.of(device_id, now) if each.action.name != STOP
        )

    async def _perform_stop(self, proposal: Proposal, cancellation: Cancellation | None) -> Outcome:
        action = self._send_stop(proposal.device_id, proposal.request_id)
        running = self._stopped(action, proposal.speaker, proposal)
        self._take_back(proposal.device_id)
        return await self._wait(running, cancellation, _STOP_ANSWER_S)

    def _send_stop(self, device_id: str, request_id: str) -> Action:
        # A request id that cannot be written must not keep a stop from being sent.
        action = self._action(device_id, request_id if is_id(request_id) else _new_id(), STOP, {}, STOP_TTL_MS)
        self._publisher.publish(action)
        return action

    def _stopped(self, action: Action, speaker: str, proposal: Proposal | None = None) -> Running:
        """Draw the consequences of a stop that was sent."""
        device_id = action.device_id
        wish = proposal or Proposal(
            device_id=device_id, name=STOP, request_id=action.request_id, speaker=speaker, by="stop"
        )
        self._trail.record("sent", wish, action.id)
        for each in self._roll.clear(device_id):
            if each.action.name == STOP:
                message = f"{device_id} was sent another stop before it answered this one"
                self._end(each, Ending(status="unanswered", message=message))
            else:
                message = f"{device_id} was stopped while {each.action.name} was under way"
                self._end(each, Ending(status="stopped", message=message))
        until = self._clock.monotonic() + STOP_TTL_MS / 1000
        running = Running(
            action=action,
            proposal=wish,
            group=None,
            begin_by=until,
            until=until,
            ending=asyncio.get_running_loop().create_future(),
        )
        self._roll.add(running)
        return running

    def _take_back(self, device_id: str | None) -> None:
        """End the requests that moved a device or came through it, and what waits for a yes; None: of everybody."""
        self._requests.stop(device_id)
        for pending in self._confirmations.withdraw(device_id):
            self._trail.record("stopped", pending.proposal, pending.id, reason="withdrawn by an emergency stop")
            self._on_withdrawn(pending)
        self._news.set()

    def _everybody(self, speaker: str) -> tuple[str, ...]:
        """Return everybody who may be moving, those who surely are first."""
        # Not every speaker is a device: the topic of the whole fleet names none.
        mine = (speaker,) if speaker in self._seen else ()
        known = (profile.device_id for profile in self._registry.profiles())
        return tuple(dict.fromkeys((*self._roll.devices(), *mine, *known, *reversed(self._seen))))

    def _action(
        self, device_id: str, request_id: str, name: str, arguments: dict[str, JsonValue], ttl_ms: int
    ) -> Action:
        now = self._clock.now()
        # Seconds since 1970 to begin with: higher than before a restart, and within 32 bits for small devices.
        seq = max(self._seen.get(device_id, 0) + 1, int(now.timestamp()))
        self._see(device_id, seq)
        return Action(
            device_id=device_id,
            id=_new_id(),
            request_id=request_id,
            name=name,
            arguments=arguments,
            expires_at=rfc3339(now + timedelta(milliseconds=ttl_ms)),
            seq=seq,
            ttl_ms=ttl_ms,
        )

    def _see(self, device_id: str, seq: int | None = None) -> None:
        if not is_id(device_id):
            return
        self._seen[device_id] = self._seen.get(device_id, 0) if seq is None else seq
        self._seen.move_to_end(device_id)
        while len(self._seen) > _MAX_SEEN:
            self._seen.popitem(last=False)


def _ending_of(result: ActionResult) -> Ending:
    """Return what a device's result says, in bounds."""
    value, note = result.result, ""
    try:
        value = parsed(canonical(value, "result", max_bytes=_MAX_RESULT_BYTES))
    except ValueError as exc:
        value, note = None, f"what it returned was left out ({shown(exc, 120)})"
    if result.ok:
        return Ending(status="done", message=note, result=value)
    said = shown(result.error, 300) if result.error else "it did not say why"
    return Ending(status="failed", code="action_failed", message=f"{said}; {note}" if note else said, result=value)


def _too_late(cause: StopCause) -> str:
    return "the time for the answer was over" if cause == "deadline" else "the request was cancelled"


def _object(text: str) -> dict[str, JsonValue]:
    value = parsed(text)
    assert isinstance(value, dict)  # noqa: S101 - the text is of arguments
    return value


def _new_id() -> str:
    return secrets.token_hex(12)
