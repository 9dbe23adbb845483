"""Whether what somebody said is "stop", or cries it: decided in microseconds, on the way in, before everything else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

MAX_CHARS: Final = 120

# What may stand around a stop word and leave it one. To stop too often is safe; to miss a stop is not.
_AROUND: Final = frozenset(
    word
    for words in (
        "again all at both break careful damn do enough everything for god heaven hell hey i idiot immediately it just",
        "look motion motors movement moving no now oh ok okay once out please right robot robots s said sake that the",
        "there this watch wheels whoa wow yes you",
        "alles aufhören bitte jetzt nein sofort",
        "de il immédiatement maintenant non oui plaît s suite te tout toute vous",
        "ahora ay favor inmediatamente por todo ya",
    )
    for word in unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().split()
)
_CLAUSE: Final = re.compile(r"[,.;!?\u2014\u2013\n]+|(?: - )")
_WORD: Final = re.compile(r"[^\W_]+")
_DRAWN_OUT: Final = re.compile(r"(.)\1{2,}")


class StopWords:
    """The words that stop a robot, in every language at once, however they are written.

    Case, accents, punctuation, repetition ("stop stop", "stooop") and politeness do not matter, and one clause of
    several is enough ("stop, there's a child!"). Any other word in that clause ("don't stop", "stop at the door")
    leaves it to the understanding that comes after: this one is only for what can hardly mean anything else. More than
    `MAX_CHARS` characters are no cry.

    Args:
        words: words or short phrases.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._phrases = frozenset(phrase for word in words if (phrase := tuple(_tokens(word))))
        self._single = frozenset(phrase[0] for phrase in self._phrases if len(phrase) == 1)
        self._longest = max(map(len, self._phrases), default=0)

    def matches(self, text: str) -> bool:
        """Whether `text` says stop, in one of its clauses and with nothing else in it."""
        return len(text) <= MAX_CHARS and any(self._is_stop(list(_tokens(clause))) for clause in _CLAUSE.split(text))

    def _is_stop(self, tokens: list[str]) -> bool:
        found, at = False, 0
        while at < len(tokens):
            length = self._phrase_at(tokens, at)
            if length:
                found = True
            elif tokens[at] not in _AROUND:
                return False
            at += length or 1
        return found

    def _phrase_at(self, tokens: list[str], at: int) -> int:
        """Return how many tokens of a stop phrase stand here, 0 for none."""
        for length in range(min(self._longest, len(tokens) - at), 0, -1):
            if tuple(tokens[at : at + length]) in self._phrases:
                return length
        return int(any(_repeats(word, tokens[at]) for word in self._single))


def _tokens(text: str) -> Iterator[str]:
    """Yield the words without case, accents and drawn-out letters."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    for match in _WORD.finditer(plain):
        yield _DRAWN_OUT.sub(r"\1", match[0])


def _repeats(word: str, token: str) -> bool:
    """Whether a token is a word written several times without a space, as in languages that have none."""
    times, rest = divmod(len(token), len(word))
    return not rest and token == word * times
