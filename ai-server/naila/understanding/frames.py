"""Frames: what a device declared, in the form in which wishes are compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from naila.events import JsonValue

WAYS: Final[Mapping[str, frozenset[str]]] = {
    "up": frozenset({"up", "upward", "raise", "lift"}),
    "down": frozenset({"down", "downward", "lower"}),
}
MOVERS: Final = frozenset({"pull", "put", "let", "bring", "move", "roll", "get", "take", "wind", "draw", "go", "come"})

SlotKind = Literal["number", "choice", "other"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of an argument, and the words for it.

    Attributes:
        value: as declared.
        phrases: each a sequence of base forms, with how close it is: 1 as declared, less for other words.
    """

    value: JsonValue
    phrases: tuple[tuple[tuple[str, ...], float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An argument of an action.

    Attributes:
        name: as declared.
        kind: what can fill it; `other` cannot be said.
        required: whether the action needs it.
        integer: only whole numbers.
        unit: as the quantity library calls it.
        declared_unit: as the device calls it.
        minimum: smallest value.
        maximum: largest value.
        choices: the values, where they are counted up.
        nouns: base forms of words for it.
        counts: it is a number of times.
        senses: kinds of words that its values belong to: `colour`, `state`, `direction`.
        positive: the direction in which it is positive, where it is declared.
    """

    name: str
    kind: SlotKind
    required: bool = False
    integer: bool = False
    unit: str | None = None
    declared_unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Choice, ...] = ()
    nouns: frozenset[str] = frozenset()
    counts: bool = False
    senses: frozenset[str] = frozenset()
    positive: str | None = None

    @property
    def is_switch(self) -> bool:
        """Whether it is only on or off."""
        values = {str(choice.value).casefold() for choice in self.choices}
        return len(values) == 2 and values <= {"on", "off", "true", "false"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """An action, or a parameter that can be set, as people may speak of it.

    Attributes:
        device_id: whose.
        action: its name; `set_parameter` for a parameter.
        parameter: the parameter's name.
        writable: false for a parameter that nobody may set.
        verbs: base forms of verbs that stand for it, with how surely.
        nouns: base forms of other words that stand for it, with how surely.
        phrases: sequences of words that stand for it as a whole.
        templates: the examples, with a star for each value and amount.
        needs_verb: it is named by a verb of its own: a noun beside "do" or "set" is not enough.
        whole_verbs: verbs that an example gives alone.
        switching: verbs that alone switch it on: `mute`.
        object_verbs: verbs by which it is done to something, whatever that is: `grab it`.
        object_after: words that come before somebody that it is done to: `at` of `wave at somebody`.
        ways: `up` or `down`, where an example says that alone of the device: `blind up`.
        moved: the ways of all actions of the device: for its settings, they are no change.
        sets: it is named by what it sets: a value alone is enough.
        orders: an example says only how many of a value: `two coffees please`.
        states_itself: on or off alone is enough: it is about the whole device.
        is_setting: its number is where something is to be, not how far from here.
        slots: its arguments.
        own: base forms of all the words of its name.
        words: every word by which it might be meant.
    """

    device_id: str
    action: str
    parameter: str | None = None
    writable: bool = True
    verbs: Mapping[str, float] = field(default_factory=dict)
    nouns: Mapping[str, float] = field(default_factory=dict)
    phrases: frozenset[tuple[str, ...]] = frozenset()
    templates: frozenset[tuple[str, ...]] = frozenset()
    needs_verb: bool = False
    whole_verbs: frozenset[str] = frozenset()
    switching: frozenset[str] = frozenset()
    object_verbs: frozenset[str] = frozenset()
    object_after: frozenset[str] = frozenset()
    ways: frozenset[str] = frozenset()
    moved: frozenset[str] = frozenset()
    sets: bool = True
    orders: bool = False
    states_itself: bool = True
    is_setting: bool = False
    slots: tuple[Slot, ...] = ()
    own: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
