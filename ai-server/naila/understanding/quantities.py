"""Quantities: amounts with their units, as they are said, and what they are in the unit of a declaration."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from naila.config.lexicon import Lexicon
from naila.understanding.numbers import DIGITS, number_at
from naila.understanding.words import Form, Phrases, Word

if TYPE_CHECKING:
    from naila.understanding.conversions import Conversions

PERCENT: Final = "percent"
DEGREE: Final = "degree"
_MOST_DIGITS: Final = 5
_WITH_HUNDREDTHS: Final = frozenset({"meter"})
_ROUND_UNITS: Final = frozenset({"turn"})
_DECLARABLE: Final = re.compile(r"[A-Za-zµ°%Ω]{1,16}([/*][A-Za-z°]{1,8})?(\^?[-²³2-3]{1,2})?")


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of something.

    Attributes:
        value: in `unit`; of a vague amount, how many of the customary little ones.
        unit: as the quantity library calls it.
        counted: said as a number of times.
        vague: said as `a bit`.
        said: the words.
    """

    value: float
    unit: str | None = None
    counted: bool = False
    vague: bool = False
    said: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a mark, or several words that are an amount.

    Attributes:
        text: as it was said, in lower case.
        lemma: its base form.
        form: which form it has.
        amount: how much, where it says so.
        share: of what is possible, where it says so: `half`, `full`.
    """

    text: str
    lemma: str
    form: Form = "base"
    amount: Amount | None = None
    share: float | None = None


class Units:
    """Units of measurement, their names and conversions.

    Args:
        lexicon: the language.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._names: dict[tuple[str, ...], str] = {}
        for unit, forms in lexicon.units.items():
            for form in forms:
                self._names.setdefault(tuple(form.split()), unit)
        self._declared: dict[str, str | None] = {}
        self._factors: dict[tuple[str, str], tuple[float, float] | None] = {}

    @cached_property
    def _conversions(self) -> Conversions:
        from naila.understanding.conversions import Conversions  # noqa: PLC0415 - slow to import

        return Conversions()

    def warm_up(self) -> None:
        """Prepare what takes a while, so that the first conversion finds it."""
        for unit in {*self._names.values()}:
            self._conversions.known(unit)

    def at(self, words: Sequence[Word], start: int) -> tuple[str, int] | None:
        """Return the unit that stands at `start`, and how many words it takes."""
        found = self._simple(words, start)
        if found is None:
            return None
        unit, length = found
        after = start + length
        if after + 1 < len(words) and words[after].text in {"per", "a", "/", "an"}:
            other = self._simple(words, after + 1)
            if other and (compound := self._compound(unit, other[0])):
                return compound, length + 1 + other[1]
        return found

    def named(self, word: str) -> str | None:
        """Return the unit that a word is a name of."""
        return self._names.get((word,))

    def declared(self, text: str | None) -> str | None:
        """Return the unit that a device means, None where it is none that is known."""
        if not text:
            return None
        if text not in self._declared:
            if len(self._declared) > 1000:
                self._declared.clear()
            self._declared[text] = self._parse(text)
        return self._declared[text]

    def convert(self, value: float, unit: str, into: str) -> float | None:
        """Return a value in another unit, None where it is another kind of quantity."""
        if unit == into:
            return value
        key = (unit, into)
        if key not in self._factors:
            self._factors[key] = self._conversions.line(unit, into)
        line = self._factors[key]
        return None if line is None else round(line[0] * value + line[1], 9)

    def _simple(self, words: Sequence[Word], start: int) -> tuple[str, int] | None:
        for length in (2, 1):
            said = words[start : start + length]
            if len(said) < length:
                continue
            for forms in (tuple(w.text for w in said), tuple(w.lemma for w in said)):
                if forms in self._names:
                    return self._names[forms], length
        return None

    def _compound(self, unit: str, per: str) -> str | None:
        return next((name for name in (f"{unit} / {per}",) if self._conversions.known(name)), None)

    def _parse(self, text: str) -> str | None:
        folded = text.strip().casefold()
        if (named := self._names.get(tuple(folded.split()))) is not None:
            return named
        if not _DECLARABLE.fullmatch(text.strip()):
            return None
        unit = text.strip().replace("°", "degree")
        return unit if self._conversions.known(unit) else None


