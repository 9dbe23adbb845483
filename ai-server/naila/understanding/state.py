"""Questions about state: what devices measure, can do, are doing, and whether they are there."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Final

from naila.config.lexicon import Lexicon
from naila.fleet import DeviceView, FleetView
from naila.understanding.compiler import Compiler
from naila.understanding.fields import Fields
from naila.understanding.fleet_index import Compiled, words_of
from naila.understanding.gate import Gate
from naila.understanding.quantities import Token, Units
from naila.understanding.reading import StateQuestion, StateTopic
from naila.understanding.targets import Mention
from naila.understanding.words import Phrases

_LONGEST: Final = 20
_CANONICAL: Final = {"is": "are", "does": "do", "has": "have", "it": "you", "am": "are", "'s": ""}
_HANDING: Final = frozenset({"give", "show"})
_PLACES: Final = frozenset({"there", "here"})
_LONGEST_PRESENCE: Final = 6
_REPORTS: Final = frozenset({"status", "report", "state"})
_MOST_FIELDS: Final = 6
_LEADS: Final = frozenset({"for", "on", "in", "at", "by", "with", "under", "off"})
_PREPOSITIONS: Final = frozenset({"on", "of", "in", "at", "by", "from", "inside"})


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, prepared.

    Attributes:
        tokens: its words.
        content: base forms and texts of the words that ask for something in particular.
        canonical: its words with every device made `you`.
        device: about whom, where it says so.
        every: about everybody.
        own: it says "you" or "your".
        is_question: by its beginning or its question mark.
    """

    tokens: tuple[Token, ...]
    content: tuple[tuple[str, str], ...]
    canonical: str
    device: str | None
    every: bool
    own: bool
    is_question: bool


