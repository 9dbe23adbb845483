"""Wishes: the clauses of a text, one after the other, and the steps that they come to together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from naila.config.lexicon import Lexicon
from naila.understanding.clauses import Clause
from naila.understanding.context import Context, Part
from naila.understanding.deciding import Decider
from naila.understanding.fleet_index import words_of
from naila.understanding.frames import Frame
from naila.understanding.gate import Gate, Wish
from naila.understanding.quantities import Token
from naila.understanding.reading import AskBack, Commands, Doubtful, NotACommand, Reading, StateQuestion, Step
from naila.understanding.words import Phrases

_MOST_STEPS: Final = 10
_SHORTEST_REASON: Final = 3
_LONGEST_UNPUNCTUATED: Final = 40
_LEADS: Final = frozenset({"the", "your", "its", "my", "a"})
_DIRECTIONS: Final = frozenset({"back", "forth", "left", "right", "up", "down", "forward", "backward"})
_DO_IT: Final = frozenset({"do", "it", "that", "this", "so", "make"})


class Wishes:
    """Reads what a text asks for, clause by clause: all of it becomes steps, or nothing.

    Args:
        lexicon: the language.
        gate: tells wishes from talk.
        decider: decides what one wish comes to.
    """

    def __init__(self, lexicon: Lexicon, gate: Gate, decider: Decider) -> None:
        self._gate = gate
        self._decider = decider
        self._carriers = lexicon.carriers
        self._corrections = Phrases(lexicon.corrections)
        self._everyday = frozenset(lexicon.everyday)
        self._interjections = frozenset(lexicon.interjections)

    def read(self, parts: Sequence[Clause], tokens: Sequence[Token], context: Context) -> Reading:
        """Return what clauses come to.

        Args:
            parts: the clauses.
            tokens: the whole text.
            context: what is known.
        """
        parts = [each for part in parts for each in self._after_reason(part, context)]
        steps: list[Step] = []
        at = 0
        while at < len(parts):
            if at and parts[at].sentence != parts[at - 1].sentence:
                context = replace(context, before=())
            part, length = self._part(parts, at, context)
            at += length
            if steps and self._corrections.at([token.text for token in parts[at - length].tokens], 0):
                return NotACommand()
            if steps and self._is_direction(parts, at - length):
                return _left_open(steps[-1], len(parts))
            if part == "harmless" or (
                at < len(parts) and not steps and self._is_interjection(parts[at - length], part)
            ):
                continue
            decision, meant = part
            if not isinstance(decision, tuple):
                return self._unfinished(decision, parts, at, context, before=tuple(steps), tokens=tokens)
            if not (at > 1 and _says_again(decision, steps, parts[at - 2 : at])):
                steps.extend(decision)
            context = replace(context, before=meant, about=decision[-1].device_id)
        too_many = len(steps) > _MOST_STEPS * max(1, len(context.view.devices))
        return NotACommand() if too_many or not steps else Commands(tuple(steps))

    def _after_reason(self, part: Clause, context: Context) -> tuple[Clause, ...]:
        """Cut a clause where a wish follows its reason with nothing between: `it is too dark turn the lamp on`."""
        for cut in range(_SHORTEST_REASON, len(part.tokens)):
            token = part.tokens[cut]
            starts = token.form == "base" and (token.lemma in context.fleet.verbs or token.lemma in self._carriers)
            if starts and self._gate.is_reason(part.tokens[:cut]):
                reason, wish = part.tokens[:cut], part.tokens[cut:]
                return replace(part, tokens=reason), replace(part, tokens=wish)
        return (part,)

    def _is_direction(self, parts: Sequence[Clause], at: int) -> bool:
        """Whether a clause is only another way to go: the `and back` of `go to the door and back`."""
        texts = [token.text for token in self._gate.strip(parts[at].tokens)[0]]
        follows = at > 0 and parts[at].sentence == parts[at - 1].sentence and not parts[at - 1].comma
        return follows and len(texts) == 1 and texts[0] in _DIRECTIONS

    def _is_interjection(self, clause: Clause, part: Part) -> bool:
        """Whether a clause only opens what follows: `right, …`."""
        return not _is_complete(part) and words_of(clause.tokens) in self._interjections

    def _unfinished(
        self,
        decision: Reading,
        parts: Sequence[Clause],
        at: int,
        context: Context,
        *,
        before: tuple[Step, ...],
        tokens: Sequence[Token],
    ) -> Reading:
        """Return what the whole comes to where one clause is no step: all of it is done, or nothing."""
        if isinstance(decision, Doubtful):
            return replace(decision, clauses=len(parts))
        if not isinstance(decision, AskBack):
            return decision
        if self._goes_on_talking(parts[at:], context):
            return NotACommand()
        rest = words_of(tokens[parts[at - 1].end :]).strip(" ,.;") if at < len(parts) else ""
        return AskBack(replace(decision.question, before=before, after=rest))

    def _goes_on_talking(self, parts: Sequence[Clause], context: Context) -> bool:
        """Whether what follows a wish shows that it was none: `blink and you will miss it`."""
        readings = (self._clause(part.tokens, context, asked=part.asked) for part in parts)
        return any(reading != "harmless" and isinstance(reading[0], NotACommand) for reading in readings)

    def _part(self, parts: Sequence[Clause], at: int, context: Context) -> tuple[Part, int]:
        """Return what the clause at `at` comes to, joined with those after it where only that makes sense."""
        part = parts[at]
        is_called = self._is_mention(part.tokens, context)
        first = self._clause(part.tokens, context, asked=part.asked)
        if first == "harmless" and not is_called:
            return first, 1
        if at and not _is_complete(first) and parts[at - 1].sentence == part.sentence:
            alike = self._alike(parts[at - 1], part, context)
            if alike is not None:
                return alike, 1
        following = [next_ for next_ in parts[at + 1 : at + 3] if next_.sentence == part.sentence or is_called]
        return self._together(part, first, following, context) or (self._split(part, first, following, context), 1)

    def _together(
        self, part: Clause, first: Part, following: Sequence[Clause], context: Context
    ) -> tuple[Part, int] | None:
        """Return what a clause comes to with those after it, and how many those are; None where it stands alone."""
        is_called = self._is_mention(part.tokens, context)
        if not following:
            return None
        if not (part.comma or _is_complete(first)) and (both := self._shared(part, following[0], context)) is not None:
            return both, 2
        if _is_complete(first) and not part.comma and self._is_direction((part, following[0]), 1):
            return None
        if not is_called and _is_complete(first) and not self._is_tail(following[0], first, context):
            return None
        is_whole = first != "harmless" and isinstance(first[0], AskBack)
        joined = list(part.tokens)
        for count, next_ in enumerate(following, 2):
            if is_whole and not is_called and self._stands_alone(next_, context):
                return None
            is_count = self._is_count(next_.tokens)
            joined.extend(token for token in next_.tokens if token.amount or not is_count)
            read = self._clause(joined, context, asked=next_.asked)
            if _is_complete(read) or (is_called and count == 2):
                return read, count
        return None

    def _split(self, part: Clause, first: Part, following: Sequence[Clause], context: Context) -> Part:
        """Return what a clause comes to by itself, or with the object of the next one: `open and close the gripper`."""
        if _is_complete(first):
            return first
        if following and len(self._gate.strip(part.tokens)[0]) == 1:
            shared = self._clause((*part.tokens, *following[0].tokens[1:]), context, asked=part.asked)
            if _is_complete(shared):
                return shared
        return self._unpunctuated(part.tokens, context, asked=part.asked) or first

    def _alike(self, before: Clause, part: Clause, context: Context) -> Part | None:
        """Read the `the fan off` of `turn the lamp on and the fan off`: with the beginning of the clause before it."""
        mentions = context.fleet.names.mentions(before.tokens)
        told = mentions[0].start if mentions else 0
        first = self._gate.strip(before.tokens)[0][:1]
        leads = [before.tokens[:told]] if told else []
        if self._is_mention(part.tokens, context) and mentions:
            whole = (*before.tokens[:told], *part.tokens, *before.tokens[mentions[0].end :])
            return self._complete(whole, replace(context, before=()), asked=part.asked)
        if not part.tokens or part.tokens[0].text not in _LEADS:
            leads = leads if self._begins_with_mention(part.tokens, context) else []
        elif first and first[0].form == "base" and first[0].lemma in self._carriers:
            leads.append(tuple(first))
        readings = (self._complete((*lead, *part.tokens), context, asked=part.asked) for lead in leads)
        return next((reading for reading in readings if reading is not None), None)

    def _shared(self, part: Clause, following: Clause, context: Context) -> Part | None:
        """Read `tell the rover and the arm to wave`: one wish for two devices."""
        mentions, others = (context.fleet.names.mentions(each.tokens) for each in (part, following))
        if not mentions or not others or mentions[-1].end < len(part.tokens) or others[0].start:
            return None
        lead, rest = part.tokens[: mentions[-1].start], following.tokens[others[0].end :]
        first = self._complete((*part.tokens, *rest), context, asked=part.asked) if rest else None
        second = self._complete((*lead, *following.tokens), context, asked=part.asked)
        if first is None or second is None:
            return None
        return (*first[0], *second[0]), (*first[1], *second[1])

    def _complete(
        self, tokens: Sequence[Token], context: Context, *, asked: bool
    ) -> tuple[tuple[Step, ...], tuple[Frame, ...]] | None:
        read = self._clause(tokens, context, asked=asked)
        return (read[0], read[1]) if read != "harmless" and isinstance(read[0], tuple) else None

    def _begins_with_mention(self, tokens: Sequence[Token], context: Context) -> bool:
        mentions = context.fleet.names.mentions(tokens)
        return bool(mentions) and mentions[0].start == 0

    def _stands_alone(self, part: Clause, context: Context) -> bool:
        """Whether a clause is a wish with a verb of its own."""
        kept = self._gate.strip(part.tokens)[0]
        verbs = context.fleet.verbs | self._carriers
        is_headed = bool(kept) and kept[0].form == "base" and kept[0].lemma in verbs
        return is_headed and _is_complete(self._clause(part.tokens, context, asked=part.asked))

    def _is_tail(self, part: Clause, first: Part, context: Context) -> bool:
        """Whether a clause makes sense only as the end of the one before it."""
        if self._is_mention(part.tokens, context):
            return True
        if first == "harmless" or not isinstance(first[0], tuple):
            return False
        after = replace(context, before=first[1], about=first[0][-1].device_id)
        alone = self._clause(part.tokens, after, asked=part.asked)
        if self._is_count(part.tokens):
            return True
        if alone != "harmless" and isinstance(alone[0], AskBack):
            return alone[0].question.action == first[0][-1].name
        return alone != "harmless" and isinstance(alone[0], NotACommand | Doubtful)

    def _is_count(self, tokens: Sequence[Token]) -> bool:
        """Whether it is only said how many times: `do it three times`."""
        kept = self._gate.strip(tokens)[0]
        amounts = [token for token in kept if token.amount and token.amount.counted]
        return len(amounts) == 1 and all(token.text in _DO_IT for token in kept if token is not amounts[0])

    def _is_mention(self, tokens: Sequence[Token], context: Context) -> bool:
        kept = self._gate.strip(tokens)[0]
        mentions = context.fleet.names.mentions(kept)
        return bool(mentions) and mentions[0].start == 0 and mentions[0].end == len(kept)

    def _clause(self, tokens: Sequence[Token], context: Context, *, asked: bool) -> Part:
        key = (tuple(tokens), context.before, context.about, asked)
        if key not in context.known:
            context.known[key] = self._read_clause(tokens, context, asked=asked)
        return context.known[key]

    def _read_clause(self, tokens: Sequence[Token], context: Context, *, asked: bool) -> Part:
        kept = self._gate.strip(tokens)[0]
        if words_of(kept) in self._everyday:
            is_theirs = any(token.lemma in context.fleet.words for token in kept)
            return (NotACommand(), ()) if is_theirs else "harmless"
        if self._is_mention(tokens, context) and not self._gate.strip(tokens)[1]:
            return "harmless"
        opened = self._gate.open(tokens, context.fleet.names.mentions, asked=asked)
        if isinstance(opened, str):
            return "harmless" if opened in {"harmless", "empty"} else (NotACommand(), ())
        decided = self._decider.decide(opened, context)
        return decided if _is_complete(decided) else self._gone(tokens, context, asked=asked) or decided

    def _gone(self, tokens: Sequence[Token], context: Context, *, asked: bool) -> Part | None:
        """Read `back to the dock`, said to one that can go there."""
        going = self._gate.going(tokens)
        if going is None:
            return None
        wish = Wish(tokens=tuple(going), mentions=context.fleet.names.mentions(going), asked=asked)
        decision, meant = self._decider.decide(wish, context)
        near = {context.own or context.about, context.about}
        is_its = isinstance(decision, tuple) and (near == {None} or {step.device_id for step in decision} <= near)
        return (decision, meant) if is_its else None

    def _unpunctuated(self, tokens: Sequence[Token], context: Context, *, asked: bool, depth: int = 0) -> Part | None:
        """Read `go back 20 cm turn around and …`: commands with nothing between them."""
        if len(tokens) > _LONGEST_UNPUNCTUATED or depth > 4:
            return None
        called = {mention.start for mention in context.fleet.names.mentions(tokens) if not mention.article}
        for cut in range(1, len(tokens)):
            token = tokens[cut]
            starts = token.form == "base" and (token.lemma in context.fleet.verbs or token.lemma in self._carriers)
            if not starts and cut not in called:
                continue
            left = self._clause(tokens[:cut], context, asked=asked)
            if left == "harmless" or not isinstance(left[0], tuple):
                continue
            after = replace(context, before=left[1], about=left[0][-1].device_id)
            right: Part | None = self._clause(tokens[cut:], after, asked=asked)
            if not _is_complete(right):
                right = self._unpunctuated(tokens[cut:], after, asked=asked, depth=depth + 1)
            if right is not None and right != "harmless" and isinstance(right[0], tuple):
                return (*left[0], *right[0]), right[1]
        return None


def _left_open(step: Step, clauses: int) -> Doubtful:
    """Return that a step may be meant, and something more that nobody can be sure of."""
    return Doubtful(candidates=((step.device_id, step.name),), numbers={}, clauses=clauses)


def _says_again(decision: Sequence[Step], steps: Sequence[Step], parts: Sequence[Clause]) -> bool:
    """Whether the same is said in other words: `come down and land`, `drive to the charger and charge`."""
    before, now = ({token.lemma for token in part.tokens} for part in parts)
    is_same = len(decision) == 1 and decision[0] == (steps[-1] if steps else None)
    is_goal = is_same and all(isinstance(value, str) for value in decision[0].arguments.values())
    return is_goal and not before & now


def _is_complete(part: Part | None) -> bool:
    return part is not None and part != "harmless" and isinstance(part[0], tuple | StateQuestion)
