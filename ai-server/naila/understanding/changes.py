"""Changes: settings that are to become more or less than they are: `brighter`, `turn it down a bit`, `up by 10 %`."""

from __future__ import annotations

from typing import Final

from naila.config.lexicon import Lexicon
from naila.understanding.amounts import Amounts
from naila.understanding.attempt import Attempt, clamped, has_range, tidy
from naila.understanding.frames import WAYS, Slot
from naila.understanding.related import Related
from naila.understanding.words import Phrases

_STEP: Final = 0.2
_EVIDENCE: Final = 0.6
_SURE: Final = 0.6
_LIFTS: Final = frozenset({"raise", "lift", "lower"})
_BY: Final = frozenset({"by", "more", "another", "further", "extra", "higher", "lower"})
_PRONOUNS: Final = frozenset({"it", "that", "this"})


class Changes:
    """Gives frames the settings that were said relative to the present ones.

    Args:
        lexicon: the language.
        amounts: knows how much was said.
        related: words that may stand for each other.
    """

    def __init__(self, lexicon: Lexicon, amounts: Amounts, related: Related) -> None:
        self._amounts = amounts
        self._related = related
        self._customary = lexicon.customary
        self._words = lexicon.relative
        self._factors = lexicon.factors
        self._adjectives = lexicon.state.adjectives
        self._phrases = Phrases(lexicon.relative)
        self._carriers = lexicon.carriers

    def read(self, attempt: Attempt) -> None:
        """Give a frame the new value of its setting; without a present one it stays missing, to be asked for."""
        slot = next((slot for slot in attempt.slots if slot.kind == "number"), None)
        if slot is None or not attempt.frame.is_setting or slot.name in attempt.filling.arguments:
            return
        about = attempt.nouns_of(slot) | attempt.frame.own
        if self._is_absolute(attempt):
            self._explain_verb(attempt, about)
            return
        if self._read_factor(attempt, slot, about):
            return
        for at in range(len(attempt.texts)):
            length = self._length(attempt, at)
            if length and self._is_open(attempt, range(at, at + length)):
                self._leave_open(attempt, range(at, at + length))
                return
            if length and self._change(attempt, slot, about, range(at, at + length)):
                return

    def _is_open(self, attempt: Attempt, places: range) -> bool:
        """Whether it is what an action does, not how a setting differs: `raise the forks` leaves open how high."""
        at, verbs = places.start, attempt.frame.verbs
        if attempt.frame.parameter is not None:
            return False
        first = attempt.lemmas[at]
        if first in _LIFTS and any(verbs.get(verb, 0.0) > _SURE for verb in _LIFTS):
            return not _BY & {text for place, text in enumerate(attempt.texts) if place != at}
        if any(first in WAYS[way] for way in attempt.frame.moved):
            return True
        doing = [first] if len(places) > 1 else attempt.lemmas[:at] if first in WAYS else []
        does = any(verb not in self._carriers and verbs.get(verb, 0.0) > _SURE for verb in doing)
        return does and not (_BY & set(attempt.texts) or any(token.amount for token in attempt.tokens))

    @staticmethod
    def _leave_open(attempt: Attempt, places: range) -> None:
        """Explain a verb and its amount, which may be a height or how much higher."""
        attempt.filling.used.update(places)
        attempt.filling.used.update(place for place, token in enumerate(attempt.tokens) if token.amount)
        attempt.filling.evidence += _EVIDENCE

    def _length(self, attempt: Attempt, at: int) -> int:
        if not attempt.is_free(at):
            return 0
        return self._phrases.at(attempt.texts, at) or self._phrases.at(attempt.lemmas, at)

    def _meaning(self, attempt: Attempt, places: range) -> tuple[str | None, int]:
        said = " ".join(attempt.texts[places.start : places.stop])
        base = " ".join(attempt.lemmas[places.start : places.stop])
        return self._words.get(said) or self._words[base]

    def _change(self, attempt: Attempt, slot: Slot, about: frozenset[str], places: range) -> bool:
        filling = attempt.filling
        attribute, sign = self._meaning(attempt, places)
        named = {attribute, *self._related.to(attribute)} if attribute else self._named(attempt)
        spoken_of = attribute is None and bool(attempt.taken or _PRONOUNS & set(attempt.texts))
        if not (about & named or spoken_of):
            return False
        used = {*places, *self._said_again(attempt, sign)}
        delta = self._delta(attempt, slot, used)
        if delta is None:
            return False
        filling.used.update(used | delta[1])
        filling.evidence += _EVIDENCE
        if attribute is not None:
            filling.attributes = frozenset({attribute, *self._related.to(attribute)})
        now = _present(attempt, slot)
        if now is not None:
            filling.arguments[slot.name] = clamped(slot, tidy(now + sign * delta[0]))
        return True

    def _read_factor(self, attempt: Attempt, slot: Slot, about: frozenset[str]) -> bool:
        """Read `twice as fast`, `halve the brightness`."""
        texts = attempt.texts
        for at, text in enumerate(texts):
            factor = self._factors.get(text) if attempt.is_free(at) else None
            if factor is None:
                continue
            length = 1
            named = self._named(attempt) if text not in {"half", "twice", "thrice"} else set()
            if texts[at + 1 : at + 2] == ["as"] and at + 2 < len(texts):
                attribute = self._adjectives.get(attempt.lemmas[at + 2], "")
                named, length = {attribute, *self._related.to(attribute)}, 3
                attempt.filling.attributes = frozenset(named)
            if not named & about:
                continue
            attempt.filling.used.update(range(at, at + length))
            attempt.filling.evidence += _EVIDENCE
            now = _present(attempt, slot)
            if now is not None:
                attempt.filling.arguments[slot.name] = tidy(now * factor)
            return True
        return False

    def _named(self, attempt: Attempt) -> set[str]:
        return {other for lemma in attempt.lemmas for other in (lemma, *self._related.to(lemma))}

    def _said_again(self, attempt: Attempt, sign: int) -> set[int]:
        """Return the places of other words for the same change: `turn … up`."""
        return {
            at
            for at, text in enumerate(attempt.texts)
            if at not in attempt.taken and (meaning := self._words.get(text)) is not None and meaning[1] == sign
        }

    @staticmethod
    def _is_absolute(attempt: Attempt) -> bool:
        """Whether it is said what the setting should come to: `dim to 20 %`."""
        tokens = attempt.tokens
        return any(
            text == "to" and any(next_.amount or next_.share is not None for next_ in tokens[at + 1 : at + 3])
            for at, text in enumerate(attempt.texts)
        )

    def _explain_verb(self, attempt: Attempt, about: frozenset[str]) -> None:
        """Explain the verb of `raise the brightness to 80`, `dim to 20 %`."""
        for at in range(len(attempt.texts)):
            length = 0 if at in attempt.taken else self._phrases.at(attempt.lemmas, at)
            if not length:
                continue
            attribute, _ = self._words[" ".join(attempt.lemmas[at : at + length])]
            if attribute is None or about & {attribute, *self._related.to(attribute)}:
                attempt.filling.used.update(range(at, at + length))
                attempt.filling.evidence += _EVIDENCE if attribute is not None else 0.0

    def _delta(self, attempt: Attempt, slot: Slot, used: set[int]) -> tuple[float, set[int]] | None:
        """Return by how much a setting is to change, and the places of the words that say it."""
        for at, token in enumerate(attempt.tokens):
            amount = token.amount
            if amount is None or at in used or not attempt.is_free(at):
                continue
            if amount.vague:
                return self._step(slot) * amount.value / 2, {at}
            if (amount.unit or "").startswith("degree") and (slot.unit or "").startswith("degree"):
                is_fine = amount.unit == "degree_Fahrenheit" and slot.unit == "degree_Celsius"
                return amount.value * (5 / 9 if is_fine else 1), {at}
            value = self._amounts.value(slot, amount)
            return None if value is None else (value, {at})
        return self._step(slot), set()

    def _step(self, slot: Slot) -> float:
        """Return by how much a setting changes where nobody says by how much."""
        customary = self._customary.get(slot.unit or "")
        if customary is not None and (slot.unit or "").startswith("degree_"):
            return 2 * customary
        if has_range(slot):
            return _STEP * ((slot.maximum or 0.0) - (slot.minimum or 0.0))
        return 2 * (customary or 1.0)


def _present(attempt: Attempt, slot: Slot) -> float | None:
    """Return the present value of a setting, from the telemetry field that is called most like it."""
    words = attempt.nouns_of(slot) | attempt.frame.own
    best: tuple[float, float] | None = None
    for name, reading in attempt.view.readings.items():
        if isinstance(reading.value, bool | str):
            continue
        parts = frozenset(name.casefold().replace("-", "_").split("_"))
        if parts <= words and (best is None or len(parts) > best[0]):
            best = (len(parts), float(reading.value))
    return None if best is None else best[1]
