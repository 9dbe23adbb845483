"""Clauses: a text cut where one wish ends and the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from naila.understanding.quantities import Token
from naila.understanding.words import MARKS, Phrases

_CONNECTORS: Final = Phrases(
    (
        "and then", "and after that", "and afterwards", "and finally", "and next", "and also", "and second",
        "and lastly", "then", "and", "after that", "afterwards", "followed by", "next", "finally", "after which",
        "but first",
    )
)  # fmt: skip
_REMARKS: Final = frozenset({"it", "i", "this", "that", "there"})
_ENDS: Final = frozenset(".!?;:")
MOST_CLAUSES: Final = 12


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of what was said.

    Attributes:
        tokens: its words, without marks.
        sentence: number of the sentence that it stands in.
        asked: its sentence ends in a question mark.
        comma: a comma or colon follows it.
        end: index after its last token in the whole text.
    """

    tokens: tuple[Token, ...]
    sentence: int
    asked: bool
    comma: bool
    end: int


def clauses(tokens: Sequence[Token]) -> list[Clause]:
    """Return the clauses of a text."""
    found: list[Clause] = []
    texts = [token.text for token in tokens]
    current: list[Token] = []
    sentence = at = 0

    def close(*, comma: bool = False) -> None:
        if current:
            found.append(Clause(tuple(current), sentence, _asked(texts, at), comma, at))
            current.clear()

    while at < len(tokens):
        text = texts[at]
        length = _CONNECTORS.at(texts, at)
        if text in MARKS:
            close(comma=text in {",", ":"})
            sentence += text in _ENDS and text not in {":", ";"}
        elif length and at + length < len(tokens):
            close()
            at += length
            continue
        else:
            if (
                current
                and current[-1].text == "please"
                and len(current) > 1
                and text in _REMARKS
                and texts[at + 1 : at + 2] in (["is"], ["am"])
            ):
                close()
            current.append(tokens[at])
        at += 1
    close()
    return found


def _asked(texts: list[str], at: int) -> bool:
    """Whether the sentence that goes on at `at` ends in a question mark."""
    return next((text == "?" for text in texts[at:] if text in {".", "!", "?"}), False)
