"""Filling: the arguments that words give to a frame, in the units and ranges that its device declared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from naila.config.lexicon import Lexicon
from naila.events import JsonValue
from naila.fleet import DeviceView
from naila.understanding.amounts import Amounts
from naila.understanding.attempt import Attempt, Filling, Problem
from naila.understanding.changes import Changes
from naila.understanding.frames import Frame, Slot
from naila.understanding.quantities import Token, Units
from naila.understanding.related import Related
from naila.understanding.shares import Shares
from naila.understanding.values import read_values

_VALUE = "value"
_DIRECTED = 0.3


class Filler:
    """Finds arguments in words.

    Args:
        lexicon: the language.
        units: its units.
        related: words that may stand for each other.
    """

    def __init__(self, lexicon: Lexicon, units: Units, related: Related) -> None:
        self.related = related
        self.units = units
        self._amounts = Amounts(lexicon, units)
        self._changes = Changes(lexicon, self._amounts, related)
        self._shares = Shares(lexicon, units)
        self._opposites = lexicon.opposites

    def fill(
        self,
        frame: Frame,
        tokens: Sequence[Token],
        view: DeviceView,
        *,
        taken: set[int],
        given: Mapping[str, JsonValue],
    ) -> Filling:
        """Return the arguments that words give.

        Args:
            frame: what is to be done.
            tokens: the words.
            view: its device, now, for what is said relative to now.
            taken: places of words that mean something else.
            given: arguments that are known already.
        """
        filling = Filling(arguments=dict(given))
        attempt = Attempt(
            frame=frame,
            tokens=tokens,
            texts=[token.text for token in tokens],
            lemmas=[token.lemma for token in tokens],
            taken=taken,
            view=view,
            slots=tuple(slot for slot in frame.slots if slot.name not in given),
            filling=filling,
        )
        read_values(attempt)
        if attempt.open_numbers():
            self._shares.read_extremes(attempt)
            self._changes.read(attempt)
            self._amounts.read(attempt)
            self._shares.read(attempt)
            self._direct(attempt)
        self._shares.read_limits(attempt)
        self._shares.either_way(attempt)
        _switch_on(attempt)
        if frame.parameter is not None:
            _as_parameter(frame, filling)
        filling.problems = tuple(_problems(frame, filling))
        refused = {problem.argument for problem in filling.problems}
        filling.missing = tuple(
            name
            for slot in frame.slots
            if slot.required and (name := argument_name(frame, slot)) not in {*filling.arguments, *refused}
        )
        return filling

    def _direct(self, attempt: Attempt) -> None:
        """Give a number the sign of the direction that was said, where its declaration says which is positive."""
        for slot in attempt.slots:
            value = attempt.filling.arguments.get(slot.name)
            if slot.positive is None or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            for at, lemma in enumerate(attempt.lemmas):
                sense = self.related.sense((lemma,)) if attempt.is_free(at) else None
                if sense is None or sense not in {slot.positive, self._opposites.get(slot.positive)}:
                    continue
                attempt.give(slot, value if sense == slot.positive else -abs(value), range(at, at + 1), _DIRECTED)
                break


def _switch_on(attempt: Attempt) -> None:
    """Switch on what an example switches on by its verb alone: `mute`."""
    switch = next((slot for slot in attempt.slots if slot.is_switch and slot.required), None)
    if switch is not None and attempt.frame.switching.intersection(attempt.lemmas):
        ons = (choice.value for choice in switch.choices if str(choice.value).casefold() in {"on", "true"})
        attempt.filling.arguments.setdefault(switch.name, next(ons))


def argument_name(frame: Frame, slot: Slot) -> str:
    """Return what an argument is called in the action: `value` of every parameter."""
    return _VALUE if frame.parameter is not None else slot.name


def _as_parameter(frame: Frame, filling: Filling) -> None:
    """Make the value of a parameter the arguments of `set_parameter`."""
    slot = frame.slots[0]
    value, support = filling.arguments.get(slot.name), filling.support.get(slot.name)
    filling.arguments = {"name": frame.parameter} | ({} if value is None else {_VALUE: value})
    filling.support = {} if support is None else {_VALUE: support}


def _problems(frame: Frame, filling: Filling) -> list[Problem]:
    """Make numbers what the declaration wants, take out those that it does not allow, and say why."""
    found: list[Problem] = []
    for slot in frame.slots:
        name = argument_name(frame, slot)
        value = filling.arguments.get(name)
        if slot.kind != "number" or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if slot.integer and slot.unit is not None:
            value = math.floor(value + 0.5)
        problem = _problem(slot, name, value)
        if problem is not None:
            found.append(problem)
            del filling.arguments[name]
        else:
            filling.arguments[name] = int(value) if slot.integer else float(value)
    return found


def _problem(slot: Slot, name: str, value: float) -> Problem | None:
    if slot.integer and not float(value).is_integer():
        return Problem("bad_arguments", name, said_number(value, slot), "whole numbers")
    too_small = slot.minimum is not None and value < slot.minimum - 1e-9
    if too_small or (slot.maximum is not None and value > slot.maximum + 1e-9):
        return Problem("out_of_range", name, said_number(value, slot), said_range(slot))
    return None


def said_number(value: float, slot: Slot) -> str:
    """Return a value with its unit, as a person reads it."""
    return f"{value:.6g}" + _unit(slot)


def said_range(slot: Slot) -> str:
    """Return what a number may be, as a person reads it."""
    if slot.minimum is not None and slot.maximum is not None:
        return f"{slot.minimum:.6g} to {slot.maximum:.6g}{_unit(slot)}"
    if slot.minimum is not None:
        return f"at least {slot.minimum:.6g}{_unit(slot)}"
    return f"at most {slot.maximum:.6g}{_unit(slot)}" if slot.maximum is not None else "any number"


def said_choices(slot: Slot) -> str:
    """Return what a value may be, as a person reads it."""
    words = choice_words(slot)[:12]
    return " or ".join((", ".join(words[:-1]), words[-1]) if len(words) > 1 else words)


def choice_words(slot: Slot) -> tuple[str, ...]:
    """Return the values of an argument as words: `on` and `off` of a boolean."""
    booleans = {True: "on", False: "off"}
    return tuple(booleans[c.value] if isinstance(c.value, bool) else str(c.value) for c in slot.choices)


def _unit(slot: Slot) -> str:
    unit = slot.declared_unit or ""
    return unit if unit in {"%", "°"} else f" {unit}" if unit else ""
