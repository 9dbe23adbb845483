"""What may move at all: the decision about one proposal, read from top to bottom.

Pure: it looks at a proposal and at what is given, and neither waits nor changes anything. Who proposed it (a pattern,
the model, the API, a schedule) counts only where the permissions say so. The emergency stop does not come here: nothing
may hold it up.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeAlias

from naila.config.permissions import Effect
from naila.devices.plain_json import canonical, named, parsed, shown
from naila.devices.schema import MAX_ARGUMENT_BYTES, violations
from naila.devices.schema_words import value_words
from naila.errors import ErrorCode
from naila.events import JsonValue
from naila.fleet import SET_PARAMETER, STOP, ActionSpec, DeviceProfile, Pending, Proposal, is_id

MAX_RUNNING: Final = 32
MAX_QUESTION_CHARS: Final = 1000
_MAX_ASKED_CHARS: Final = 300
_MAX_LISTED_CHARS: Final = 700


@dataclass(frozen=True, slots=True)
class Cleared:
    """It may be sent, now and as it is here.

    Attributes:
        spec: as the device declared it.
        arguments: the one JSON text of the arguments that were checked.
        left_s: how long it is still wanted, in seconds.
    """

    spec: ActionSpec
    arguments: str
    left_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """It must not be sent.

    Attributes:
        code: the contract's.
        message: what was asked and what is allowed.
    """

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class NeedsConfirmation:
    """It may be sent once a person has approved exactly this.

    Attributes:
        spec: as the device declared it.
        arguments: the one JSON text of the arguments that were checked.
    """

    spec: ActionSpec
    arguments: str


Decision: TypeAlias = Cleared | Refused | NeedsConfirmation


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a decision rests on, all of the same moment.

    Attributes:
        profile: what the device declared; None where it declared nothing.
        online: what its status says; None where it never said, which counts as there.
        permitted: tells what the permissions say.
        running: actions that the device has not finished, as (name, group).
        too_often: tells whether another one is too much, and why.
        may_approve: tells whether a person's yes counts at a device.
        approval: what the confirmation that the proposal names was given for, if it is open.
        stopped: an emergency stop ended the request that this comes from.
        now: seconds on the monotonic clock.
    """

    profile: DeviceProfile | None
    online: bool | None
    permitted: Callable[[DeviceProfile], Effect]
    running: tuple[tuple[str, str | None], ...]
    too_often: Callable[[ActionSpec], str | None]
    may_approve: Callable[[str], bool]
    approval: Pending | None
    stopped: bool
    now: float


def decide(proposal: Proposal, given: Circumstances) -> Decision:
    """Return what is to become of a proposal. The first rule that says something decides."""
    if (refused := _well_formed(proposal)) is not None:
        return refused
    profile = given.profile
    if profile is None:
        return Refused("unknown_action", f"no device {proposal.device_id!r} has said what it can do")
    spec = profile.actions.get(proposal.name)
    effect = given.permitted(profile)
    if (refused := _permitted(proposal, effect) or _present(profile, given)) is not None:
        return refused
    if spec is None:
        return _undeclared(proposal, profile)
    arguments = _arguments(proposal, spec)
    if isinstance(arguments, Refused):
        return arguments
    return (
        _wanted(proposal, given)
        or _paced(spec, given)
        or _alone(proposal, spec, given)
        or _confirmed(proposal, spec, effect, given, arguments)
        or Cleared(spec, arguments, left_s=_left_s(proposal, spec, given))
    )


def _well_formed(proposal: Proposal) -> Refused | None:
    """Everything that names something is an id; a name that only looks like one is none."""
    for field in ("device_id", "name", "request_id", "speaker"):
        value = getattr(proposal, field)
        if not is_id(value):
            code: ErrorCode = "unknown_action" if field in {"device_id", "name"} else "bad_arguments"
            asked = shown(repr(value), 80) if isinstance(value, str) else type(value).__name__
            return Refused(code, f"{field}: {asked} must be 1 to 64 letters, digits, '_' or '-'")
    if proposal.user_id is not None and not is_id(proposal.user_id):
        return Refused("bad_arguments", "user_id: must be 1 to 64 letters, digits, '_' or '-'")
    if proposal.name == STOP:
        return Refused("unknown_action", "stop: goes out on its own way, never through the envelope")
    return None


def _permitted(proposal: Proposal, effect: Effect) -> Refused | None:
    """Somebody allowed this speaker, and this person, to do this with that device."""
    if effect != "deny":
        return None
    who = proposal.speaker if proposal.user_id is None else f"{shown(proposal.user_id, 64)} at {proposal.speaker}"
    return Refused(
        "unknown_action",
        f"{who} may not have {proposal.device_id} do {proposal.name}: permissions.yaml denies it",
    )


def _undeclared(proposal: Proposal, profile: DeviceProfile) -> Refused:
    """Nothing moves that the device itself did not declare."""
    actions = ", ".join(shown(name, 64) for name in list(profile.actions)[:16]) or "nothing"
    return Refused("unknown_action", f"{_called(profile)} cannot do {proposal.name}; it declared {actions}")


def _present(profile: DeviceProfile, given: Circumstances) -> Refused | None:
    """The device is there, as far as anybody knows."""
    if given.online is not False:
        return None
    return Refused("device_offline", f"{_called(profile)} is offline: nothing was sent")


def _arguments(proposal: Proposal, spec: ActionSpec) -> str | Refused:
    """The arguments are plain JSON and valid: finite, in range, none missing, none that was not declared."""
    try:
        text = canonical(dict(proposal.arguments), spec.name, max_bytes=MAX_ARGUMENT_BYTES)
    except (TypeError, ValueError) as exc:
        return Refused("bad_arguments", shown(exc, 300))
    checked = parsed(text)
    found = violations(spec.parameters, checked if isinstance(checked, dict) else {})
    if found:
        return Refused(found[0].code, "; ".join(f"{spec.name}: {shown(one.message, 300)}" for one in found[:3]))
    return text


