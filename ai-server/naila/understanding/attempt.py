"""An attempt: one frame, the words that it is tried on, and what they have given it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from naila.events import JsonValue
from naila.fleet import DeviceView
from naila.understanding.frames import Frame, Slot
from naila.understanding.quantities import Token

_NEAR: Final = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """An argument that is not allowed.

    Attributes:
        code: as in the contract's errors.
        argument: which.
        asked: in words.
        allowed: in words.
    """

    code: Literal["out_of_range", "bad_arguments"]
    argument: str
    asked: str
    allowed: str


@dataclass(slots=True)
class Filling:
    """What words give to a frame.

    Attributes:
        arguments: by name, in the declared unit.
        used: places of the words that gave them.
        named: places of words that only name the argument.
        attributes: what is to change, where it was said as `faster`.
        evidence: how much they speak for the frame.
        missing: required arguments that were not given.
        problems: what was given and is not allowed.
        support: numbers that the words support, by argument.
    """

    arguments: dict[str, JsonValue] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    named: set[int] = field(default_factory=set)
    attributes: frozenset[str] = frozenset()
    evidence: float = 0.0
    missing: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    support: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A frame and the words that it is tried on.

    Attributes:
        frame: what may be meant.
        tokens: the words.
        texts: the same, as they were said.
        lemmas: the same, their base forms.
        taken: places of words that mean something else.
        view: the frame's device, now.
        slots: arguments that are not known yet.
        filling: what the words have given so far.
    """

    frame: Frame
    tokens: Sequence[Token]
    texts: Sequence[str]
    lemmas: Sequence[str]
    taken: set[int]
    view: DeviceView
    slots: tuple[Slot, ...]
    filling: Filling

    def is_free(self, at: int) -> bool:
        """Whether a word has not been understood as something yet."""
        return at not in self.taken and at not in self.filling.used

    def open_numbers(self) -> list[Slot]:
        """Return the numeric arguments that were not given yet."""
        return [slot for slot in self.slots if slot.kind == "number" and slot.name not in self.filling.arguments]

    def give(self, slot: Slot, value: JsonValue, places: range, evidence: float) -> None:
        """Take an argument from the words at some places."""
        self.filling.arguments[slot.name] = value
        self.filling.used.update(places)
        self.filling.evidence += evidence
        for at in places:
            self._explain_name(slot, at)

    def only_setting(self) -> Slot | None:
        """Return the number that the action sets, where it is its only one."""
        numbers = [slot for slot in self.slots if slot.kind == "number"]
        return numbers[0] if len(numbers) == 1 and self.frame.is_setting else None

    def nouns_of(self, slot: Slot) -> frozenset[str]:
        """Return the words that an argument goes by in this action."""
        if slot is not self.only_setting():
            return slot.nouns
        return slot.nouns | self.frame.own | {word for word, weight in self.frame.nouns.items() if weight > 0.5}

    def _explain_name(self, slot: Slot, at: int) -> None:
        for place in range(max(0, at - _NEAR), min(len(self.tokens), at + _NEAR)):
            if self.lemmas[place] in slot.nouns and self.tokens[place].amount is None:
                self.filling.named.add(place)


def has_range(slot: Slot) -> bool:
    """Whether an argument has both a smallest and a largest value."""
    return slot.minimum is not None and slot.maximum is not None


def within(slot: Slot, share: float) -> float:
    """Return the value that lies at a share of an argument's range, 0 to 1."""
    low, high = slot.minimum or 0.0, slot.maximum or 0.0
    return tidy(low + share * (high - low))


def clamped(slot: Slot, value: float) -> float:
    """Return the nearest value that is allowed."""
    if slot.minimum is not None:
        value = max(value, slot.minimum)
    return value if slot.maximum is None else min(value, slot.maximum)


def tidy(value: float) -> float:
    """Return a value without the noise of arithmetic."""
    return float(f"{value:.6g}")
