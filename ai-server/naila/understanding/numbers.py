"""Numbers in words and figures: `forty five`, `one point five`, `two and a half`, `3/4`, `minus ten`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from text_to_num import text2num  # type: ignore[import-untyped]

_SMALL: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
_LARGE: Final = frozenset({"hundred", "thousand", "million"})
DIGITS: Final = tuple(_SMALL.split()[:10])
NUMBER_WORDS: Final = frozenset(_SMALL.split()) | _LARGE
_SIGNS: Final = frozenset({"-", "minus", "negative"})
_LONGEST: Final = 12
_LARGEST: Final = 1e9


def number_at(texts: Sequence[str], start: int) -> tuple[float, int] | None:
    """Return the number that stands at `start` and how many words it takes, its sign included."""
    at = start
    negative = texts[at] in _SIGNS
    if negative:
        at += 1
    if at >= len(texts):
        return None
    found = _figures(texts[at]) if texts[at][0].isdigit() else None
    value, length = (found, 1) if found is not None else _spoken(texts, at)
    if not length or value > _LARGEST:
        return None
    return (-value if negative else value), at + length - start


def _figures(text: str) -> float | None:
    """Return the value of figures; a comma is a decimal one unless three figures follow it."""
    numerator, _, denominator = text.partition("/")
    if len(text) > 18 or not text.isascii() or text.count(".") + text.count(",") > 1:
        return None
    whole, comma, decimals = numerator.partition(",")
    if comma:
        numerator = whole + decimals if len(decimals) == 3 and whole != "0" else f"{whole}.{decimals}"
    value = float(numerator)
    if denominator:
        return value / float(denominator) if float(denominator) else None
    return value


def _spoken(texts: Sequence[str], start: int) -> tuple[float, int]:
    whole, length = _integer(texts, start)
    after = start + length
    if after + 1 >= len(texts) or texts[after] != "point" or not (length or texts[after + 1] in NUMBER_WORDS):
        return whole, length
    decimals, end = "", after + 1
    while end < len(texts) and end <= after + 4 and texts[end] in NUMBER_WORDS - _LARGE:
        decimals += str(text2num(texts[end], "en"))
        end += 1
    if texts[after + 1].isdigit():
        decimals, end = texts[after + 1], after + 2
    return (float(f"{int(whole)}.{decimals}"), end - start) if decimals else (whole, length)


def _integer(texts: Sequence[str], start: int) -> tuple[float, int]:
    """Return the longest run of number words that makes one number, and its length."""
    end = start
    while end < len(texts) and end - start < _LONGEST:
        between = texts[end] == "and" and end > start and texts[end - 1] in _LARGE and end + 1 < len(texts)
        if texts[end] not in NUMBER_WORDS and not (between and texts[end + 1] in NUMBER_WORDS - _LARGE):
            break
        end += 1
    while end > start:
        if texts[end - 1] != "and":
            spoken = " ".join(texts[start:end])
            try:
                return float(text2num("one " + spoken if texts[start] in _LARGE else spoken, "en")), end - start
            except ValueError:
                pass
        end -= 1
    return 0.0, 0