def _wanted(proposal: Proposal, given: Circumstances) -> Refused | None:
    """It is still wanted: its time is not over, and no stop came since."""
    if given.stopped:
        return Refused("expired", f"{proposal.name}: an emergency stop came; nothing more of this request is done")
    expires = proposal.expires_at_monotonic
    # Written so that what is no number does not pass.
    if expires is not None and not expires > given.now:
        return Refused("expired", f"{proposal.name}: wanted no longer, {given.now - expires:.1f} s too late")
    return None


def _paced(spec: ActionSpec, given: Circumstances) -> Refused | None:
    """It is not too soon after others, and not one too many."""
    message = given.too_often(spec)
    return None if message is None else Refused("rate_limited", message)


def _alone(proposal: Proposal, spec: ActionSpec, given: Circumstances) -> Refused | None:
    """Nothing of its group runs, and not too much of anything."""
    for name, group in given.running:
        if spec.group is not None and group == spec.group:
            return Refused(
                "busy", f"{spec.name}: {proposal.device_id} is not done with {name}: wait for it, or stop it first"
            )
    if len(given.running) >= MAX_RUNNING:
        return Refused("busy", f"{spec.name}: {len(given.running)} actions of {proposal.device_id} run already")
    return None


def _confirmed(
    proposal: Proposal, spec: ActionSpec, effect: Effect, given: Circumstances, arguments: str
) -> Refused | NeedsConfirmation | None:
    """A person approved exactly this, where that is needed; an approval that is named must hold, needed or not."""
    if proposal.confirmation is None and not spec.confirm and effect != "confirm":
        return None
    if not given.may_approve(proposal.speaker):
        return Refused("not_confirmed", f"{spec.name}: {no_yes_of(proposal.speaker)}")
    if proposal.confirmation is None:
        return NeedsConfirmation(spec, arguments)
    if given.approval is None:
        return Refused("not_confirmed", f"{spec.name}: that approval was never given, was used, or has expired")
    approved = given.approval.proposal
    if not given.approval.id.endswith(_fingerprint(spec)):
        return Refused("not_confirmed", f"{spec.name}: {proposal.device_id} declares it otherwise now than when asked")
    if (approved.device_id, approved.name, approved.speaker) != (
        proposal.device_id,
        proposal.name,
        proposal.speaker,
    ) or _text(approved.arguments) != arguments:
        return Refused("not_confirmed", f"{spec.name}: something else was approved than what is to be done now")
    return None


def no_yes_of(speaker: str) -> str:
    """Say that nobody can approve anything through a device."""
    return f"it needs a person's yes, and no yes of {speaker} counts: permissions.yaml names the approvers"


def _left_s(proposal: Proposal, spec: ActionSpec, given: Circumstances) -> float:
    """Return how long it stays wanted: its time to live, or what is left of the request's."""
    left_s = spec.ttl_ms / 1000
    if proposal.expires_at_monotonic is None:
        return left_s
    return min(left_s, proposal.expires_at_monotonic - given.now)


def _text(arguments: Mapping[str, JsonValue]) -> str | None:
    try:
        return canonical(dict(arguments), "arguments", max_bytes=MAX_ARGUMENT_BYTES)
    except (TypeError, ValueError):
        return None


def approval_id(spec: ActionSpec) -> str:
    """Return an id for what waits for a yes: that holds only while the action is declared as it is now."""
    return secrets.token_hex(8) + _fingerprint(spec)


def _fingerprint(spec: ActionSpec) -> str:
    """Return what changes with everything that an approval rests on; how people may ask for it is not among that."""
    declared = (spec.name, spec.description, spec.parameters, spec.confirm, spec.ttl_ms, spec.group)
    return sha256(json.dumps(declared, sort_keys=True, default=dict).encode()).hexdigest()[:16]


def _called(profile: DeviceProfile) -> str:
    return named(profile.name) or profile.device_id


def question_of(proposal: Proposal, profile: DeviceProfile) -> str:
    """Return what a person is asked before something is done: exactly what it would be."""
    arguments = dict(proposal.arguments)
    if proposal.name == SET_PARAMETER:
        what, value = named(arguments.get("name")), _whole(arguments.get("value"))
        return f"Should {_called(profile)} really set {what} to {value}?"
    listed = _listed(arguments)
    what = proposal.name.replace("_", " ") + (f" ({listed})" if listed else "")
    return f"Should {_called(profile)} really do this: {what}?"


def _listed(arguments: Mapping[str, JsonValue]) -> str:
    """Return arguments for somebody who is to approve them; how many are left out is said."""
    words: list[str] = []
    for name, value in arguments.items():
        words.append(f"{named(name)} {_whole(value)}")
        if sum(map(len, words)) > _MAX_LISTED_CHARS and len(words) > 1:
            words.pop()
            break
    left = len(arguments) - len(words)
    return ", ".join(words) + (f" and {left} more arguments" if left else "")


def _whole(value: JsonValue) -> str:
    """Return a value for somebody who is to approve it: what does not fit is at least counted."""
    if isinstance(value, bool | int | float) or value is None:
        return value_words(value)
    text = value if isinstance(value, str) else canonical(value, "arguments", max_bytes=MAX_ARGUMENT_BYTES)
    left = len(text) - _MAX_ASKED_CHARS
    return f"{named(text, _MAX_ASKED_CHARS)}{f' and {left} more characters' if left > 0 else ''}"
