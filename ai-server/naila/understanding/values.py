"""Values: the one of those counted up by a declaration that somebody says, in whatever words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from naila.events import JsonValue
from naila.understanding.attempt import Attempt
from naila.understanding.frames import Slot

_EVIDENCE: Final = 0.6
_OWN_WORDS: Final = 0.79  # from here on, words are as good as the declared ones
_SAME: Final = 0.8
_OFF: Final = "off"


@dataclass(frozen=True, slots=True)
class _Found:
    """A value in the words: where, and how near they are to the declared ones."""

    value: JsonValue
    places: range
    near: float
    rank: float


def read_values(attempt: Attempt) -> None:
    """Give a frame the values that the words name."""
    for slot in attempt.slots:
        found = _value(attempt, slot) if slot.kind == "choice" else None
        if found is None:
            continue
        again = _said_again(attempt, slot, found.value)
        evidence = _EVIDENCE * (found.near if found.near < _OWN_WORDS else 1)
        attempt.give(slot, found.value, found.places, evidence)
        attempt.filling.used.update(again)


def _value(attempt: Attempt, slot: Slot) -> _Found | None:
    best: _Found | None = None
    said = {*attempt.lemmas, *attempt.texts}
    for choice in slot.choices:
        for words, near in choice.phrases:
            places = _places(attempt, words, near) if words[0] in said else None
            if places is None:
                continue
            rank = near + len(words) - 0.01 * (words[0] in attempt.frame.nouns)
            if best is None or rank > best.rank or (choice.value == _OFF and len(words) >= len(best.places)):
                best = _Found(choice.value, places, near, rank)
    if best is not None and best.value == _OFF:
        _explain_others(attempt, slot)
    return best


def _explain_others(attempt: Attempt, slot: Slot) -> None:
    """Explain what is to be off, where that is another value: `turn the heating off`."""
    for choice in slot.choices:
        for words, near in choice.phrases:
            places = _places(attempt, words, near) if choice.value != _OFF and near > _SAME else None
            if places is not None and len(words) == 1:
                attempt.filling.named.update(places)


def _places(attempt: Attempt, words: tuple[str, ...], near: float) -> range | None:
    """Return where the words for a value stand."""
    length = len(words)
    for at in range(len(attempt.lemmas) - length + 1):
        places = range(at, at + length)
        said = words in {tuple(attempt.lemmas[at : at + length]), tuple(attempt.texts[at : at + length])}
        if said and all(attempt.is_free(place) for place in places):
            is_plain = near == 1 or all(attempt.tokens[place].form != "past" for place in places)
            if is_plain:
                return places
    return None


def _said_again(attempt: Attempt, slot: Slot, value: JsonValue) -> set[int]:
    """Return where the same value is said: `go charge yourself at the dock`."""
    phrases = [
        words for choice in slot.choices if choice.value == value for words, near in choice.phrases if near >= _SAME
    ]
    return {
        place
        for words in phrases
        for at in range(len(attempt.lemmas) - len(words) + 1)
        if tuple(attempt.lemmas[at : at + len(words)]) == words
        for place in range(at, at + len(words))
        if attempt.is_free(place)
    }
