"""Shares: amounts that are said as a part of what is possible: `full brightness`, `half a turn`, `slowly`, `around`."""

from __future__ import annotations

from typing import Final

from naila.config.lexicon import Lexicon
from naila.understanding.attempt import Attempt, clamped, has_range, tidy, within
from naila.understanding.frames import Slot
from naila.understanding.quantities import DEGREE, PERCENT, Units
from naila.understanding.words import Phrases

_EVIDENCE: Final = 0.3
_AIMED: Final = 0.6
_NEAR: Final = 3
_ROUND: Final = frozenset({"turn", "circle", "rotation", "spin"})
_PARTS: Final = frozenset({"full", "complete", "half", "quarter"})
_HALF: Final = 0.5
_UP, _DOWN = ["up"], ["down"]
_ABLE: Final = ("you can", "possible", "you are able to", "you possibly can", "it gets", "it goes", "it can be")
_LOW: Final = frozenset({"dim", "dark", "low", "cold", "cool", "quiet", "close", "near"})
_OPPOSITES: Final = ({("left",), ("right",)}, {("clockwise",), ("counterclockwise",)})


class Shares:
    """Gives frames what was said as a part of what is possible.

    Args:
        lexicon: the language.
        units: its units.
    """

    def __init__(self, lexicon: Lexicon, units: Units) -> None:
        self._units = units
        self._extremes = lexicon.extremes
        self._extreme_phrases = Phrases(words for words in lexicon.extremes if " " in words)
        self._manner = lexicon.manner
        self._manners = Phrases(lexicon.manner)
        self._adjectives = lexicon.state.adjectives
        self._ables = Phrases(f"as {words}" for words in _ABLE)
        self._low = frozenset(word for word, (_, sign) in lexicon.relative.items() if sign < 0) | _LOW
        self._turns = ((Phrases(lexicon.whole_turns), 360.0), (Phrases(lexicon.half_turns), 180.0))

    def read_extremes(self, attempt: Attempt) -> None:
        """Read `all the way up`, before the `up` in it is taken for a change."""
        for at in range(len(attempt.texts)):
            length = self._extreme_phrases.at(attempt.texts, at) if attempt.frame.is_setting else 0
            if length:
                share = self._extremes[" ".join(attempt.texts[at : at + length])]
                is_open = attempt.texts[at + length - 1] == "way"
                is_low = is_open and share == 1 and self._low & {*attempt.texts, *attempt.lemmas}
                share = 0.0 if is_low else share
                self._give(attempt, range(at, at + length), share)

    def read(self, attempt: Attempt) -> None:
        """Read `full brightness`, `half speed`, `50 % speed`, `slowly`, `turn around`."""
        if not attempt.frame.is_setting:
            self._read_turns(attempt)
        for at, token in enumerate(attempt.tokens):
            share = token.share
            if token.amount is not None and token.amount.unit == PERCENT:
                share = token.amount.value / 100
            names_it = attempt.frame.parameter is not None and token.lemma in attempt.frame.own
            if share is not None and attempt.is_free(at) and not names_it:
                self._give(attempt, range(at, at + 1), share)
        self.read_limits(attempt)
        self._read_manners(attempt)

    @staticmethod
    def _give(attempt: Attempt, places: range, share: float) -> None:
        around = range(max(0, places.start - _NEAR), min(len(attempt.tokens), places.stop + _NEAR))
        untaken = [at for at in range(places.start) if at not in attempt.taken]
        near = {attempt.lemmas[at] for at in (*around, *untaken[-_NEAR:]) if at not in places}
        open_numbers = [slot for slot in attempt.open_numbers() if has_range(slot)]
        whose = [slot for slot in open_numbers if near & attempt.nouns_of(slot)]
        is_share = attempt.tokens[places.start].amount is None
        open_numbers = [slot for slot in open_numbers if is_share or slot.unit == PERCENT]
        if not whose and attempt.only_setting() and _is_aimed(attempt, places.start):
            is_bare = _is_halfway(attempt, places.start)
            whose = [slot for slot in open_numbers if slot.unit == PERCENT or not is_bare]
        if len(whose) == 1:
            slot = whose[0]
            full = 100.0 if slot.unit == PERCENT and share not in {0.0, 1.0} else slot.maximum or 0.0
            value = (slot.minimum or 0.0) if share == 0 else full * share
            evidence = _AIMED if _is_aimed(attempt, places.start) else _EVIDENCE
            attempt.give(slot, clamped(slot, tidy(value)), places, evidence)
            if _is_halfway(attempt, places.start) and attempt.texts[places.stop : places.stop + 1] in (_UP, _DOWN):
                attempt.filling.used.add(places.stop)

    def _read_manners(self, attempt: Attempt) -> None:
        for at in range(len(attempt.texts)):
            length = self._manners.at(attempt.texts, at) if attempt.is_free(at) else 0
            if not length:
                continue
            attribute, share = self._manner[" ".join(attempt.texts[at : at + length])]
            for slot in attempt.open_numbers():
                if not slot.required and attribute in slot.nouns and has_range(slot):
                    attempt.give(slot, within(slot, share), range(at, at + length), 0.0)
                    break

    def read_limits(self, attempt: Attempt) -> None:
        """Read `as hard as you can`; where nothing can be that much, it only says to hurry."""
        for at in range(len(attempt.texts) - 3):
            length = self._ables.at(attempt.texts, at + 2)
            if attempt.texts[at] != "as" or not length or not attempt.is_free(at + 1):
                continue
            attribute, share = self._limit(attempt.texts[at + 1], attempt.lemmas[at + 1])
            if attribute is None:
                continue
            places = range(at, at + 2 + length)
            attempt.filling.named.update(places)
            for slot in attempt.open_numbers():
                may_be = not slot.required or attempt.frame.is_setting
                if may_be and attribute in attempt.nouns_of(slot) and has_range(slot):
                    attempt.give(slot, within(slot, share), places, _EVIDENCE)
                    break

    def _limit(self, text: str, lemma: str) -> tuple[str | None, float]:
        """Return what a word such as `hard`, `dim` is about, and which end of its range it means."""
        attribute, share = self._manner.get(text, (self._adjectives.get(lemma), 1.0))
        return attribute, 0.0 if share < _HALF or text in self._low else 1.0

    def _read_turns(self, attempt: Attempt) -> None:
        angle = self._angle(attempt)
        if angle is None or len(attempt.tokens) < 2:
            return
        self._read_parts(attempt, angle)
        for phrases, degrees in self._turns:
            for at in range(len(attempt.texts)):
                length = phrases.at(attempt.texts, at) if attempt.is_free(at) else 0
                if length:
                    rounds = _rounds(attempt, at + length)
                    end = at + length + int(rounds is not None)
                    self._turn(attempt, angle, degrees if rounds is None else 360.0 * rounds, range(at, end))

    def _angle(self, attempt: Attempt) -> Slot | None:
        return next(
            (
                slot
                for slot in attempt.slots
                if slot.kind == "number" and slot.required and self._degrees(slot, 1.0) is not None
            ),
            None,
        )

    def _degrees(self, slot: Slot, degrees: float) -> float | None:
        return None if slot.unit is None else self._units.convert(degrees, DEGREE, slot.unit)

    def _read_parts(self, attempt: Attempt, angle: Slot) -> None:
        """Read `a full clockwise turn`."""
        for at, token in enumerate(attempt.tokens):
            ahead = [
                place for place in range(at + 1, min(at + 4, len(attempt.tokens))) if attempt.lemmas[place] in _ROUND
            ]
            if token.share and token.text in _PARTS and (ahead or _is_quarter(attempt, at)):
                self._turn(attempt, angle, 360.0 * token.share, range(at, at + 1))
                attempt.filling.named.update(ahead[:1])
                return

    def _turn(self, attempt: Attempt, angle: Slot, degrees: float, places: range) -> None:
        """Take an angle, unless one was said in figures: `spin around by 90 degrees`."""
        value = self._degrees(angle, degrees)
        if value is not None:
            attempt.filling.arguments.setdefault(angle.name, value)
            attempt.filling.used.update(places)

    def either_way(self, attempt: Attempt) -> None:
        """Choose a direction where a half or whole turn leaves no difference."""
        arguments = attempt.filling.arguments
        angle = next((slot for slot in attempt.frame.slots if slot.kind == "number" and slot.unit == DEGREE), None)
        value = arguments.get(angle.name) if angle else None
        in_degrees = any(token.amount and token.amount.unit == DEGREE for token in attempt.tokens)
        if not isinstance(value, int | float) or value <= 0 or value % 180 or in_degrees:
            return
        for slot in attempt.frame.slots:
            values = {words for choice in slot.choices for words, _ in choice.phrases}
            two_ways = len(slot.choices) == 2 and any(both <= values for both in _OPPOSITES)
            if slot.required and two_ways and slot.name not in arguments:
                arguments[slot.name] = slot.choices[0].value


