"""Amounts: which argument a quantity is for, and how much it is in the unit of that argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from naila.config.lexicon import Lexicon
from naila.understanding.attempt import Attempt, clamped
from naila.understanding.frames import Slot
from naila.understanding.quantities import DEGREE, PERCENT, Amount, Units

_UNIT, _CLEAR_UNIT, _COUNT, _BARE = 0.4, 0.6, 0.4, 0.2
_NEAR: Final = 3
_MIDNIGHT: Final = 24
_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_HOLDING: Final = frozenset({"set", "put", "keep", "leave", "hold", "fix", "speed"})
_LINKS: Final = frozenset({"of", "to", "at", "is"})
_LASTING: Final = frozenset({"duration", "time", "second", "minute", "length", "long", "period"})

Candidate = tuple[Slot, float]


class Amounts:
    """Gives frames the quantities that were said.

    Args:
        lexicon: the language.
        units: its units.
    """

    def __init__(self, lexicon: Lexicon, units: Units) -> None:
        self._units = units
        self._customary = lexicon.customary

    def read(self, attempt: Attempt) -> None:
        """Give a frame the amounts that the words name."""
        frame, filling = attempt.frame, attempt.filling
        numbers = sum(slot.kind == "number" for slot in attempt.slots)
        for at, token in enumerate(attempt.tokens):
            amount = token.amount
            if amount is None and (found := _counted_by_noun(attempt, at)) is not None:
                attempt.give(*found, range(at, at + 1), _COUNT)
            if amount is None or not attempt.is_free(at) or _is_hour(attempt, at):
                continue
            candidates = [
                (slot, value)
                for slot in attempt.open_numbers()
                if self._may_last(attempt, slot, amount, at) and (value := self.value(slot, amount)) is not None
            ]
            for slot, value in candidates:
                filling.support[slot.name] = (*filling.support.get(slot.name, ()), value)
            chosen = _whose(attempt, candidates, amount, at)
            if chosen is None or (frame.is_setting and at and attempt.texts[at - 1] == "by" and chosen[0].unit):
                continue
            if amount.unit is not None:
                evidence = _CLEAR_UNIT if amount.unit == PERCENT or numbers == 1 else _UNIT
            else:
                evidence = _COUNT if amount.counted else _BARE
            attempt.give(chosen[0], chosen[1], range(at, at + 1), evidence)

    def value(self, slot: Slot, amount: Amount) -> float | None:
        """Return an amount in the unit of an argument, None where it cannot be one of it."""
        if amount.counted:
            return amount.value if slot.unit is None else None
        if amount.vague:
            customary = self.customary(slot)
            return None if customary is None else clamped(slot, customary * amount.value)
        if amount.unit is None or (amount.unit == DEGREE and (slot.unit or "").startswith("degree_")):
            return amount.value
        if slot.unit is None and amount.said.split()[-1].removesuffix("s") in slot.nouns:
            return amount.value  # `two cups` of a number of cups
        if slot.unit is None or (amount.unit == PERCENT and slot.unit != PERCENT):
            return None
        return self._units.convert(amount.value, amount.unit, slot.unit)

    def customary(self, slot: Slot) -> float | None:
        """Return how much "a bit" is for an argument."""
        if slot.unit is None:
            return None
        if slot.unit in self._customary:
            return self._customary[slot.unit]
        converted = (self._units.convert(value, unit, slot.unit) for unit, value in self._customary.items())
        return next((value for value in converted if value is not None), None)

    def _may_last(self, attempt: Attempt, slot: Slot, amount: Amount, at: int) -> bool:
        """Whether a time can be for an argument: never `in ten seconds`, `for ten seconds` where it is a duration."""
        if amount.unit is None or not at or self._units.convert(1, amount.unit, "second") is None:
            return True
        before = attempt.texts[at - 1]
        lasts = slot.required or bool(_LASTING & {*slot.nouns, slot.name.casefold().removesuffix("s")})
        return before not in {"in", "after"} and (before != "for" or lasts)


def _counted_by_noun(attempt: Attempt, at: int) -> tuple[Slot, int] | None:
    """Return the number that stands before the name of an argument: `a step` of `steps`, `third` of a `floor`."""
    if at + 1 >= len(attempt.tokens) or not attempt.is_free(at) or attempt.lemmas[at + 1] == attempt.texts[at]:
        return None
    noun, is_plural = attempt.lemmas[at + 1], attempt.texts[at + 1] != attempt.lemmas[at + 1]
    for slot in attempt.open_numbers():
        if not slot.integer or slot.unit is not None or noun not in slot.nouns or is_plural:
            continue
        if attempt.texts[at] in _ORDINALS:
            return slot, 1 + _ORDINALS.index(attempt.texts[at])
        if at and attempt.texts[at] in {"a", "an"} and slot.name.casefold().endswith(f"{noun}s"):
            return slot, 1
    return None


def _is_hour(attempt: Attempt, at: int) -> bool:
    """Whether a bare number may be a time of day: `turn up at eight`."""
    amount = attempt.tokens[at].amount
    is_bare = amount is not None and amount.unit is None and amount.value <= _MIDNIGHT
    return is_bare and at > 0 and attempt.texts[at - 1] == "at" and not _HOLDING & set(attempt.lemmas)


def _whose(attempt: Attempt, candidates: Sequence[Candidate], amount: Amount, at: int) -> Candidate | None:
    """Return which argument an amount is for, None where that is not clear."""
    near = {
        attempt.lemmas[place]
        for place in range(max(0, at - _NEAR), min(len(attempt.tokens), at + _NEAR))
        if attempt.tokens[place].amount is None
    }
    named = [each for each in candidates if each[0].nouns & near]
    required = [each for each in candidates if each[0].required]
    counted = [each for each in candidates if each[0].counts]
    if amount.counted:
        whole = [each for each in candidates if each[0].counts or each[0].integer]
        return _only(whole) or _only(counted)
    if amount.vague:
        return _only(required) or _only([each for each in named if each in required])
    if amount.unit is None:
        frame = attempt.frame
        before = next((lemma for lemma in reversed(attempt.lemmas[:at]) if lemma not in _LINKS), "")
        if led := _only([each for each in candidates if before in each[0].nouns]):
            return led
        follows = attempt.lemmas[at + 1] if at + 1 < len(attempt.tokens) else ""
        if counted and (follows in frame.verbs or follows in frame.nouns or len(candidates) == 1):
            return counted[0]
        measured = [each for each in required if not each[0].counts]
        return _only(named) or _only(measured or required) or _only([each for each in measured if each in named])
    return _only(candidates) or _only(named) or (None if len(named) > 1 else _only(required))


def _only(candidates: Sequence[Candidate]) -> Candidate | None:
    return candidates[0] if len(candidates) == 1 else None