class StateQuestions:
    """Recognises questions that telemetry and declarations answer.

    Args:
        lexicon: the language.
        compiler: knows the words of devices.
        gate: knows what is only polite.
        units: units of measurement.
    """

    def __init__(self, lexicon: Lexicon, compiler: Compiler, gate: Gate, units: Units) -> None:
        wording = lexicon.state
        self._compiler = compiler
        self._fields = Fields(lexicon, compiler, units)
        self._gate = gate
        self._ask = Phrases(wording.ask)
        self._plain = wording.plain
        self._adjectives = wording.adjectives
        self._relative = lexicon.relative
        self._trends = Phrases(wording.trends)
        self._capabilities = frozenset(map(_canonical_text, wording.capabilities))
        self._capability_words = wording.capability_words
        self._presence = Phrases(wording.presence)
        self._presence_questions = frozenset(wording.presence_questions)
        self._those = wording.those
        self._who = wording.presence_words | wording.those
        self._places = frozenset(map(_canonical_text, wording.places))
        self._activity = frozenset(map(_canonical_text, wording.activity))
        self._doing = wording.doing
        self._positions = wording.positions
        self._pronouns = frozenset(word for word in lexicon.pronouns if " " not in word)
        self._everyday = frozenset(lexicon.everyday)

    def begins_question(self, tokens: Sequence[Token]) -> bool:
        """Whether a sentence begins as a question does."""
        kept = self._gate.strip(tokens)[0]
        return bool(self._ask.at([token.text for token in kept], 0))

    def read(
        self, tokens: Sequence[Token], view: FleetView, fleet: Compiled, *, asked: bool, about: str | None
    ) -> StateQuestion | None:
        """Return what is asked, None if it is no question that a device can answer.

        Args:
            tokens: one sentence, without marks.
            view: the fleet.
            fleet: the same, compiled.
            asked: whether it ends in a question mark.
            about: the device that was spoken of before.
        """
        kept = self._gate.strip(tokens)[0]
        if kept and tokens[-1].text in _PLACES and kept[-1] is not tokens[-1]:
            kept = [*kept, tokens[-1]]
        if {words_of(tokens), words_of(kept)} & self._presence_questions:
            return StateQuestion(topic="presence")
        if not kept or len(kept) > _LONGEST or any(token.amount and token.amount.unit for token in kept):
            return None
        question = self._prepared(kept, view, fleet, asked=asked, about=about)
        return self._general(question, view) or self._particular(question, view, fleet)

    def _prepared(
        self, kept: list[Token], view: FleetView, fleet: Compiled, *, asked: bool, about: str | None
    ) -> _Asked:
        texts = [token.text for token in kept]
        has_own = view.device(view.speaker) is not None
        mentions = [each for each in fleet.names.mentions(kept) if not (has_own and texts[each.start] == "your")]
        places = {place: mention for mention in mentions for place in range(mention.start, mention.end)}
        first = places[0].end if 0 in places else 0
        start = first + length if (length := self._ask.at(texts, first)) else 0
        canonical: list[str] = []
        content: list[tuple[str, str]] = []
        rooms = _Rooms(fleet, kept, places)
        for at, token in enumerate(kept):
            if at in places or at in rooms.places:
                if at in places and at == places[at].start:
                    canonical.append("you")
                continue
            canonical.append(_CANONICAL.get(token.text, token.text))
            before_device = token.text in _PREPOSITIONS and at + 1 in places
            if at >= start and token.text not in self._plain and not before_device:
                content.append((token.lemma, token.text))
        own = bool({"you", "your", "yourself"} & set(texts))
        device = _device(mentions, view) or rooms.device
        if device is None and not own and self._pronouns & set(texts):
            device = about
        if device is None and own and view.device(view.speaker):
            device = view.speaker
        return _Asked(
            tokens=tuple(kept),
            content=tuple(content),
            canonical=_merged(canonical),
            device=device,
            every=any(mention.every for mention in mentions),
            own=own,
            is_question=asked or bool(start),
        )

    def _general(self, question: _Asked, view: FleetView) -> StateQuestion | None:
        device = question.device or (view.speaker if view.device(view.speaker) and question.own else None)
        if question.canonical in self._places:
            names = self._position_fields(view, device)
            is_report = names and _REPORTS & {token.text for token in question.tokens}
            return StateQuestion(topic="reading" if is_report else "presence", device_id=device, names=names)
        if device is not None and not question.content and _REPORTS & {token.text for token in question.tokens}:
            fields = view.device(device)
            names = tuple(fields.profile.telemetry)[:_MOST_FIELDS] if fields else ()
            return StateQuestion(topic="reading", device_id=device, names=names)
        if self._asks_who(question):
            return StateQuestion(topic="presence")
        if question.canonical in self._activity:
            return StateQuestion(topic="activity", device_id=device)
        if question.canonical in self._capabilities or self._asks_capabilities(question):
            return StateQuestion(topic="capabilities", device_id=device)
        words = question.canonical.split()
        if words[:2] == ["are", "you"] and len(words) <= _LONGEST_PRESENCE:
            rest = [word for word in words[2:] if word not in {"still", "now", "right", "currently", "yet", "really"}]
            if rest and self._presence.at(rest, 0) == len(rest) and (question.device or question.own or question.every):
                return StateQuestion(topic="presence", device_id=device)
        return None

    def _asks_who(self, question: _Asked) -> bool:
        words = {token.text for token in question.tokens}
        is_asked = question.is_question or question.tokens[0].text in {"list", "show", "name"}
        return bool(words & self._those) and words <= self._who and is_asked

    def _asks_capabilities(self, question: _Asked) -> bool:
        words = set(question.canonical.split())
        key = {
            "capable",
            "capabilities",
            "capability",
            "abilities",
            "ability",
            "skills",
            "commands",
            "actions",
            "tricks",
        }
        whole = words <= self._capability_words and bool(words & (key | {"able"}) or {"can", "do", "what"} <= words)
        return whole and len(words) > 2 and question.is_question

    def _position_fields(self, view: FleetView, device: str | None) -> tuple[str, ...]:
        found = view.device(device) if device else None
        if found is None:
            return ()
        return tuple(name for name in found.profile.telemetry if self._positions & set(name.casefold().split("_")))

    def _particular(self, question: _Asked, view: FleetView, fleet: Compiled) -> StateQuestion | None:
        """Return the field or parameter that is asked about."""
        offered = self._offered(question, fleet) or self._limit(question, view, fleet)
        if offered is not None or not self._may_be_asked(question):
            return offered
        doing = self._doing_of(question, fleet)
        devices = self._asked_devices(question, view)
        question = _without_doing(question, fleet, devices)
        trends = {text for _, text in question.content if self._trends.at([text], 0)}
        content = [pair for pair in question.content if pair[1] not in trends] or list(question.content)
        best: tuple[float, bool, str, str, str] | None = None
        for device in devices:
            device_id = device.profile.device_id
            for name, score, topic in self._fields.asked(device, content):
                rank = (round(score, 3), device_id == (question.device or view.speaker))
                if best is None or rank > best[:2]:
                    best = (*rank, device_id, name, topic)
        if best is None or (doing is not None and best[4] == "field" and not _is_called(question, best[3])):
            return doing
        is_named = {lemma for lemma, _ in question.content} & set(self._compiler.lemmas(best[3]))
        if not is_named and (not question.is_question or question.tokens[0].text in _HANDING):
            return None
        return self._about_field(question, best[2], best[3], is_parameter=best[4] == "parameter", is_trend=bool(trends))

    def _about_field(
        self, question: _Asked, device_id: str, name: str, *, is_parameter: bool, is_trend: bool
    ) -> StateQuestion:
        adjective = self._adjective(question)
        topic: StateTopic = "reading"
        if is_parameter:
            topic = "parameter"
        elif is_trend:
            topic = "trend"
        elif question.canonical.split()[0] in {"are", "do", "have"}:
            topic, adjective = "condition", adjective or question.tokens[-1].text
        else:
            adjective = None
        return StateQuestion(topic=topic, device_id=device_id, names=(name,), adjective=adjective)

    def _may_be_asked(self, question: _Asked) -> bool:
        """Whether something in particular is asked; a few words alone only where they name it: `battery level`."""
        said = {words_of(question.tokens), question.canonical.removesuffix(" you")}
        if not question.content or said & self._everyday:
            return False
        compares = any(text in self._adjectives or text in self._relative for _, text in question.content)
        states = "are" in question.canonical.split() or question.tokens[0].text in _LEADS
        return question.is_question or (len(question.tokens) <= 4 and not compares and not states)

    @staticmethod
    def _offered(question: _Asked, fleet: Compiled) -> StateQuestion | None:
        """Read `what colors can you make`: which values an argument can have."""
        words = question.canonical.split()
        if words[:1] not in (["what"], ["which"]) or "can" not in words or question.device is None:
            return None
        for frame in fleet.frames.get(question.device, ()):
            nouns = {noun for slot in frame.slots if slot.choices for noun in slot.nouns}
            if question.content and question.content[0][0] in nouns:
                return StateQuestion(topic="capabilities", device_id=question.device, names=(frame.action,))
        return None

    def _limit(self, question: _Asked, view: FleetView, fleet: Compiled) -> StateQuestion | None:
        """Read `how high can you fly`: a parameter that limits it, else the action whose argument it is."""
        words = question.canonical.split()
        device = view.device(question.device) if question.device else None
        if words[:1] != ["how"] or words[2:4] != ["can", "you"] or device is None:
            return None
        attribute = self._adjectives.get(words[1])
        device_id, parameters = device.profile.device_id, device.profile.parameters
        for name in (name for name in parameters if attribute):
            parts = self._compiler.lemmas(name)
            related = {other for part in parts for other in (part, *self._compiler.related.to(part))}
            if attribute in related and "max" in related:
                return StateQuestion(topic="parameter", device_id=device_id, names=(name,))
        for frame in fleet.frames.get(device_id, ()):
            nouns = {noun for slot in frame.slots if slot.kind == "number" for noun in slot.nouns}
            if attribute in nouns and any(lemma in frame.verbs for lemma, _ in question.content):
                return StateQuestion(topic="capabilities", device_id=device_id, names=(frame.action,))
        return None

    def _asked_devices(self, question: _Asked, view: FleetView) -> list[DeviceView]:
        if question.device is not None:
            found = view.device(question.device)
            if found is not None:
                return [found]
        return list(view.devices)

    def _doing_of(self, question: _Asked, fleet: Compiled) -> StateQuestion | None:
        words = question.canonical.split()
        if words[:2] != ["are", "you"] or len(question.content) != 1 or question.device is None:
            return None
        lemma, text = question.content[0]
        if text in self._doing or (text.endswith("ing") and lemma in fleet.verbs):
            return StateQuestion(topic="activity", device_id=question.device)
        return None

    def _adjective(self, question: _Asked) -> str | None:
        for lemma, text in question.content:
            if lemma in self._adjectives:
                return lemma
            if text in self._relative and text.endswith("er"):
                return text
        return None


