"""Answers: what somebody says to a question that was asked back, and the earlier wish that it completes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from naila.config.lexicon import Lexicon
from naila.fleet import FleetView
from naila.understanding.context import Decision
from naila.understanding.deciding import problem_of
from naila.understanding.filling import argument_name
from naila.understanding.fleet_index import Compiled, device_of, words_of
from naila.understanding.frames import Frame
from naila.understanding.gate import Gate, Wish
from naila.understanding.matching import Matcher
from naila.understanding.quantities import Token
from naila.understanding.reading import CannotDo, OpenQuestion, Step
from naila.understanding.refusing import next_question, not_among
from naila.understanding.words import Phrases

_YES = frozenset({"yes", "yeah", "yep", "yes please", "sure", "of course"})
_ARTICLES = frozenset({"the", "a", "an", "my", "to", "in", "at"})
_SHORTEST = 4
_MOST_WORDS = 2


@dataclass(frozen=True, slots=True)
class Chosen:
    """The device or the action that was meant; the words of the question are read again with it.

    Attributes:
        device_id: which device, where that was asked.
        action: which action, where that was asked.
    """

    device_id: str | None = None
    action: str | None = None


class Answers:
    """Reads answers.

    Args:
        lexicon: the language.
        matcher: explains words by frames.
        gate: knows what is only polite.
    """

    def __init__(self, lexicon: Lexicon, matcher: Matcher, gate: Gate) -> None:
        self._matcher = matcher
        self._gate = gate
        self._openers = Phrases(lexicon.answer_openers)
        self._function = Phrases(lexicon.function)
        self._ordinals = lexicon.ordinals
        single = (*lexicon.function, *lexicon.everyday, *lexicon.fillers, *lexicon.openers, *lexicon.closers)
        words = (*single, *lexicon.questions, *lexicon.subjects, *lexicon.negations, *lexicon.withdrawals)
        self._talk = frozenset(words) | lexicon.talk | lexicon.generic | lexicon.carriers

    def stripped(self, tokens: Sequence[Token]) -> list[Token]:
        """Return an answer without what only introduces it."""
        kept = self._gate.strip(tokens)[0]
        while kept and (length := self._openers.at([token.text for token in kept], 0)) and length < len(kept):
            kept = self._gate.strip(kept[length:])[0]
        return kept or list(tokens)

    def argument(
        self, tokens: Sequence[Token], question: OpenQuestion, view: FleetView, fleet: Compiled
    ) -> Decision | None:
        """Return what an answer makes of the wish, None where it does not answer the question."""
        frame = _frame(question, fleet)
        if frame is None or question.argument is None or question.device_id is None:
            return None
        kept = self.stripped(tokens)
        asked = next((slot for slot in frame.slots if argument_name(frame, slot) == question.argument), None)
        if asked and words_of(tokens) in _YES and any(choice.value is True for choice in asked.choices):
            arguments = {**question.arguments, question.argument: True}
            return (Step(device_id=frame.device_id, name=frame.action, arguments=arguments),)
        wish = Wish(tokens=tuple(kept), mentions=fleet.names.mentions(kept))
        device = device_of(view, question.device_id)
        given = question.arguments
        if frame.parameter is not None:
            given = {}
        choices = {slot.name for slot in frame.slots if slot.kind == "choice"}
        rest = {name: value for name, value in given.items() if name not in choices}
        for read, known in ((self._only_argument(wish), given), (wish, given), (wish, rest)):
            match = self._matcher.match(frame, read, device, inherited=True, given=known)
            if match is None or match.unexplained:
                continue
            if match.problems and not match.problems[0].argument.startswith("name"):
                return problem_of(match)
            is_other = question.argument not in match.arguments
            if is_other and (frame.parameter is not None or dict(match.arguments) == known):
                continue
            whole = replace(match, arguments={**given, **match.arguments})
            if match.missing:
                return next_question(whole, question.text)
            return (Step(device_id=frame.device_id, name=frame.action, arguments=dict(whole.arguments)),)
        return None

    def unknown(self, tokens: Sequence[Token], question: OpenQuestion, fleet: Compiled) -> CannotDo | None:
        """Return what an answer names that is none of the values that can be: `the garage`."""
        frame = _frame(question, fleet)
        slots = frame.slots if frame is not None else ()
        slot = next((slot for slot in slots if frame and argument_name(frame, slot) == question.argument), None)
        kept = self.stripped(tokens)
        named = [token for token in kept if token.text not in _ARTICLES]
        is_named = len(named) < len(kept) or (len(named) == 1 and len(named[0].text) >= _SHORTEST)
        if frame is None or slot is None or not slot.choices or slot.is_switch or not is_named or not named:
            return None
        are_things = all(token.form == "base" and token.text.isalpha() for token in named)
        if len(named) > _MOST_WORDS or not are_things or any(token.lemma in self._talk for token in named):
            return None
        return not_among(frame, slot, words_of(kept))

    @staticmethod
    def _only_argument(wish: Wish) -> Wish:
        """Return a wish in which a value may have the name of a device."""
        return replace(wish, mentions=())

    def choice(
        self, tokens: Sequence[Token], question: OpenQuestion, view: FleetView, fleet: Compiled
    ) -> Chosen | None:
        """Return which device or action an answer chooses, None if none."""
        kept = self.stripped(tokens)
        lemmas = [token.lemma for token in kept]
        ordinal = self._ordinal([token.text for token in kept], len(question.choices))
        if question.kind == "device":
            if ordinal is not None:
                return Chosen(device_id=question.choices[ordinal])
            mentioned = {
                device
                for mention in fleet.names.mentions(kept)
                for device in mention.devices
                if device in question.choices and mention.end - mention.start >= len(kept) - 1
            }
            mentioned = mentioned or {device for device in question.choices if _is_room(view, device, lemmas)}
            return Chosen(device_id=mentioned.pop()) if len(mentioned) == 1 else None
        if ordinal is not None:
            return Chosen(action=question.choices[ordinal])
        named = [name for name in question.choices if set(name.casefold().replace("_", " ").split()) & set(lemmas)]
        return Chosen(action=named[0]) if len(named) == 1 and len(lemmas) <= 4 else None

    def _ordinal(self, texts: list[str], choices: int) -> int | None:
        said = [self._ordinals[text] for text in texts if text in self._ordinals]
        if not said or len(texts) > 4:
            return None
        place = said[0] - 1 if said[0] > 0 else choices + said[0]
        return place if 0 <= place < choices else None


def _frame(question: OpenQuestion, fleet: Compiled) -> Frame | None:
    parameter = question.arguments.get("name") if question.argument == "value" else None
    for frame in fleet.frames.get(question.device_id or "", ()):
        if frame.action == question.action and (frame.parameter is None or frame.parameter == parameter):
            return frame
    return None


def _is_room(view: FleetView, device: str, lemmas: list[str]) -> bool:
    room = device_of(view, device).profile.room
    return bool(room) and set(str(room).casefold().split()) <= set(lemmas)
