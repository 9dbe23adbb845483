"""Spelling: words that were mistyped or misheard, made the word of the devices that they surely are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from rapidfuzz.distance import OSA

from naila.understanding.words import Word

_SHORTEST: Final = 4
_MOST_UNKNOWN: Final = 4
_COMMON: Final = (
    "forward backward left right degrees meters meter centimeters percent seconds please brightness minutes twice "
    "battery temperature humidity position"
)


class Spelling:
    """Corrects words that nobody knows.

    Args:
        known: words of the language, which are never corrected.
    """

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known

    def corrected(self, words: Sequence[Word], vocabulary: frozenset[str]) -> list[Word] | None:
        """Return the words with those that nobody knows corrected, None where nothing surely can be.

        Args:
            words: as they were said.
            vocabulary: the words that devices are spoken of with.
        """
        candidates = _candidates(vocabulary)
        corrected: list[Word] = []
        changes = 0
        for word in words:
            better = word
            if self._is_unknown(word, candidates):
                found = _nearest(word.text, candidates)
                if found is not None:
                    better, changes = Word(found, found), changes + 1
            corrected.append(better)
        return corrected if 0 < changes <= _MOST_UNKNOWN else None

    def _is_unknown(self, word: Word, candidates: frozenset[str]) -> bool:
        if len(word.text) < _SHORTEST or not word.text.isalpha():
            return False
        return not ({word.text, word.lemma} & (self._known | candidates))


@lru_cache(16)
def _candidates(vocabulary: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in (*vocabulary, *_COMMON.split()) if len(word) >= _SHORTEST)


def _nearest(text: str, candidates: Iterable[str]) -> str | None:
    """Return the one word that a text is a slip of: same first letter, one slip, two in a long word."""
    slips = 1 if len(text) < 8 else 2
    near = {}
    for candidate in candidates:
        if candidate[0] != text[0] or abs(len(candidate) - len(text)) > slips:
            continue
        distance = OSA.distance(text, candidate, score_cutoff=slips)
        swapped = len(candidate) == len(text) and sorted(candidate) == sorted(text)
        slipped = len(candidate) != len(text) or len(candidate) >= 7
        if distance <= slips and (swapped or (slipped and len(candidate) >= 5)):
            near[candidate] = distance
    if not near:
        return None
    best = min(near.values())
    nearest = [candidate for candidate, distance in near.items() if distance == best]
    return nearest[0] if len(nearest) == 1 else None
