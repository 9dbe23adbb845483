"""Frames: what a device declared, compiled to what people may say for it.

An action's name, description and examples teach the words that stand for it. They are a device's words, so they are
taken as words only: function words, small talk and phrases that are said all day never come to stand for an action.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from naila.config.lexicon import Lexicon
from naila.events import JsonValue
from naila.fleet import SET_PARAMETER, STOP, ActionSpec, DeviceProfile, ParameterSpec
from naila.understanding.quantities import Measures, Token, Units
from naila.understanding.words import MARKS, Phrases, Vocabulary

SlotKind = Literal["number", "choice", "other"]

_MOST_EXAMPLES: Final = 24
_MOST_CHOICES: Final = 64
_MOST_CHARS: Final = 120
_SETTING: Final = frozenset(
    {"set", "change", "switch", "select", "choose", "adjust", "make", "configure", "power", "toggle"}
)
_IT: Final = frozenset({"it", "that", "this", "something"})
_SOMEBODY: Final = frozenset({"somebody", "someone", "anybody", "people"})
_NAME, _EXAMPLE, _SYNONYM, _DESCRIBED, _SUPPORT = 1.0, 0.9, 0.85, 0.5, 0.3
_NAME_NOUN, _EXAMPLE_NOUN, _DESCRIBED_NOUN = 0.8, 0.6, 0.2


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of an argument, and the words for it.

    Attributes:
        value: as declared.
        phrases: each a sequence of base forms, with how close it is: 1 as declared, less for other words.
    """

    value: JsonValue
    phrases: tuple[tuple[tuple[str, ...], float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An argument of an action.

    Attributes:
        name: as declared.
        kind: what can fill it; `other` cannot be said.
        required: whether the action needs it.
        integer: only whole numbers.
        unit: as the quantity library calls it.
        declared_unit: as the device calls it.
        minimum: smallest value.
        maximum: largest value.
        choices: the values, where they are counted up.
        nouns: base forms of words for it.
        counts: it is a number of times.
        senses: kinds of words that its values belong to: `colour`, `state`, `direction`.
    """

    name: str
    kind: SlotKind
    required: bool = False
    integer: bool = False
    unit: str | None = None
    declared_unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Choice, ...] = ()
    nouns: frozenset[str] = frozenset()
    counts: bool = False
    senses: frozenset[str] = frozenset()

    @property
    def is_switch(self) -> bool:
        """Whether it is only on or off."""
        values = {str(choice.value).casefold() for choice in self.choices}
        return len(values) == 2 and values <= {"on", "off", "true", "false"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """An action, or a parameter that can be set, as people may speak of it.

    Attributes:
        device_id: whose.
        action: its name; `set_parameter` for a parameter.
        parameter: the parameter's name.
        writable: false for a parameter that nobody may set.
        verbs: base forms of verbs that stand for it, with how surely.
        nouns: base forms of other words that stand for it, with how surely.
        phrases: sequences of words that stand for it as a whole.
        needs_verb: it is named by a verb of its own: a noun beside "do" or "set" is not enough.
        objects: the words of its name after the verb that are no arguments.
        whole_verbs: verbs that an example gives alone.
        object_verbs: verbs by which it is done to something, whatever that is: `grab it`.
        object_after: words that come before somebody that it is done to: `at` of `wave at somebody`.
        sets: it is named by what it sets: a value alone is enough.
        states_itself: on or off alone is enough: it is about the whole device.
        is_setting: its number is where something is to be, not how far from here.
        slots: its arguments.
        own: base forms of all the words of its name.
        words: every word by which it might be meant.
    """

    device_id: str
    action: str
    parameter: str | None = None
    writable: bool = True
    verbs: Mapping[str, float] = field(default_factory=dict)
    nouns: Mapping[str, float] = field(default_factory=dict)
    phrases: frozenset[tuple[str, ...]] = frozenset()
    needs_verb: bool = False
    objects: frozenset[str] = frozenset()
    whole_verbs: frozenset[str] = frozenset()
    object_verbs: frozenset[str] = frozenset()
    object_after: frozenset[str] = frozenset()
    sets: bool = True
    states_itself: bool = True
    is_setting: bool = False
    slots: tuple[Slot, ...] = ()
    own: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()


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


class Compiler:
    """Makes frames of profiles.

    Args:
        lexicon: the language.
        vocabulary: its words.
        units: its units.
        measures: its amounts.
    """

    def __init__(self, lexicon: Lexicon, vocabulary: Vocabulary, units: Units, measures: Measures) -> None:
        self._lexicon = lexicon
        self._vocabulary = vocabulary
        self._units = units
        self._measures = measures
        self.related = Related(lexicon, vocabulary)
        self._function = Phrases((*lexicon.function, *lexicon.fillers, *lexicon.particles, *lexicon.hedges))
        self._closers = Phrases(lexicon.closers)
        self._everyday = frozenset(lexicon.everyday) | frozenset(lexicon.again) | frozenset(lexicon.withdrawals)
        questions = (*lexicon.questions, *lexicon.subjects, *lexicon.negations, "hello", "hi", "thanks", "thank", "yes")
        self._unteachable = frozenset(word for word in questions if " " not in word)
        single = (*lexicon.function, *lexicon.fillers, *lexicon.closers, *lexicon.openers, *lexicon.subordinators)
        self._empty = frozenset(word for word in single if " " not in word) | self._unteachable | lexicon.talk
        self._kinds = {
            kind: {tuple(vocabulary.lemma(word) for word in value.split()) for value in values}
            for kind, values in lexicon.kinds.items()
        }

    def frames(self, profile: DeviceProfile) -> tuple[Frame, ...]:
        """Return the frames of everything that a device declared, actions first."""
        device_words = frozenset(self._lemmas(profile.name)) | frozenset(self._lemmas(profile.device_id))
        actions = [
            self._action(profile.device_id, action, device_words)
            for action in profile.actions.values()
            if action.name not in {STOP, SET_PARAMETER}
        ]
        parameters = [self._parameter(profile.device_id, name, spec) for name, spec in profile.parameters.items()]
        return tuple(replace(frame, words=self._words(frame)) for frame in (*actions, *parameters))

    def _words(self, frame: Frame) -> frozenset[str]:
        values = (words[0] for slot in frame.slots for choice in slot.choices for words, _ in choice.phrases)
        heads = {phrase[0] for phrase in frame.phrases}
        others = (other for head in heads for other in self.related.to(head))
        return frozenset((*frame.verbs, *frame.nouns, *values, *heads, *others))

    def lemmas(self, text: str) -> tuple[str, ...]:
        """Return the base forms of a text's words."""
        return self._lemmas(text)

    def _lemmas(self, text: str) -> tuple[str, ...]:
        return tuple(word.lemma for word in self._vocabulary.words(text[:_MOST_CHARS]) if word.text not in MARKS)

    def _action(self, device_id: str, spec: ActionSpec, device_words: frozenset[str]) -> Frame:
        slots = tuple(self._slots(spec.parameters))
        named = [word for word in self._lemmas(spec.name) if len(word) > 1]
        examples = [taught for text in spec.examples[:_MOST_EXAMPLES] if (taught := self._taught(text, slots))]
        described = self._tokens(spec.description.partition(".")[0])
        lexicon = self._lexicon
        verbs: dict[str, float] = {}
        nouns: dict[str, float] = {}
        phrases: set[tuple[str, ...]] = set()
        needs_verb = len(named) == 1 or (bool(named) and named[0] not in lexicon.generic)
        if named and named[0] not in self._empty:
            self._add(verbs, named[0], _NAME if needs_verb or len(named) == 1 else _SUPPORT, hyponyms=True)
        for word in named[1:]:
            if word not in self._empty:
                self._add(nouns, word, _NAME_NOUN)
        for content in examples:
            self._learn(content, verbs, nouns, phrases, device_words)
        values = {word for slot in slots for choice in slot.choices for words, _ in choice.phrases for word in words}
        self._describe(described, verbs, nouns, device_words | values)
        if len(named) > 1:
            phrases.add(tuple(named))
        return Frame(
            device_id=device_id,
            action=spec.name,
            verbs=verbs,
            nouns=nouns,
            phrases=frozenset(phrases),
            needs_verb=needs_verb,
            objects=frozenset(named[1:]) - self._empty - frozenset(word for slot in slots for word in slot.nouns),
            whole_verbs=self._whole_verbs(examples),
            object_verbs=self._object_verbs(spec),
            object_after=self._object_after(spec),
            sets=bool(set(named[:1]) & _SETTING) or any(slot.senses & {"colour", "state"} for slot in slots),
            states_itself=self._states_itself(spec, named, slots, device_words),
            is_setting=(not needs_verb and named[:1] != ["take"]) or self._is_setting(spec, slots),
            slots=slots,
            own=frozenset(named),
        )

    def _parameter(self, device_id: str, name: str, spec: ParameterSpec) -> Frame:
        named = [word for word in self._lemmas(name) if word not in self._empty]
        nouns: dict[str, float] = {}
        for word in named:
            self._add(nouns, word, _NAME_NOUN)
        schema: dict[str, JsonValue] = {"type": spec.type, "unit": spec.unit, "minimum": spec.minimum}
        schema |= {"maximum": spec.maximum} | ({"enum": list(spec.enum)} if spec.enum else {})
        slot = self._slot(name, schema, required=True)
        return Frame(
            device_id=device_id,
            action=SET_PARAMETER,
            parameter=name,
            writable=spec.writable,
            nouns=nouns,
            is_setting=True,
            slots=(slot,),
            own=frozenset(named),
        )

    def _slots(self, schema: Mapping[str, JsonValue]) -> Iterable[Slot]:
        properties = schema.get("properties")
        required = schema.get("required")
        for name, declared in properties.items() if isinstance(properties, dict) else ():
            if isinstance(declared, dict):
                needed = isinstance(required, list) and name in required and "default" not in declared
                yield self._slot(name, declared, required=needed)

    def _slot(self, name: str, schema: Mapping[str, JsonValue], *, required: bool) -> Slot:
        lexicon = self._lexicon
        values = schema.get("enum")
        words = self._lemmas(name)
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
            nouns=nouns - self._empty,
            counts=kind == "number" and unit is None and any(word in lexicon.counting for word in words),
            senses=frozenset(kind for kind, values in self._kinds.items() if len(forms & values) >= 2),
        )

    def _choice(self, value: JsonValue, said: str) -> Choice:
        words = self._lemmas(said)
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

    def _tokens(self, text: str) -> list[Token]:
        words = self._vocabulary.words(text[:_MOST_CHARS])
        return [token for token in self._measures.tokens(words) if token.text not in MARKS]

    def _taught(self, example: str, slots: tuple[Slot, ...]) -> tuple[str, ...]:
        """Return the words of an example that are not function words, amounts or values; empty if it teaches none."""
        tokens = self._tokens(example)
        texts = [token.text for token in tokens]
        if not texts or " ".join(texts) in self._everyday or texts[0] in self._unteachable:
            return ()
        if (length := self._closers.ending(texts)) < len(texts):
            tokens = tokens[: len(tokens) - length]
        values = {words for slot in slots for choice in slot.choices for words, _ in choice.phrases}
        content: list[str] = []
        at = 0
        texts, lemmas = [token.text for token in tokens], [token.lemma for token in tokens]
        said = [word for word in lemmas if (word,) in values]
        switched = len(said) > 1 and said[-1] in {"on", "off"}
        while at < len(tokens):
            length = next((n for n in (3, 2, 1) if tuple(lemmas[at : at + n]) in values and at + n <= len(tokens)), 0)
            length = 0 if switched and lemmas[at] != said[-1] else length
            length = length or (0 if not at and len(tokens) > 1 else self._function.at(texts, at))
            if not length and tokens[at].amount is None:
                content.append(lemmas[at])
            at += length or 1
        return tuple(content)

    def _learn(
        self,
        content: tuple[str, ...],
        verbs: dict[str, float],
        nouns: dict[str, float],
        phrases: set[tuple[str, ...]],
        device_words: frozenset[str],
    ) -> None:
        lexicon = self._lexicon
        head, rest = content[0], content[1:]
        if head in lexicon.talk or (head in lexicon.generic and all(word in lexicon.generic for word in rest)):
            if len(content) > 1:
                phrases.add(content)
            return
        if head in lexicon.generic:
            self._add(verbs, head, _SUPPORT)
        elif head in device_words or head in nouns:
            rest = content
        else:
            self._add(verbs, head, _EXAMPLE)
        for word in rest:
            if word not in self._empty and word not in lexicon.generic and word not in device_words:
                self._add(nouns, word, _EXAMPLE_NOUN)
        if len(content) > 1 and (len(content) > 2 or head in lexicon.generic):
            phrases.add(content)

    def _describe(
        self, described: Sequence[Token], verbs: dict[str, float], nouns: dict[str, float], device_words: frozenset[str]
    ) -> None:
        for at, token in enumerate(described[:12]):
            word = token.lemma
            if word in self._empty or token.amount or word in self._lexicon.generic:
                continue
            if at == 0:
                verbs.setdefault(word, _DESCRIBED)
            elif word not in verbs and word not in device_words:
                nouns.setdefault(word, _DESCRIBED_NOUN)

    def _add(self, table: dict[str, float], word: str, weight: float, *, hyponyms: bool = False) -> None:
        table[word] = max(table.get(word, 0.0), weight)
        if weight <= _SUPPORT:
            return
        others = self.related.to(word) | (self.related.under(word) if hyponyms else frozenset())
        for other in others:
            table[other] = max(table.get(other, 0.0), weight * _SYNONYM)

    def _whole_verbs(self, examples: Sequence[tuple[str, ...]]) -> frozenset[str]:
        single = [content[0] for content in examples if len(content) == 1]
        return frozenset(other for verb in single for other in (verb, *self.related.to(verb)))

    def _object_verbs(self, spec: ActionSpec) -> frozenset[str]:
        """Return the verbs of examples like `grab it`, and others of the same meaning."""
        verbs: set[str] = set()
        for text in spec.examples[:_MOST_EXAMPLES]:
            words = [word for word in self._vocabulary.words(text[:_MOST_CHARS]) if not word.is_mark]
            if len(words) == 2 and words[1].text in _IT and words[0].lemma not in self._lexicon.talk:
                verbs |= {words[0].lemma, *self.related.to(words[0].lemma)}
        return frozenset(verbs)

    def _object_after(self, spec: ActionSpec) -> frozenset[str]:
        """Return the words before somebody: `at` of `wave at somebody`."""
        texts = (spec.description, *spec.examples[:_MOST_EXAMPLES])
        said = ([word.text for word in self._vocabulary.words(text[:_MOST_CHARS])] for text in texts)
        found = {words[at - 1] for words in said for at in range(1, len(words)) if words[at] in _SOMEBODY}
        pictures = {"photo", *self.related.to("photo"), "video"} & set(self._lemmas(spec.name))
        return frozenset(found & {"at", "to", "for", "with"} | ({"of"} if pictures else set()))

    def _states_itself(
        self, spec: ActionSpec, named: list[str], slots: tuple[Slot, ...], device_words: frozenset[str]
    ) -> bool:
        switches = [slot for slot in slots if slot.is_switch]
        if not switches or {"power", "switch", "toggle"} & set(named):
            return True
        known = device_words | {other for word in device_words for other in self.related.to(word)}
        contents = (self._taught(text, slots) for text in spec.examples[:_MOST_EXAMPLES])
        return any(content and set(content) <= known | self._lexicon.generic for content in contents)

    def _is_setting(self, spec: ActionSpec, slots: tuple[Slot, ...]) -> bool:
        if not any(slot.kind == "number" and slot.required for slot in slots):
            return False
        examples = [self._tokens(text) for text in spec.examples[:_MOST_EXAMPLES]]
        before = {tokens[at - 1].text for tokens in examples for at, token in enumerate(tokens) if token.amount and at}
        return "to" in before and "by" not in before


def _number(*values: JsonValue) -> float | None:
    return next((float(value) for value in values if isinstance(value, int | float) and value is not True), None)
