"""The fleet as everybody in the house speaks of it: what devices declared, what they measure, what is asked of them.

Parts of the contract's documents as frozen dataclasses; what decides about them is `naila.devices`, and how a wish is
understood `naila.understanding`. Everything a device or a person wrote (names, descriptions, texts) is data: shown,
compared, never obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from naila.errors import ErrorCode
from naila.events import ActionOutcome, JsonValue

# What may name a device, a request, a conversation, an action, ….
ID_RULE: Final = "[A-Za-z0-9_-]{1,64}"
# Bounds on what a device measures, and on what it calls its parts.
MAX_FIELDS: Final = 256
MAX_NAME_CHARS: Final = 64
MAX_TEXT_CHARS: Final = 256

STOP: Final = "stop"
SET_PARAMETER: Final = "set_parameter"

_ID: Final = re.compile(ID_RULE)
# Controls, line ends, marks of direction, invisible characters and halves of surrogate pairs. The joiners U+200C and
# U+200D stay: Persian and emoji need them.
_UNCLEAN: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)
_MAX_NAME_WORDS: Final = 4
_MARKS: Final = re.compile(r"\.(?:\s|$)|[:;!?\u2026\u201c\u201d\"<>|]")
# Who speaks of himself, or of what was done, tells something.
_TELLS: Final = re.compile(r"(?:i|we|my|our|done)(?:['\u2019]\w+)?", re.IGNORECASE)

ProposedBy = Literal["pattern", "similarity", "model", "api", "schedule", "alert", "stop"]
OutcomeStatus = Literal["done", "failed", "refused", "pending", "unanswered", "stopped"]
ParameterType = Literal["number", "integer", "boolean", "string"]
ReadingValue = float | int | bool | str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """An action that a device declared.

    Attributes:
        name: matches the contract's id rule.
        description: in the device's words.
        parameters: JSON Schema of the arguments, `type: object`, as declared; checked by `naila.devices.capabilities`.
        confirm: a person must approve each time.
        min_interval_ms: shortest time between two of them.
        ttl_ms: how long it stays wanted, and how long its result is waited for.
        group: actions of one group exclude each other while one runs.
        examples: what people say when they want it.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, JsonValue] = field(
        default_factory=lambda: {"type": "object", "properties": {}, "additionalProperties": False}
    )
    confirm: bool = False
    min_interval_ms: int = 0
    ttl_ms: int = 10_000
    group: str | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySpec:
    """A field of a device's telemetry, as declared.

    Attributes:
        unit: for example `°C`.
        description: in the device's words.
        minimum: below this is not normal.
        maximum: above this is not normal.
    """

    unit: str | None = None
    description: str = ""
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """A parameter of a device, set by the action `set_parameter` where it is writable.

    Attributes:
        type: of its value.
        minimum: smallest value.
        maximum: largest value.
        enum: the only values, where given.
        description: in the device's words.
        unit: for example `m/s`.
        writable: whether it may be set.
    """

    type: ParameterType
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[JsonValue, ...] = ()
    description: str = ""
    unit: str | None = None
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """What a device says that it is: its retained `capabilities`, checked.

    Attributes:
        device_id: whose, taken from the topic.
        name: what people call it.
        description: in the device's words.
        room: where it is.
        actions: by name; `set_parameter` is among them where a parameter is writable.
        telemetry: by field.
        parameters: by name.
    """

    device_id: str
    name: str
    description: str = ""
    room: str | None = None
    actions: Mapping[str, ActionSpec] = field(default_factory=dict)
    telemetry: Mapping[str, TelemetrySpec] = field(default_factory=dict)
    parameters: Mapping[str, ParameterSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """The latest value of a telemetry field.

    Attributes:
        value: as measured.
        age_s: seconds since it came.
        history: earlier values with their ages in seconds, oldest first, bounded; numbers only.
    """

    value: ReadingValue
    age_s: float
    history: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """One device, now.

    Attributes:
        profile: what it declared; empty but for its id and name where it declared nothing.
        online: what its status says; None where it never said.
        readings: latest telemetry by field.
        running: names of actions that it has not finished.
    """

    profile: DeviceProfile
    online: bool | None = None
    readings: Mapping[str, Reading] = field(default_factory=dict)
    running: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """When a device was last heard, and what it said of its presence.

    Attributes:
        device_id: which device.
        online: what its status said; None where it never said.
        heard_at: when anything came from it.
    """

    device_id: str
    online: bool | None
    heard_at: datetime


@dataclass(frozen=True, slots=True)
class FleetView:
    """The devices that a speaker can speak of, its own first.

    Attributes:
        speaker: id of the device through which somebody speaks; it need not have declared anything.
        devices: all of them; the speaker's own first, if it declared something.
    """

    speaker: str
    devices: tuple[DeviceView, ...] = ()

    def device(self, device_id: str) -> DeviceView | None:
        """Return one of them by id."""
        return next((view for view in self.devices if view.profile.device_id == device_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An action that somebody wants. It becomes one only through `naila.devices.envelope`.

    Attributes:
        device_id: who should do it.
        name: of the action.
        arguments: its arguments, unchecked.
        request_id: the request that it comes from.
        speaker: the device through which it was asked.
        user_id: which person asked, where known.
        by: what understood the wish as this.
        confirmation: id of the approval that a person gave for exactly this, if one did.
        expires_at_monotonic: after this it is no longer wanted, in seconds on the monotonic clock; None: only its
            time to live counts.
        later: what the same request wants after it, for the journal.
    """

    device_id: str
    name: str
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    request_id: str
    speaker: str
    user_id: str | None = None
    by: ProposedBy = "pattern"
    confirmation: str | None = None
    expires_at_monotonic: float | None = None
    later: tuple[Proposal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a proposal: never more than is known.

    Attributes:
        proposal: what was wanted.
        id: the action's id; a pending one's until it is approved.
        status: `done` and `failed` as the device said; `refused` before anything was sent; `pending` waits for a
            person; `unanswered`: sent, and nothing known since; `stopped`: an emergency stop came between.
        code: why it was refused or failed.
        message: the same in words: what was asked and what is allowed.
        result: what the device returned.
        question: what a person is asked, of a pending one.
    """

    proposal: Proposal
    id: str
    status: OutcomeStatus
    code: ErrorCode | None = None
    message: str = ""
    result: JsonValue = None
    question: str = ""

    def as_action(self) -> ActionOutcome:
        """Return what the reply says of it."""
        known = {"done": True, "failed": False, "refused": False, "stopped": False}
        return ActionOutcome(
            id=self.id,
            name=self.proposal.name,
            arguments=self.proposal.arguments,
            ok=known.get(self.status),
            result=self.result,
            error=self.message or None if self.status != "done" else None,
            device_id=self.proposal.device_id if self.proposal.device_id != self.proposal.speaker else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An action that waits for a person's approval. Kept on disk: it outlives the process.

    Attributes:
        id: what `confirm` names.
        proposal: exactly what is approved or not.
        question: what the person was asked.
        expires_at: RFC 3339 UTC.
    """

    id: str
    proposal: Proposal
    question: str
    expires_at: str


def is_id(value: object) -> bool:
    """Whether `value` may name a device, a request, a conversation, an action, …."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_clean(text: str) -> bool:
    """Whether text is what it looks like: one line, no controls, no marks of direction, nothing invisible."""
    return _UNCLEAN.search(text) is None


def on_one_line(text: str) -> str:
    """Return text as what it looks like: each run of what is not clean, or of spaces, is one space."""
    return " ".join(_UNCLEAN.sub(" ", text).split())


def is_name(text: str, *, max_words: int = _MAX_NAME_WORDS) -> bool:
    """Whether words may stand in a sentence of NAILA's as they are: others are shown as a quotation.

    A device may be called "Done: I drove forward", and so may its room and its modes; who hears that must know whose
    words they are.
    """
    words = text.split()
    return (
        len(words) <= max_words
        and _MARKS.search(text) is None
        and not (len(words) > 2 and any(_TELLS.fullmatch(word) for word in words))
    )
