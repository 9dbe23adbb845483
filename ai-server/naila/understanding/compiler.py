"""The compiler: it makes frames of what a device declared, with the words that people may say for it.

An action's name, description and examples teach the words that stand for it. They are a device's words, so they are
taken as words only: function words, small talk and phrases that are said all day never come to stand for an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from naila.config.lexicon import Lexicon
from naila.events import JsonValue
from naila.fleet import SET_PARAMETER, STOP, ActionSpec, DeviceProfile, ParameterSpec
from naila.understanding.examples import counting, is_setting, ways_of
from naila.understanding.frames import MOVERS, WAYS, Frame, Slot
from naila.understanding.quantities import Measures, Token, Units
from naila.understanding.related import Related
from naila.understanding.slots import Slots
from naila.understanding.words import MARKS, Phrases, Vocabulary, template_of

_MOST_EXAMPLES: Final = 24
_MOST_CHARS: Final = 120
_SETTING: Final = frozenset(
    {"set", "change", "switch", "select", "choose", "adjust", "make", "configure", "power", "toggle"}
)
_LETTING: Final = frozenset({"let", "come", "go"})  # `let me in` is not `let me`
_GOALS: Final = frozenset({"target", "place", "position", "destination", "location", "pose", "preset", "goal", "spot"})
_IT: Final = frozenset({"it", "that", "this", "something"})
_SOMEBODY: Final = frozenset({"somebody", "someone", "anybody", "people"})
_NAME, _EXAMPLE, _SYNONYM, _DESCRIBED, _SUPPORT = 1.0, 0.9, 0.85, 0.5, 0.3
_NAME_NOUN, _EXAMPLE_NOUN, _DESCRIBED_NOUN = 0.8, 0.6, 0.2


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
        self._measures = measures
        self.related = Related(lexicon, vocabulary)
        self._function = Phrases((*lexicon.function, *lexicon.fillers, *lexicon.particles, *lexicon.hedges))
        self._articles = Phrases(lexicon.function)
        self._closers = Phrases(lexicon.closers)
        self._everyday = frozenset(lexicon.everyday) | frozenset(lexicon.again) | frozenset(lexicon.withdrawals)
        questions = (*lexicon.questions, *lexicon.subjects, *lexicon.negations, "hello", "hi", "thanks", "thank", "yes")
        self._unteachable = frozenset(word for word in questions if " " not in word)
        single = (*lexicon.function, *lexicon.fillers, *lexicon.closers, *lexicon.openers, *lexicon.subordinators)
        self._empty = frozenset(word for word in single if " " not in word) | self._unteachable | lexicon.talk
        self._slots = Slots(lexicon, vocabulary, units, self.related, empty=self._empty, unteachable=self._unteachable)

    def frames(self, profile: DeviceProfile) -> tuple[Frame, ...]:
        """Return the frames of everything that a device declared, actions first."""
        device_words = frozenset(self._lemmas(profile.name)) | frozenset(self._lemmas(profile.device_id))
        actions = [
            self._action(profile.device_id, action, device_words)
            for action in profile.actions.values()
            if action.name not in {STOP, SET_PARAMETER}
        ]
        parameters = [self._parameter(profile.device_id, name, spec) for name, spec in profile.parameters.items()]
        moved = frozenset(way for frame in actions for way in frame.ways)
        return tuple(replace(frame, moved=moved, words=self._words(frame)) for frame in (*actions, *parameters))

    def _words(self, frame: Frame) -> frozenset[str]:
        values = (words[0] for slot in frame.slots for choice in slot.choices for words, _ in choice.phrases)
        heads = {phrase[0] for phrase in frame.phrases}
        others = (other for head in heads for other in self.related.to(head))
        examples = (word for template in frame.templates for word in template if word != "*")
        return frozenset((*examples, *frame.verbs, *frame.nouns, *values, *heads, *others))

    def lemmas(self, text: str) -> tuple[str, ...]:
        """Return the base forms of a text's words."""
        return self._lemmas(text)

    def _lemmas(self, text: str) -> tuple[str, ...]:
        return self._vocabulary.lemmas(text)

    def _action(self, device_id: str, spec: ActionSpec, device_words: frozenset[str]) -> Frame:
        slots = tuple(self._slots.of(spec.parameters))
        named = [word for word in self._lemmas(spec.name) if len(word) > 1]
        said = [self._tokens(text) for text in spec.examples[:_MOST_EXAMPLES]]
        values = {words for slot in slots for choice in slot.choices for words, _ in choice.phrases}
        examples = [taught for tokens in said if (taught := self._taught(tokens, values))]
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
        for tokens in said:
            self._learn_named(tokens, verbs, device_words)
        self._describe(described, verbs, nouns, device_words.union(*values))
        if len(named) > 1:
            phrases.add(tuple(named))
        self._paraphrase(verbs, phrases)
        ways = ways_of(examples, device_words) if not any(slot.required for slot in slots) else frozenset()
        for verb in (verb for way in ways for verb in (*MOVERS, *WAYS[way])):
            verbs.setdefault(verb, _SUPPORT)
        if any(slot.required and slot.kind == "choice" and slot.nouns & _GOALS for slot in slots):
            verbs.setdefault("go", _DESCRIBED)
        return Frame(
            device_id=device_id,
            action=spec.name,
            verbs=verbs,
            nouns=nouns,
            phrases=frozenset(phrases),
            templates=frozenset(template for tokens in said if (template := self._template(tokens, values))),
            needs_verb=needs_verb,
            whole_verbs=self._whole_verbs(examples, named if len(named) == 1 else []),
            switching=self._switching(said, slots, values),
            object_verbs=self._object_verbs(said),
            object_after=self._object_after(spec, said),
            ways=ways,
            sets=bool(set(named[:1]) & _SETTING) or any(slot.senses & {"colour", "state"} for slot in slots),
            orders=any(self._is_order(tokens, values) for tokens in said),
            states_itself=self._states_itself(examples, named, slots, device_words),
            is_setting=(not needs_verb and named[:1] != ["take"]) or is_setting(said, slots),
            slots=counting(said, slots, values),
            own=frozenset(named),
        )

    def _parameter(self, device_id: str, name: str, spec: ParameterSpec) -> Frame:
        named = [word for word in self._lemmas(name) if word not in self._empty]
        nouns: dict[str, float] = {}
        for word in named:
            self._add(nouns, word, _NAME_NOUN)
        schema: dict[str, JsonValue] = {"type": spec.type, "unit": spec.unit, "minimum": spec.minimum}
        schema |= {"maximum": spec.maximum} | ({"enum": list(spec.enum)} if spec.enum else {})
        slot = self._slots.one(name, schema, required=True)
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

    def _tokens(self, text: str) -> list[Token]:
        words = self._vocabulary.words(text[:_MOST_CHARS])
        return [token for token in self._measures.tokens(words) if token.text not in MARKS]

    def _taught(self, tokens: Sequence[Token], values: AbstractSet[tuple[str, ...]]) -> tuple[str, ...]:
        """Return the words of an example that are not function words, amounts or values; empty if it teaches none."""
        texts = [token.text for token in tokens]
        if not texts or " ".join(texts) in self._everyday or texts[0] in self._unteachable:
            return ()
        if len(texts[0]) == 1 and texts[0].isascii() and texts[0].isalpha():
            return ()
        if (length := self._closers.ending(texts)) < len(texts):
            tokens = tokens[: len(tokens) - length]
        content: list[str] = []
        at = 0
        texts, lemmas = [token.text for token in tokens], [token.lemma for token in tokens]
        said = [word for word in lemmas if (word,) in values]
        switched = len(said) > 1 and said[-1] in {"on", "off"}
        while at < len(tokens):
            length = next((n for n in (3, 2, 1) if tuple(lemmas[at : at + n]) in values and at + n <= len(tokens)), 0)
            length = 0 if switched and lemmas[at] != said[-1] else length
            is_whither = at == len(tokens) - 1 and texts[at] == "in" and bool(content) and content[0] in _LETTING
            length = length or (0 if is_whither or (not at and len(tokens) > 1) else self._function.at(texts, at))
            if not length and tokens[at].amount is None:
                content.append(lemmas[at])
            at += length or 1
        return tuple(content)

    def _template(self, tokens: Sequence[Token], values: AbstractSet[tuple[str, ...]]) -> tuple[str, ...]:
        """Return an example's words with a star for each value and amount; empty where it has no word left."""
        texts, lemmas = [token.text for token in tokens], [token.lemma for token in tokens]
        if not texts or " ".join(texts) in self._everyday or texts[0] in self._unteachable | self._lexicon.talk:
            return ()
        used: set[int] = set()
        for at in range(len(tokens)):
            length = next((n for n in (3, 2, 1) if tuple(lemmas[at : at + n]) in values and at + n <= len(tokens)), 0)
            used.update(range(at, at + length))
        used.update(at for at, token in enumerate(tokens) if token.amount)
        return template_of(texts, lemmas, used, self._articles)

    def _is_order(self, tokens: Sequence[Token], values: AbstractSet[tuple[str, ...]]) -> bool:
        """Whether an example says only how many of a value."""
        rest = tokens[: len(tokens) - self._closers.ending([token.text for token in tokens])]
        amounts = [token for token in rest if token.amount]
        return len(amounts) == 1 and tuple(token.lemma for token in rest if not token.amount) in values

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
            others = {other for word in rest for other in (word, *self.related.to(word))} - lexicon.generic
            nouns.update({other: _SUPPORT for other in others if other not in nouns})  # `hi` of `say hi`
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

    def _learn_named(self, tokens: Sequence[Token], verbs: dict[str, float], device_words: frozenset[str]) -> None:
        """Learn a verb that is what the device is called, too: `pump for one minute`."""
        if len(tokens) > 1 and tokens[0].lemma in device_words and (tokens[1].amount or tokens[1].text == "for"):
            self._add(verbs, tokens[0].lemma, _EXAMPLE)

    def _paraphrase(self, verbs: dict[str, float], phrases: set[tuple[str, ...]]) -> None:
        """Learn the phrases that mean the same as a verb or a phrase: `lift off` of `take off`."""
        for single, several in self.related.phrase_groups:
            if phrases & set(several) or any(verbs.get(word, 0.0) > _DESCRIBED for word in single):
                phrases.update(several)
                for word in single:
                    verbs[word] = max(verbs.get(word, 0.0), _EXAMPLE * _SYNONYM)

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

    def _whole_verbs(self, examples: Sequence[tuple[str, ...]], named: Sequence[str]) -> frozenset[str]:
        """Return the verbs that say all: those that an example gives alone, and the one that the action is named by."""
        taught = [content[0] for content in examples if len(content) == 1]
        single = [*(verb for verb in taught if verb not in self._lexicon.generic), *named]
        under = (other for verb in named for other in self.related.under(verb))
        return frozenset((*under, *(other for verb in single for other in (verb, *self.related.to(verb)))))

    def _object_verbs(self, said: Sequence[Sequence[Token]]) -> frozenset[str]:
        """Return the verbs of examples like `grab it`, and others of the same meaning."""
        verbs: set[str] = set()
        for words in said:
            if len(words) == 2 and words[1].text in _IT and words[0].lemma not in self._lexicon.talk:
                verbs |= {words[0].lemma, *self.related.to(words[0].lemma)}
        return frozenset(verbs)

    def _switching(
        self, said: Sequence[Sequence[Token]], slots: tuple[Slot, ...], values: AbstractSet[tuple[str, ...]]
    ) -> frozenset[str]:
        """Return the verbs of examples like `mute`, which leave out that it is to be on."""
        required = [slot for slot in slots if slot.required]
        if len(required) != 1 or not required[0].is_switch:
            return frozenset()
        alone = (tokens[0].lemma for tokens in said if len(tokens) == 1 and (tokens[0].lemma,) not in values)
        return frozenset(alone) - self._lexicon.generic - self._empty

    def _object_after(self, spec: ActionSpec, said: Sequence[Sequence[Token]]) -> frozenset[str]:
        """Return the words before somebody: `at` of `wave at somebody`."""
        texts = ([token.text for token in tokens] for tokens in (self._tokens(spec.description), *said))
        found = {words[at - 1] for words in texts for at in range(1, len(words)) if words[at] in _SOMEBODY}
        pictures = {"photo", *self.related.to("photo"), "video"} & set(self._lemmas(spec.name))
        towards = {"at", "to"} if found & {"at", "to"} else set()
        return frozenset(found & {"for", "with"} | towards | ({"of"} if pictures else set()))

    def _states_itself(
        self,
        examples: Sequence[tuple[str, ...]],
        named: list[str],
        slots: tuple[Slot, ...],
        device_words: frozenset[str],
    ) -> bool:
        switches = [slot for slot in slots if slot.is_switch]
        if not switches or {"power", "switch", "toggle"} & set(named):
            return True
        known = device_words | {other for word in device_words for other in self.related.to(word)}
        return any(set(content) <= known | self._lexicon.generic for content in examples)
