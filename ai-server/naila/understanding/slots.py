"""Slots: the arguments of an action, made of its JSON Schema, with the words for them and for their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from naila.config.lexicon import Lexicon
from naila.events import JsonValue
from naila.understanding.frames import Choice, Slot, SlotKind
from naila.understanding.quantities import Units
from naila.understanding.related import Related
from naila.understanding.words import Vocabulary

_MOST_CHOICES: Final = 64


class Slots:
    """Makes slots of schemas.

    Args:
        lexicon: the language.
        vocabulary: its words.
        units: its units.
        related: words that may stand for each other.
        empty: words that stand for nothing.
        unteachable: words that stand for no value alone.
    """

    def __init__(
        self,
        lexicon: Lexicon,
        vocabulary: Vocabulary,
        units: Units,
        related: Related,
        *,
        empty: frozenset[str],
        unteachable: frozenset[str],
    ) -> None:
        self._lexicon = lexicon
        self._vocabulary = vocabulary
        self._units = units
        self.related = related
        self._empty = empty
        self._function = frozenset(lexicon.function) | frozenset(lexicon.particles)
        self._unteachable = unteachable
        self._kinds = {
            kind: {tuple(vocabulary.lemma(word) for word in value.split()) for value in values}
            for kind, values in lexicon.kinds.items()
        }

    def of(self, schema: Mapping[str, JsonValue]) -> Iterable[Slot]:
        """Return the arguments of a schema, in its order."""
        properties = schema.get("properties")
        required = schema.get("required")
        for name, declared in properties.items() if isinstance(properties, dict) else ():
            if isinstance(declared, dict):
                needed = isinstance(required, list) and name in required and "default" not in declared
                yield self.one(name, declared, required=needed)

    def one(self, name: str, schema: Mapping[str, JsonValue], *, required: bool) -> Slot:
        """Return one argument."""
        lexicon = self._lexicon
        values = schema.get("enum")
        words = self._vocabulary.lemmas(name)
        declared_unit = schema.get("unit")
        unit = self._units.declared(declared_unit) if isinstance(declared_unit, str) else None
        last = name.casefold().replace("-", "_").split("_")[-1]
        if unit is None and last in lexicon.suffixes and (len(words) > 1 or len(last) > 4):
            unit = lexicon.suffixes[last]
            declared_unit = declared_unit or last
            words = words[:-1] or words
        nouns = frozenset(other for word in words for other in (word, *self.related.to(word)))
        choices: tuple[Choice, ...] = ()
        kind: SlotKind = "other"
        if schema.get("type") == "boolean":
            kind, choices = "choice", (self._choice(True, "on"), self._choice(False, "off"))
        elif isinstance(values, list) and all(isinstance(value, str | int | float) for value in values):
            kind = "choice"
            choices = tuple(self._choice(value, str(value)) for value in values[:_MOST_CHOICES] if str(value).strip())
        elif schema.get("type") in {"number", "integer"}:
            kind = "number"
        forms = {phrase for choice in choices for phrase, closeness in choice.phrases if closeness == 1}
        return Slot(
            name=name,
            kind=kind,
            required=required,
            integer=schema.get("type") == "integer",
            unit=unit,
            declared_unit=declared_unit if isinstance(declared_unit, str) else None,
            minimum=_number(schema.get("minimum"), schema.get("exclusiveMinimum")),
            maximum=_number(schema.get("maximum"), schema.get("exclusiveMaximum")),
            choices=self._apart(choices),
            nouns=nouns - (self._empty - (frozenset(words) - self._function)),
            counts=kind == "number" and unit is None and any(word in lexicon.counting for word in words),
            senses=frozenset(kind for kind, values in self._kinds.items() if len(forms & values) >= 2),
            positive=self._positive(schema.get("description")),
        )

    def _positive(self, description: JsonValue) -> str | None:
        """Return the direction that a description calls positive: `up` of `positive is up`."""
        said = self._vocabulary.lemmas(description) if isinstance(description, str) else ()
        at = next((at for at, word in enumerate(said) if word == "positive"), len(said))
        senses = (self.related.sense((word,)) for word in said[at + 1 : at + 5])
        directions = self._lexicon.kinds.get("direction", ())
        return next((sense for sense in senses if sense in directions), None)

    def _choice(self, value: JsonValue, said: str) -> Choice:
        words = self._vocabulary.lemmas(said)
        phrases = {words: 1.0} if words and not all(word in self._unteachable for word in words) else {}
        sense = self.related.sense(words)
        for form in self.related.sense_forms.get(sense or "", ()):
            phrases.setdefault(form, 0.9)
        for word in self._lexicon.loosely.get(sense or "", ()):
            phrases.setdefault((word,), 0.8)
        for other in self._lexicon.nearby.get(sense or "", ()):
            for form in self.related.sense_forms.get(other, ()):
                phrases.setdefault(form, 0.5)
        if len(words) == 1:
            for synonym in self.related.to(words[0]):
                phrases.setdefault((synonym,), 0.7)
        return Choice(value, tuple(phrases.items()))

    @staticmethod
    def _apart(choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
        """Leave each form of words to the choice that it is closest to."""
        best: dict[tuple[str, ...], float] = {}
        for choice in choices:
            for words, closeness in choice.phrases:
                best[words] = max(best.get(words, 0.0), closeness)
        return tuple(
            Choice(choice.value, tuple((words, near) for words, near in choice.phrases if near == best[words]))
            for choice in choices
        )


def _number(*values: JsonValue) -> float | None:
    return next((float(value) for value in values if isinstance(value, int | float) and value is not True), None)
