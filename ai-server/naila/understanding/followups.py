"""Follow-ups: what corrects or continues the command that was just given: `no, left`, `I meant two meters`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from naila.config.lexicon import Lexicon
from naila.understanding.context import Context
from naila.understanding.deciding import problem_of
from naila.understanding.fleet_index import device_of, words_of
from naila.understanding.frames import Frame
from naila.understanding.gate import Gate, Wish
from naila.understanding.matching import Matcher
from naila.understanding.quantities import Token
from naila.understanding.reading import AskBack, CannotDo, Commands, Doubtful, NotACommand, OpenQuestion, Reading, Step
from naila.understanding.refusing import unknown_goal
from naila.understanding.words import Phrases

_LONGEST: Final = 10
_ALSO: Final = ("too", "as well", "also")
_LIKE: Final = 10  # how many times as much as before is still meant in the same unit


class FollowUps:
    """Reads follow-ups: only what is said anew of the last command changes.

    Args:
        lexicon: the language.
        matcher: explains words by frames.
        gate: tells wishes from talk.
    """

    def __init__(self, lexicon: Lexicon, matcher: Matcher, gate: Gate) -> None:
        self._matcher = matcher
        self._gate = gate
        self._leads = Phrases((*lexicon.corrections, *lexicon.continuations))
        self._also = Phrases(_ALSO)

    def read(
        self, plain: Sequence[Token], last: Sequence[Step], fresh: Reading, context: Context, *, done: bool = True
    ) -> Reading:
        """Return what a text makes of the last command, `fresh` where it does not follow it up.

        Args:
            plain: the words, without marks.
            last: the steps of the last command.
            fresh: what the text was read as by itself.
            context: what is known.
            done: the last command was given before, and may be done by now.
        """
        rest, again = self._rest(plain) if last and len(plain) <= _LONGEST else ((), False)
        if not rest or not _is_open(fresh, last[-1]):
            return fresh
        frame = _frame(last[-1], context)
        wish = self._gate.open(rest, context.fleet.names.mentions, asked=False)
        if frame is None or isinstance(wish, str) or wish.mood not in {"plain", "request"}:
            return fresh
        changed = self._changed(frame, wish, last[-1], context) or fresh
        if again:
            return changed if _is_as_much(changed, frame, last[-1]) else fresh
        return _asked_again(changed, frame, last[-1], plain) if done else changed

    def thing(self, last: Sequence[Step], context: Context) -> str | None:
        """Return what the last command was done to, where it is called by one word: the `gripper` it opened."""
        frame = _frame(last[-1], context) if last else None
        if frame is None or frame.parameter is not None or frame.device_id != context.about:
            return None
        things = [word for word in frame.own if not frame.verbs.get(word) and frame.nouns.get(word)]
        return things[0] if len(things) == 1 else None

    def _rest(self, plain: Sequence[Token]) -> tuple[Sequence[Token], bool]:
        """Return what follows `no`, `I meant`, `and`, or comes before `too`, and whether it is to be done once more.

        Nothing where nothing of that begins or ends it.
        """
        texts = [token.text for token in plain]
        if (said := _another(plain)) is not None:
            return (said,), True
        at = 0
        while length := self._leads.at(texts, at):
            at += length
        length = self._also.ending(texts)
        return (plain[at : len(plain) - length], False) if at or length else ((), False)

    def _changed(self, frame: Frame, wish: Wish, last: Step, context: Context) -> Reading | None:
        device = device_of(context.view, frame.device_id)
        match = self._matcher.match(frame, wish, device, inherited=True)
        if match is None or match.unexplained:
            return unknown_goal(wish, replace(context, before=(frame,)))
        if match.problems:
            return problem_of(match)
        if not match.arguments.keys() - {"name"}:
            return None
        return Commands(
            (Step(device_id=last.device_id, name=last.name, arguments={**last.arguments, **match.arguments}),)
        )


def _asked_again(changed: Reading, frame: Frame, last: Step, plain: Sequence[Token]) -> Reading:
    """Return a question where a movement that may be done would be done again: `no, two meters` after one meter."""
    step = changed.steps[0] if isinstance(changed, Commands) else None
    if step is None or frame.is_setting or frame.parameter is not None:
        return changed
    for slot in frame.slots:
        was, now = last.arguments.get(slot.name), step.arguments.get(slot.name)
        if slot.kind == "number" and slot.unit is not None and was is not None and was != now:
            rest = {name: value for name, value in step.arguments.items() if name != slot.name}
            return AskBack(
                OpenQuestion(
                    kind="argument",
                    device_id=step.device_id,
                    action=step.name,
                    argument=slot.name,
                    arguments=rest,
                    text=words_of(plain),
                )
            )
    return changed


def _another(plain: Sequence[Token]) -> Token | None:
    """Return the amount of `another 25`."""
    amount = plain[0].amount if len(plain) == 1 else None
    if amount is None or amount.vague or amount.counted or not amount.said.startswith("another "):
        return None
    return plain[0]


def _is_as_much(changed: Reading, frame: Frame, last: Step) -> bool:
    """Whether another amount is one of the same kind as before: after 40 cm, `another 25`, never after 1 m."""
    step = changed.steps[0] if isinstance(changed, Commands) else None
    if step is None or frame.is_setting or frame.parameter is not None:
        return False
    for slot in frame.slots:
        was, now = last.arguments.get(slot.name), step.arguments.get(slot.name)
        if isinstance(was, int | float) and isinstance(now, int | float) and not was / _LIKE <= now <= was * _LIKE:
            return False
    return True


def _is_open(fresh: Reading, last: Step) -> bool:
    """Whether a text leaves open what it wants, by itself."""
    if isinstance(fresh, AskBack):
        question = fresh.question
        return (question.device_id, question.action) == (last.device_id, last.name) and not question.before
    return isinstance(fresh, NotACommand | Doubtful) or (isinstance(fresh, CannotDo) and fresh.code == "unknown_action")


def _frame(step: Step, context: Context) -> Frame | None:
    parameter = step.arguments.get("name")
    for frame in context.fleet.frames.get(step.device_id, ()):
        if frame.action == step.name and (frame.parameter is None or frame.parameter == parameter):
            return frame
    return None
