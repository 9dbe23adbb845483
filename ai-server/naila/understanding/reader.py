"""The reader: what somebody said, and the fleet that can be spoken of, make one `Reading`. No model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from naila.config.lexicon import Lexicon
from naila.fleet import FleetView
from naila.understanding.answers import Answers, Chosen
from naila.understanding.clauses import MOST_CLAUSES, Clause, clauses
from naila.understanding.deciding import Context, Decider, Decision, Part
from naila.understanding.filling import Filler
from naila.understanding.fleet_index import Compiled, FleetIndex, words_of
from naila.understanding.frames import Compiler
from naila.understanding.gate import Gate
from naila.understanding.halting import Halting
from naila.understanding.matching import Matcher
from naila.understanding.quantities import Measures, Token, Units
from naila.understanding.reading import (
    AskBack,
    CannotDo,
    Commands,
    Doubtful,
    NotACommand,
    OpenQuestion,
    Reading,
    Repeat,
    StateQuestion,
    Step,
    Withdrawn,
)
from naila.understanding.spelling import Spelling
from naila.understanding.state import StateQuestions
from naila.understanding.words import MARKS, Phrases, Vocabulary, Word

MOST_CHARS: Final = 400
_MOST_WORDS: Final = 80
_MOST_STEPS: Final = 10
_LONGEST_UNPUNCTUATED: Final = 40


class CommandReader:
    """Reads commands, answers and questions about state.

    Args:
        lexicon: the language.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._vocabulary = Vocabulary(lexicon)
        units = Units(lexicon)
        self._measures = Measures(lexicon, units)
        compiler = Compiler(lexicon, self._vocabulary, units, self._measures)
        self._index = FleetIndex(lexicon, compiler)
        self._gate = Gate(lexicon)
        matcher = Matcher(lexicon, Filler(lexicon, units, compiler.related))
        self._decider = Decider(lexicon, matcher)
        self._answers = Answers(lexicon, matcher, self._gate)
        self._halting = Halting(lexicon)
        self._state = StateQuestions(lexicon, compiler, self._gate)
        self._spelling = Spelling(self._vocabulary.known)
        self._carriers = lexicon.carriers
        self._corrections = Phrases(lexicon.corrections)
        self._everyday = frozenset(lexicon.everyday)
        self._repeats = frozenset(lexicon.again)
        self._withdrawals = frozenset(lexicon.withdrawals)
        self._idle = self._withdrawals - frozenset(lexicon.stop.verbs)

    def read(
        self, text: str, view: FleetView, *, question: OpenQuestion | None = None, about: str | None = None
    ) -> Reading:
        """Return what a text asks for.

        Args:
            text: what was said.
            view: the devices that can be spoken of through the speaker's.
            question: what was asked back, and not answered yet.
            about: id of the device that was spoken of last.
        """
        if len(text) > MOST_CHARS:
            return NotACommand()
        words = self._vocabulary.words(text)
        if not words or len(words) > _MOST_WORDS:
            return NotACommand()
        fleet = self._index.compiled(view)
        reading = self._read(words, view, fleet, question, about)
        if isinstance(reading, NotACommand | Doubtful) or (
            isinstance(reading, CannotDo) and reading.code != "out_of_range"
        ):
            corrected = self._spelling.corrected(words, fleet.words)
            if corrected is not None:
                again = self._read(corrected, view, fleet, question, about)
                if not isinstance(again, NotACommand | Doubtful | CannotDo | Repeat | Withdrawn):
                    return _by_similarity(again)
        return reading

    def _read(
        self, words: list[Word], view: FleetView, fleet: Compiled, question: OpenQuestion | None, about: str | None
    ) -> Reading:
        tokens = self._measures.tokens(words)
        plain = [token for token in tokens if token.text not in MARKS]
        if not plain:
            return NotACommand()
        own = view.speaker if view.device(view.speaker) else None
        stop = self._halting.read(plain, fleet.names.mentions(plain), fleet.verbs, own=own, about=about)
        if stop is not None:
            return stop
        context = Context(view=view, fleet=fleet, about=about)
        answer = self._answered(tokens, plain, question, context)
        return answer or self._said(plain, question) or self._fresh(tokens, context)

    def _answered(
        self, tokens: Sequence[Token], plain: Sequence[Token], question: OpenQuestion | None, context: Context
    ) -> Reading | None:
        if question is None:
            return None
        said = {words_of(plain), words_of(self._gate.strip(plain)[0])}
        return self._answer(tokens, plain, question, context) or (Withdrawn() if said & self._withdrawals else None)

    def _said(self, plain: Sequence[Token], question: OpenQuestion | None) -> Reading | None:
        """Return what a phrase means that is understood as a whole."""
        polite = [token for token in plain if token.text not in {"please", "thanks"}]
        said = {words_of(plain), words_of(self._gate.strip(plain)[0])}
        if question is None and said & self._idle:
            return NotACommand()
        if {*said, words_of(polite)} & self._repeats:
            return Repeat()
        return NotACommand() if said & self._everyday else None

    def _fresh(self, tokens: Sequence[Token], context: Context) -> Reading:
        parts = clauses(tokens)
        is_reported = self._gate.is_reported([token.text for token in tokens])
        if is_reported or not 0 < len(parts) <= MOST_CLAUSES:
            return NotACommand()
        asked = self._asked(parts, context, only_questions=True)
        if asked is not None:
            return asked
        reading = self._wishes(parts, tokens, context)
        if isinstance(reading, NotACommand):
            return self._asked(parts, context, only_questions=False) or reading
        return reading

    def _asked(self, parts: Sequence[Clause], context: Context, *, only_questions: bool) -> StateQuestion | None:
        """Return the question about state that the text is, if it is one sentence of that."""
        if len({part.sentence for part in parts}) > 2:
            return None
        last = [part for part in parts if part.sentence == parts[-1].sentence]
        words = [token for part in last for token in part.tokens]
        if only_questions and not self._state.begins_question(words):
            return None
        return self._state.read(words, context.view, context.fleet, asked=last[-1].asked, about=context.about)

    def _wishes(self, parts: Sequence[Clause], tokens: Sequence[Token], context: Context) -> Reading:
        steps: list[Step] = []
        at = 0
        while at < len(parts):
            if at and parts[at].sentence != parts[at - 1].sentence:
                context = replace(context, before=())
            part, length = self._part(parts, at, context)
            at += length
            if steps and self._corrections.at([token.text for token in parts[at - length].tokens], 0):
                return NotACommand()
            if part == "harmless":
                continue
            decision, meant = part
            if not isinstance(decision, tuple):
                return self._unfinished(decision, parts, at, context, before=tuple(steps), tokens=tokens)
            steps.extend(decision)
            context = replace(context, before=meant, about=decision[-1].device_id)
        too_many = len(steps) > _MOST_STEPS * max(1, len(context.view.devices))
        return NotACommand() if too_many or not steps else Commands(tuple(steps))

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
        following = [next_ for next_ in parts[at + 1 : at + 3] if next_.sentence == part.sentence or is_called]
        if following and (is_called or not _is_complete(first) or self._is_tail(following[0], first, context)):
            joined = list(part.tokens)
            for count, next_ in enumerate(following, 2):
                joined.extend(next_.tokens)
                both = self._clause(joined, context, asked=next_.asked)
                if _is_complete(both) or (is_called and count == 2):
                    return both, count
        if following and not _is_complete(first) and len(self._gate.strip(part.tokens)[0]) == 1:
            shared = self._clause((*part.tokens, *following[0].tokens[1:]), context, asked=part.asked)
            if _is_complete(shared):
                return shared, 1
        if not _is_complete(first):
            split = self._unpunctuated(part.tokens, context, asked=part.asked)
            if split is not None:
                return split, 1
        return first, 1

    def _is_tail(self, part: Clause, first: Part, context: Context) -> bool:
        """Whether a clause makes sense only as the end of the one before it."""
        if self._is_mention(part.tokens, context):
            return True
        if first == "harmless" or not isinstance(first[0], tuple):
            return False
        after = replace(context, before=first[1], about=first[0][-1].device_id)
        alone = self._clause(part.tokens, after, asked=part.asked)
        return alone != "harmless" and isinstance(alone[0], NotACommand | Doubtful)

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
        opened = self._gate.open(tokens, context.fleet.names.mentions, asked=asked)
        if isinstance(opened, str):
            return "harmless" if opened in {"harmless", "empty"} else (NotACommand(), ())
        return self._decider.decide(opened, context)

    def _unpunctuated(self, tokens: Sequence[Token], context: Context, *, asked: bool, depth: int = 0) -> Part | None:
        """Read `go back 20 cm turn around and …`: commands with nothing between them."""
        if len(tokens) > _LONGEST_UNPUNCTUATED or depth > 4:
            return None
        for cut in range(1, len(tokens)):
            token = tokens[cut]
            starts = token.form == "base" and (token.lemma in context.fleet.verbs or token.lemma in self._carriers)
            if not starts:
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

    def _answer(
        self, tokens: Sequence[Token], plain: Sequence[Token], question: OpenQuestion, context: Context
    ) -> Reading | None:
        """Return what an answer to an open question makes of the wish, None where it is no answer to it."""
        if any(token.text == '"' for token in tokens):
            return None
        decision: Decision | Reading | None
        if question.kind == "argument":
            decision = self._answers.argument(plain, question, context.view, context.fleet)
        else:
            decision = self._chosen(plain, question, context)
        if isinstance(decision, Commands):
            decision = decision.steps
        if isinstance(decision, AskBack):
            return AskBack(replace(decision.question, before=question.before, after=question.after))
        return self._continued(decision, question, context) if isinstance(decision, tuple) else decision

    def _chosen(self, plain: Sequence[Token], question: OpenQuestion, context: Context) -> Reading | None:
        """Read the words of the question again, now that it is clear which device or action was meant."""
        chosen = self._answers.choice(plain, question, context.view, context.fleet)
        if chosen is None:
            return None
        view = _narrowed(context.view, chosen, question)
        tokens = self._measures.tokens(self._vocabulary.words(question.text))
        return self._fresh(tokens, Context(view=view, fleet=self._index.compiled(view)))

    def _continued(self, steps: tuple[Step, ...], question: OpenQuestion, context: Context) -> Reading:
        """Return the whole of what was wanted, now that its doubtful step is clear."""
        done = (*question.before, *steps)
        if not question.after:
            return Commands(done)
        tokens = self._measures.tokens(self._vocabulary.words(question.after))
        rest = self._fresh(tokens, replace(context, about=steps[-1].device_id))
        if isinstance(rest, Commands):
            return Commands((*done, *rest.steps))
        if isinstance(rest, AskBack):
            return AskBack(replace(rest.question, before=(*done, *rest.question.before)))
        return rest


def _is_complete(part: Part | None) -> bool:
    return part is not None and part != "harmless" and isinstance(part[0], tuple | StateQuestion)


def _narrowed(view: FleetView, chosen: Chosen, question: OpenQuestion) -> FleetView:
    """Return a fleet in which only what was chosen can be meant."""
    device_id = chosen.device_id or question.device_id
    device = next((each for each in view.devices if each.profile.device_id == device_id), None)
    if device is None:
        return FleetView(view.speaker)
    profile = device.profile
    if chosen.action is not None:
        profile = replace(
            profile,
            actions={name: action for name, action in profile.actions.items() if name == chosen.action},
            parameters={name: each for name, each in profile.parameters.items() if name == chosen.action},
        )
    return FleetView(profile.device_id, (replace(device, profile=profile),))


def _by_similarity(reading: Reading) -> Reading:
    if isinstance(reading, Commands):
        return Commands(tuple(replace(step, certainty="similarity") for step in reading.steps))
    return reading