class Measures:
    """Finds the amounts in what was said.

    Args:
        lexicon: the language.
        units: their units.
    """

    def __init__(self, lexicon: Lexicon, units: Units) -> None:
        self._units = units
        self._counted = lexicon.counted
        self._counts = lexicon.counts
        self._factors = lexicon.factors
        self._fractions = lexicon.fractions
        self._multiples = {tuple(words.split()): value for words, value in lexicon.multiples.items()}
        self._vague = {tuple(words.split()): value for words, value in lexicon.vague.items()}
        self._vague_phrases = Phrases(lexicon.vague)
        self._multiple_phrases = Phrases(lexicon.multiples)
        self._extremes = {words: share for words, share in lexicon.extremes.items() if " " not in words}

    def tokens(self, words: Sequence[Word]) -> list[Token]:
        """Return the words with every amount made one token."""
        return _joined(list(self._tokens(self._spelled(words))), self._units)

    def _spelled(self, words: Sequence[Word]) -> list[Word]:
        """Make one number of digits said one by one before a unit: `three zero degrees`."""
        kept: list[Word] = []
        at = 0
        while at < len(words):
            end = at
            while end < len(words) and words[end].text in DIGITS:
                end += 1
            if 1 < end - at < _MOST_DIGITS and self._units.at(words, end) and words[at].text != "zero":
                figures = "".join(str(DIGITS.index(word.text)) for word in words[at:end])
                kept.append(Word(figures, figures))
                at = end
            else:
                kept.append(words[at])
                at += 1
        return kept

    def _tokens(self, words: Sequence[Word]) -> Iterator[Token]:
        at = 0
        while at < len(words):
            found = self._amount_at(words, at)
            if found is not None:
                amount, length = found
                said = " ".join(word.text for word in words[at : at + length])
                yield Token(said, said, amount=replace(amount, said=said))
                at += length
                continue
            word = words[at]
            share = self._extremes.get(word.text, self._fractions.get(word.text))
            yield Token(word.text, word.lemma, word.form, share=share)
            at += 1

    def _amount_at(self, words: Sequence[Word], start: int) -> tuple[Amount, int] | None:
        texts = [word.text for word in words[start : start + 16]]
        if texts[0] in self._factors and texts[1:2] == ["as"]:
            return None  # `twice as fast`
        if texts[0] in self._counts:
            return Amount(self._counts[texts[0]], counted=True), 1
        article = texts[0] in {"a", "an", "the", "every", "each", "another"}
        if (vague := self._vague_at(texts, article=article)) is not None:
            return vague
        value, length = self._value_at(texts, article=article)
        if length:
            return self._with_unit(words, start, value, length)
        if article and len(texts) > 1:
            return self._one_of(words, start)
        return None

    def _vague_at(self, texts: list[str], *, article: bool) -> tuple[Amount, int] | None:
        start = int(article or texts[0] == "just")
        length = self._vague_phrases.at(texts, start)
        phrase = tuple(texts[start : start + length])
        if not length or not (article or phrase[-1].endswith("ly") or phrase in {("somewhat",), ("very", "little")}):
            return None
        if self._multiple_phrases.at(texts, start) > length or (texts[0], *phrase) == ("the", "way"):
            return None
        return Amount(self._vague[phrase], vague=True), start + length

    def _value_at(self, texts: list[str], *, article: bool) -> tuple[float, int]:
        """Return the number at the beginning, with what is added to it, and its length."""
        start = int(article)
        if (length := self._multiple_phrases.at(texts, start)) and not (
            length == 1 and not article and texts[start] not in {"dozen", "several"}
        ):
            value = float(self._multiples[tuple(texts[start : start + length])])
            end = start + length
            return value, end + int(texts[end : end + 1] == ["of"])
        found = number_at(texts, start) if start < len(texts) else None
        repeated = texts[0] in {"every", "each", "another"}
        if found is not None and (not article or repeated or texts[start] in {"hundred", "thousand", "million"}):
            value, end = found[0], start + found[1]
            if self._is(texts, end, self._fractions) and texts[end] != "second" and value == int(value):
                return value * self._fractions[texts[end]], self._past_of(texts, end + 1)
            if texts[end : end + 2] in (["and", "a"], ["and", "one"]) and self._is(texts, end + 2, self._fractions):
                return value + math.copysign(self._fractions[texts[end + 2]], value), end + 3
            return value, end
        if self._is(texts, start, self._fractions) and not texts[start].endswith("s"):
            end = self._past_of(texts, start + 1)
            return (self._fractions[texts[start]], end) if end < len(texts) else (0.0, 0)
        return 0.0, 0

    @staticmethod
    def _is(texts: list[str], at: int, table: Iterable[str]) -> bool:
        return at < len(texts) and texts[at] in table

    @staticmethod
    def _past_of(texts: list[str], at: int) -> int:
        """Skip `of a`, `a`."""
        if texts[at : at + 1] == ["of"]:
            at += 1
        return at + int(texts[at : at + 1] in (["a"], ["an"], ["one"]))

    def _with_unit(self, words: Sequence[Word], start: int, value: float, length: int) -> tuple[Amount, int] | None:
        after = start + length
        texts = [word.text for word in words]
        is_fraction = any(text in self._fractions for text in texts[start:after])
        skip = int(after < len(texts) and texts[after] in {"full", "whole", "complete", "more"})
        unit = self._units.at(words, after + skip)
        if unit is None and skip:
            skip, unit = 0, self._units.at(words, after)
        if unit is not None:
            end = after + skip + unit[1]
            if texts[end : end + 2] == ["and", "a"] and self._is(list(texts), end + 2, self._fractions):
                return Amount(value + self._fractions[texts[end + 2]], unit[0]), end + 3 - start
            hundredths = self._hundredths(words, end) if unit[0] in _WITH_HUNDREDTHS and value == int(value) else None
            if hundredths is not None:
                return Amount(value + hundredths / 100, unit[0]), end + 1 - start
            return Amount(value, unit[0]), end - start
        if after + skip < len(texts) and (words[after + skip].lemma in self._counted or texts[after + skip] == "x"):
            return Amount(value, counted=True), length + skip + 1
        numeric = any(
            text not in self._fractions and text not in {"a", "an", "the", "of"} for text in texts[start:after]
        )
        if is_fraction and not numeric:
            return None
        return Amount(value), length

    def _hundredths(self, words: Sequence[Word], at: int) -> float | None:
        """Return the twenty of `one meter twenty`."""
        texts = [word.text for word in words[at : at + 3]]
        found = number_at(texts, 0) if texts and texts[0] not in {"-", "minus"} else None
        if found is None or found[1] != 1 or found[0] not in range(10, 100):
            return None
        counted = len(words) > at + 1 and words[at + 1].lemma in self._counted
        return None if counted or self._units.at(words, at + 1) else found[0]

    def _one_of(self, words: Sequence[Word], start: int) -> tuple[Amount, int] | None:
        """Return `a meter`, `an inch`, `a full turn`, `every second`."""
        full = words[start + 1].text in {"full", "whole", "complete", "single"}
        unit = self._units.at(words, start + 1 + full)
        if unit is None or words[start].text == "the" or len(words[start + 1 + full].text) < 2:
            return None
        if unit[0] in _ROUND_UNITS and not full:
            return None
        end = start + 1 + full + unit[1]
        texts = [word.text for word in words[end : end + 3]]
        if texts[:2] == ["and", "a"] and self._is(texts, 2, self._fractions):
            return Amount(1 + self._fractions[texts[2]], unit[0]), end + 3 - start
        return Amount(1.0, unit[0]), end - start


def _joined(tokens: list[Token], units: Units) -> list[Token]:
    """Join `one meter twenty centimeters` and `one meter and twenty centimeters` into one amount."""
    joined: list[Token] = []
    for token in tokens:
        link = 1 if len(joined) > 1 and joined[-1].text == "and" else 0
        last = joined[-1 - link] if len(joined) > link else None
        if last and last.amount and token.amount and (both := _sum(last.amount, token.amount, units)):
            said = " ".join(each.text for each in (*joined[-1 - link :], token))
            joined[-1 - link :] = [Token(said, said, amount=replace(both, said=said))]
        else:
            joined.append(token)
    return joined


def _sum(large: Amount, small: Amount, units: Units) -> Amount | None:
    if large.unit is None or small.unit is None or large.unit == small.unit or PERCENT in {large.unit, small.unit}:
        return None
    added = units.convert(small.value, small.unit, large.unit)
    if added is None or not 0 < added < 1:
        return None
    return Amount(large.value + added, large.unit)
