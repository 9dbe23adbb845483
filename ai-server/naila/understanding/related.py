"""Related words: which may stand for each other, and which values of arguments they are common words for."""

from __future__ import annotations

from naila.config.lexicon import Lexicon
from naila.understanding.words import Vocabulary


class Related:
    """Words that may stand for each other.

    Args:
        lexicon: the language.
        vocabulary: its words.
    """

    def __init__(self, lexicon: Lexicon, vocabulary: Vocabulary) -> None:
        self._synonyms: dict[str, set[str]] = {}
        for group in lexicon.synonyms:
            words = {vocabulary.lemma(word) for word in group if " " not in word}
            for word in words:
                self._synonyms.setdefault(word, set()).update(words)
        self.phrase_groups: list[tuple[frozenset[str], tuple[tuple[str, ...], ...]]] = []
        for group in lexicon.synonyms:
            several = tuple(
                tuple(vocabulary.lemma(word) for word in phrase.split()) for phrase in group if " " in phrase
            )
            if several:
                single = frozenset(vocabulary.lemma(word) for word in group if " " not in word)
                self.phrase_groups.append((single, several))
        self._hyponyms = {verb: frozenset(words) for verb, words in lexicon.hyponyms.items()}
        self._senses: dict[tuple[str, ...], str] = {}
        self.sense_forms: dict[str, tuple[tuple[str, ...], ...]] = {}
        for sense, phrases in lexicon.senses.items():
            forms = tuple(tuple(vocabulary.lemma(word) for word in phrase.split()) for phrase in phrases)
            self.sense_forms[sense] = forms
            for form in forms:
                self._senses.setdefault(form, sense)

    def to(self, word: str) -> frozenset[str]:
        """Return the words that mean about the same, itself not among them."""
        return frozenset(self._synonyms.get(word, ())) - {word}

    def under(self, verb: str) -> frozenset[str]:
        """Return the verbs that are a way of doing it."""
        return self._hyponyms.get(verb, frozenset())

    def sense(self, words: tuple[str, ...]) -> str | None:
        """Return which common value words stand for."""
        return self._senses.get(words)