def _is_called(question: _Asked, name: str) -> bool:
    """Whether a field is called by the very word that was said, as `tracking`: that is asked, not what goes on."""
    text = question.content[0][1]
    return not text.endswith("ing") or text in name.casefold().split("_")


def _without_doing(question: _Asked, fleet: Compiled, devices: Sequence[DeviceView]) -> _Asked:
    """Leave out at what the device is: the `spinning` of `how fast is the fan spinning`; not of a `cutting_height`."""
    names = (name for device in devices for name in (*device.profile.telemetry, *device.profile.parameters))
    called = {part for name in names if "_" in name for part in name.casefold().split("_")}
    doing = {text for lemma, text in question.content if text.endswith("ing") and lemma in fleet.verbs} - called
    kept = tuple(pair for pair in question.content if pair[1] not in doing)
    return replace(question, content=kept) if kept and len(question.content) > 1 else question


class _Rooms:
    """The rooms that a question names, and the one device that is there."""

    def __init__(self, fleet: Compiled, tokens: Sequence[Token], taken: Container[int]) -> None:
        lemmas = [token.lemma for token in tokens]
        self.places: set[int] = set()
        self.device: str | None = None
        for at in range(len(lemmas)):
            devices, length = fleet.names.room_at(lemmas, at) if at not in taken else (frozenset(), 0)
            self.places.update(range(at, at + length))
            if len(devices) == 1:
                self.device = next(iter(devices))


def _device(mentions: Sequence[Mention], view: FleetView) -> str | None:
    for mention in mentions:
        if mention.every:
            return None
        if len(mention.devices) == 1:
            return next(iter(mention.devices))
        if view.speaker in mention.devices:
            return view.speaker
    return None


def _canonical_text(text: str) -> str:
    return _merged([_CANONICAL.get(word, word) for word in text.split()])


def _merged(words: Sequence[str]) -> str:
    kept = [word for at, word in enumerate(words) if word and not (word == "you" and at and words[at - 1] == "you")]
    return " ".join(kept)
