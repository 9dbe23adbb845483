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
_ARRIVALS: Final = Phrases(
    (
        "when you get there", "when you are there", "when you arrive", "once you get there", "once you are there",
        "once you arrive", "once there", "when there", "as soon as you get there", "as soon as you are there",
        "as soon as you arrive", "on arrival", "upon arrival",
    )
)  # fmt: skip
_TRAVELLING: Final = frozenset({"go", "drive", "move", "head", "come", "return", "run", "roll", "fly", "walk"})
_REMARKS: Final = frozenset({"it", "i", "this", "that", "there"})
_ORDERS: Final = frozenset({"before", "after"})
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
        if length := _ARRIVALS.at(texts, at) if _travels(found) else 0:
            at += length
            continue
        length = _CONNECTORS.at(texts, at)
        if text in MARKS:
            close(comma=text in {",", ":"})
            sentence += text in _ENDS and text not in {":", ";"}
        elif length and at + length < len(tokens):
            close()
            at += length
            continue
        else:
            if len(current) > 1 and _is_remark(texts, at):
                close()
            current.append(tokens[at])
        at += 1
    close()
    return found


def _travels(before: Sequence[Clause]) -> bool:
    """Whether somebody is on the way already: then `when you get there` says no more than `then`."""
    return any(token.lemma in _TRAVELLING for clause in before for token in clause.tokens)


def _is_remark(texts: list[str], at: int) -> bool:
    """Whether a remark begins, with nothing before it that would say so: `open up i am outside`."""
    is_polite = texts[at - 1] == "please" and texts[at] in _REMARKS and texts[at + 1 : at + 2] in (["is"], ["am"])
    return is_polite or (texts[at : at + 2] == ["i", "am"] and texts[at + 2 : at + 3] not in (["a"], ["an"], ["the"]))


def in_order(tokens: Sequence[Token]) -> list[Token]:
    """Return what is said in the order in which it is wanted: `before you go to the dock, beep`."""
    texts = [token.text for token in tokens]
    at = next((at for at, text in enumerate(texts) if text in _ORDERS), None)
    if at is None or sum(text in _ORDERS for text in texts) > 1 or at + 2 >= len(tokens):
        return list(tokens)
    is_doing = tokens[at + 1].form == "ing"
    if not is_doing and texts[at + 1] != "you":
        return list(tokens)
    doing = tokens[at + 1]
    begin = [Token(doing.lemma, doing.lemma)] if is_doing else []
    first, second = list(tokens[:at]), [*begin, *tokens[at + 2 :]]
    if not any(text not in MARKS for text in texts[:at]):
        comma = next((place for place, token in enumerate(second) if token.text == ","), None)
        if comma is None:
            return list(tokens)
        first, second = second[comma + 1 :], second[:comma]
    last = [second.pop()] if second and second[-1].text in _ENDS else []
    while first and first[-1].text in MARKS:
        first.pop()
    if texts[at] == "after":
        first, second = second, first
    return [*first, Token("then", "then"), *second, *last]


def _asked(texts: list[str], at: int) -> bool:
    """Whether the sentence that goes on at `at` ends in a question mark."""
    return next((text == "?" for text in texts[at:] if text in {".", "!", "?"}), False)
