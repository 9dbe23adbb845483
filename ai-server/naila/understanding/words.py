"""Words: a text in the form in which it is compared, cut into words with their base forms."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from naila.config.lexicon import Lexicon

Form = Literal["base", "s", "ing", "past"]

MARKS: Final = frozenset('.,;:!?"()')
_QUOTES: Final = str.maketrans(
    {
        "\u2019": "'",
        "\u2018": "'",
        "`": "'",
        "\u00b4": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "«": '"',
        "»": '"',
        "\u2044": "/",
        "\u2212": "-",
        "\u2013": "-",
        "—": ",",
        "…": ".",
        "º": "°",
        "_": " ",
    }
)
_FRACTION: Final = re.compile(r"(\d*)\s?([¼½¾⅓⅔⅕⅛])")
_INCHES: Final = re.compile(r'(\d)"')
_TOKEN: Final = re.compile(
    r"\d+(?:[.,]\d+){2,}"  # 1.2.3 is no number
    r"|\d+(?:[.,]\d+)?(?:/\d+)?"  # 20, 1.5, 0,5, 3/4
    r"|-(?=[\d.])"
    r"|°[cf]\b|[^\W\d_°]+/[^\W\d_°]+\b|°/s\b"  # °c, m/s
    r"|[^\W\d_]+(?:'[^\W\d_]+)*|'s\b"
    r"|[%°]|[.,;:!?\"()\n]"
)
_MOST_CHARS: Final = 120
_MOST_KEPT: Final = 4096
_VOWELS: Final = frozenset("aeiou")


@dataclass(frozen=True, slots=True)
class Word:
    """One word or mark.

    Attributes:
        text: as it was said, in lower case.
        lemma: its base form.
        form: which form it has.
    """

    text: str
    lemma: str
    form: Form = "base"


class Phrases:
    """Phrases of one or more words, of which the longest that fits is found."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for words in {tuple(phrase.split()) for phrase in phrases}:
            self._by_first.setdefault(words[0], []).append(words)
        for listed in self._by_first.values():
            listed.sort(key=len, reverse=True)

    def at(self, texts: Sequence[str], start: int) -> int:
        """Return how many words of a phrase stand at `start`; 0 for none."""
        if start >= len(texts):
            return 0
        for words in self._by_first.get(texts[start], ()):
            if tuple(texts[start : start + len(words)]) == words:
                return len(words)
        return 0

    def ending(self, texts: Sequence[str]) -> int:
        """Return how many words at the end are a phrase; 0 for none."""
        for start in range(max(0, len(texts) - 8), len(texts)):
            if self.at(texts, start) == len(texts) - start:
                return len(texts) - start
        return 0

    def found(self, texts: Sequence[str]) -> bool:
        """Whether any phrase stands anywhere."""
        return any(self.at(texts, start) for start in range(len(texts)))


class Vocabulary:
    """Cuts texts into words and knows their base forms.

    Args:
        lexicon: the language.

    Attributes:
        known: every word of the language.
        lemmas: gives the base forms of a declaration's text.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._rewrites = [(re.compile(pattern), new) for pattern, new in lexicon.rewrites]
        self._irregular: Mapping[str, str] = lexicon.irregular
        self._past: Mapping[str, str] = lexicon.past
        groups: Iterable[Iterable[str]] = (
            *lexicon.synonyms,
            *lexicon.hyponyms.values(),
            lexicon.hyponyms,
            *lexicon.senses.values(),
            lexicon.carriers,
            lexicon.generic,
            lexicon.talk,
            lexicon.feats,
            lexicon.relative,
            lexicon.function,
            lexicon.everyday,
            lexicon.state.plain,
            lexicon.state.adjectives,
        )
        self.lemmas = lru_cache(_MOST_KEPT)(self._lemmas)
        self.known: frozenset[str] = frozenset(word for group in groups for phrase in group for word in phrase.split())

    def words(self, text: str) -> list[Word]:
        """Return a text's words and marks."""
        text = _FRACTION.sub(lambda m: str(float(m[1] or 0) + unicodedata.numeric(m[2])), text)
        text = unicodedata.normalize("NFKC", text.translate(_QUOTES)).casefold().translate(_QUOTES)
        text = _INCHES.sub(r"\1 inch ", text)
        for pattern, new in self._rewrites:
            text = pattern.sub(new, text)
        return [self._word("." if found == "\n" else found) for found in _TOKEN.findall(text)]

    def _lemmas(self, text: str) -> tuple[str, ...]:
        """Return the base forms of a declaration's text, without marks; no more than its first characters."""
        return tuple(word.lemma for word in self.words(text[:_MOST_CHARS]) if word.text not in MARKS)

    def lemma(self, text: str) -> str:
        """Return the base form of one word."""
        return self._word(text).lemma

    def _word(self, text: str) -> Word:
        if text in self._past:
            return Word(text, self._past[text], "past")
        if (irregular := self._irregular.get(text)) is not None:
            form: Form = "s" if text.endswith("s") and irregular != text else "base"
            return Word(text, irregular, "ing" if text.endswith("ing") and irregular != text else form)
        if not text.isalpha() or len(text) <= 3:
            return Word(text, text)
        if text in self.known and not text.endswith(("ing", "ed")):
            return Word(text, text)
        return self._inflected(text)

    def _inflected(self, text: str) -> Word:
        if text.endswith("ies") and len(text) > 4:
            return Word(text, text[:-3] + "y", "s")
        if text.endswith("s") and not text.endswith(("ss", "us", "is")):
            if text.endswith(("ses", "xes", "zes", "ches", "shes", "oes")) and text[:-1] not in self.known:
                return Word(text, text[:-2], "s")
            return Word(text, text[:-1], "s")
        if text.endswith("ing") and len(text) > 5:
            return Word(text, self._base(text[:-3]), "ing")
        if text.endswith("ed") and not text.endswith("eed") and len(text) > 4:
            return Word(text, self._base(text[:-2]), "past")
        return Word(text, text)

    def _base(self, stem: str) -> str:
        """Return the verb of which a stem is left when -ing or -ed is taken off."""
        doubled = len(stem) > 2 and stem[-1] == stem[-2]
        candidates = (stem, stem + "e", stem[:-1]) if doubled else (stem + "e", stem)
        for candidate in candidates:
            if candidate in self.known:
                return candidate
        if doubled and stem[-1] not in "lsz":
            return stem[:-1]
        if len(stem) > 2 and stem[-1] not in _VOWELS and stem[-2] in _VOWELS and stem[-3] not in _VOWELS:
            return stem + "e"
        return stem


def template_of(texts: Sequence[str], lemmas: Sequence[str], used: Container[int], free: Phrases) -> tuple[str, ...]:
    """Return words with a star for those at the places `used`, and without free ones; empty if only stars are left."""
    kept: list[str] = []
    at = 0
    while at < len(texts):
        is_whither = at == len(texts) - 1 and texts[at] == "in"  # `let me in` is not `let me`
        length = 0 if at in used or is_whither else free.at(texts, at)
        if at in used:
            kept += [] if kept[-1:] == ["*"] else ["*"]
        elif not length:
            kept.append(lemmas[at])
        at += length or 1
    return tuple(kept) if set(kept) - {"*"} else ()
