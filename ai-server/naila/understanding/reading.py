"""What a text was read as: the answer of `naila.understanding.reader`, and what it asks back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from naila.events import JsonValue

Certainty = Literal["template", "similarity"]
QuestionKind = Literal["argument", "device", "action"]
StateTopic = Literal["reading", "condition", "trend", "capabilities", "presence", "activity", "parameter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action that is wanted, with all that it needs.

    Attributes:
        device_id: who should do it.
        name: of the action.
        arguments: in the units of the declared schema; defaults that nobody named are left out.
        certainty: what recognised it.
    """

    device_id: str
    name: str
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    certainty: Certainty = "template"


@dataclass(frozen=True, slots=True)
class Commands:
    """Surely a command: its steps, in the order in which they were said."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenQuestion:
    """What is asked back, and what the answer will complete.

    Attributes:
        kind: what is missing or doubtful: an argument, which device, or which of several actions.
        device_id: who should do it, where that is known.
        action: which action, where that is known.
        argument: the missing argument's name.
        arguments: what was understood already.
        choices: what the answer may be, where few things are possible: enum values, device ids or action names.
        before: steps that were understood before the doubtful one; nothing is done until all of it is clear.
        after: the words that follow the doubtful step, read when it is clear.
        text: the words that were said.
    """

    kind: QuestionKind
    device_id: str | None = None
    action: str | None = None
    argument: str | None = None
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    before: tuple[Step, ...] = ()
    after: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class AskBack:
    """A command, but not a whole one: ask, and do nothing yet."""

    question: OpenQuestion


@dataclass(frozen=True, slots=True, kw_only=True)
class CannotDo:
    """A command that surely cannot be done: nobody declared it, or an argument lies outside what is allowed.

    Attributes:
        code: as in the contract's errors.
        device_id: who was asked, where known.
        action: which action, where known.
        argument: which argument, where one is the reason.
        asked: what was asked for, in words: `10 m`, `the attic`.
        allowed: what is allowed, in words: `0.05 to 3 m`, `dock, door, table or window`.
    """

    code: Literal["unknown_action", "out_of_range", "bad_arguments"]
    device_id: str | None = None
    action: str | None = None
    argument: str | None = None
    asked: str = ""
    allowed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Somebody is to stop moving.

    Attributes:
        device_ids: who; empty means everybody.
    """

    device_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateQuestion:
    """A question about a device that its telemetry or its declaration answers.

    Attributes:
        topic: what kind of thing is asked.
        device_id: about whom; None: about everybody.
        names: telemetry fields, parameters or actions that are asked about; empty where the topic needs none.
        adjective: for a condition ("is it warm?"), the word.
    """

    topic: StateTopic
    device_id: str | None = None
    names: tuple[str, ...] = ()
    adjective: str | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """The last command of this conversation again: "once more", "again"."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The open question is answered by "never mind"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubtful:
    """It sounds like a command, but nothing declared matches surely. A model that may act can be asked.

    Attributes:
        candidates: (device id, action name), the likeliest first; only these may be chosen.
        numbers: for each numeric argument by name, the values that the words support, in the schema's unit: none
            else may be chosen.
        clauses: how many steps the words can stand for; no more may be chosen.
    """

    candidates: tuple[tuple[str, str], ...] = ()
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    clauses: int = 1


@dataclass(frozen=True, slots=True)
class NotACommand:
    """Conversation: nothing is to be moved, whatever a model says."""


Reading: TypeAlias = Commands | AskBack | CannotDo | Stop | StateQuestion | Repeat | Withdrawn | Doubtful | NotACommand