def _is_quarter(attempt: Attempt, at: int) -> bool:
    """Whether it is the `a quarter` of `turn a quarter to the left`."""
    is_part_of = attempt.texts[at + 1 : at + 2] in (["of"], ["past"])
    turns = any(lemma in _ROUND or lemma == "rotate" for lemma in attempt.lemmas[:at])
    is_said = attempt.texts[max(0, at - 1) : at + 1] == ["a", "quarter"]
    return is_said and turns and not (is_part_of or _is_aimed(attempt, at))


def _rounds(attempt: Attempt, at: int) -> float | None:
    """Return how often somebody is to go all the way round: the `once` of `spin round once`."""
    amount = attempt.tokens[at].amount if at < len(attempt.tokens) else None
    return amount.value if amount is not None and amount.counted and attempt.is_free(at) else None


def _is_halfway(attempt: Attempt, at: int) -> bool:
    return attempt.texts[at] == "halfway" or attempt.texts[at : at + 2] == ["half", "way"]


def _is_aimed(attempt: Attempt, at: int) -> bool:
    """Whether a share is said to be where a setting should come to: `to a quarter`."""
    before = at - 1 - int(at > 1 and attempt.texts[at - 1] in {"a", "one"})
    return _is_halfway(attempt, at) or (before >= 0 and attempt.texts[before] in {"to", "at"})
