"""Answers: what somebody says to a question that was asked back, and the earlier wish that it completes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from naila.config.lexicon import Lexicon
from naila.fleet import FleetView
from naila.understanding.deciding import Decision, next_question, problem_of
from naila.understanding.fleet_index import Compiled, device_of
from naila.understanding.frames import Frame
from naila.understanding.gate import Gate, Wish
from naila.understanding.matching import Matcher
from naila.understanding.quantities import Token
from naila.understanding.reading import OpenQuestion, Step
from naila.understanding.words import Phrases


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
        wish = Wish(tokens=tuple(kept), mentions=fleet.names.mentions(kept))
        device = device_of(view, question.device_id)
        given = question.arguments
        if frame.parameter is not None:
            given = {}
        for read in (self._only_argument(wish), wish):
            match = self._matcher.match(frame, read, device, inherited=True, given=given)
            if match is None or match.unexplained:
                continue
            if match.problems and not match.problems[0].argument.startswith("name"):
                return problem_of(match)
            if question.argument not in match.arguments:
                continue
            if match.missing:
                return next_question(match, question.text)
            return (Step(device_id=frame.device_id, name=frame.action, arguments=dict(match.arguments)),)
        return None

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
