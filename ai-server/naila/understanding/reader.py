"""The reader: what somebody said, and the fleet that can be spoken of, make one `Reading`. No model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from naila.config.lexicon import Lexicon
from naila.fleet import FleetView
from naila.understanding.answers import Answers, Chosen
from naila.understanding.clauses import MOST_CLAUSES, Clause, clauses, in_order
from naila.understanding.compiler import Compiler
from naila.understanding.context import Context, Decision
from naila.understanding.deciding import Decider
from naila.understanding.filling import Filler
from naila.understanding.fleet_index import FleetIndex, words_of
from naila.understanding.followups import FollowUps
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
from naila.understanding.wishes import Wishes
from naila.understanding.words import MARKS, Phrases, Vocabulary, Word

MOST_CHARS: Final = 400
_MOST_WORDS: Final = 80
_IT: Final = "it"


class CommandReader:
    """Reads commands, answers and questions about state.

    Args:
        lexicon: the language.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._vocabulary = Vocabulary(lexicon)
        self._units = Units(lexicon)
        self._measures = Measures(lexicon, self._units)
        compiler = Compiler(lexicon, self._vocabulary, self._units, self._measures)
        self._index = FleetIndex(lexicon, compiler)
        self._gate = Gate(lexicon)
        matcher = Matcher(lexicon, Filler(lexicon, self._units, compiler.related))
        self._wishes = Wishes(lexicon, self._gate, Decider(lexicon, matcher))
        self._answers = Answers(lexicon, matcher, self._gate)
        self._followups = FollowUps(lexicon, matcher, self._gate)
        self._halting = Halting(lexicon)
        self._state = StateQuestions(lexicon, compiler, self._gate, self._units)
        talk = (*lexicon.hearsay, *lexicon.negations, *lexicon.subordinators, *lexicon.later, *lexicon.questions)
        english = frozenset(word for phrase in talk for word in phrase.split())
        called = lexicon.address.nouns | lexicon.address.adjectives
        self._spelling = Spelling(self._vocabulary.known | english | lexicon.figurative | lexicon.body | called)
        self._mending = Phrases((*lexicon.corrections, "no no", "wait"))
        self._everyday = frozenset(lexicon.everyday)
        self._repeats = frozenset(lexicon.again)
        self._withdrawals = frozenset(lexicon.withdrawals)
        self._idle = self._withdrawals - frozenset(lexicon.stop.verbs)

    def warm_up(self) -> None:
        """Prepare what takes a while, in any thread; a text that comes before does not wait for all of it."""
        self._units.warm_up()

    def read(
        self,
        text: str,
        view: FleetView,
        *,
        question: OpenQuestion | None = None,
        about: str | None = None,
        last: Sequence[Step] = (),
    ) -> Reading:
        """Return what a text asks for.

        Args:
            text: what was said.
            view: the devices that can be spoken of through the speaker's.
            question: what was asked back, and not answered yet.
            about: id of the device that was spoken of last.
            last: the steps of the last command, for what corrects it.
        """
        if len(text) > MOST_CHARS:
            return NotACommand()
        words = self._vocabulary.words(text)
        if not words or len(words) > _MOST_WORDS:
            return NotACommand()
        fleet = self._index.compiled(view)
        reading = self._read(words, Context(view=view, fleet=fleet, about=about), question, last)
        if isinstance(reading, NotACommand | Doubtful) or (
            isinstance(reading, CannotDo) and reading.code != "out_of_range"
        ):
            corrected = self._spelling.corrected(words, fleet.words)
            if corrected is not None:
                again = self._read(corrected, Context(view=view, fleet=fleet, about=about), question, last)
                if not isinstance(again, NotACommand | Doubtful | CannotDo | Repeat | Withdrawn):
                    return _by_similarity(again)
        return reading

    def _read(
        self, words: list[Word], context: Context, question: OpenQuestion | None, last: Sequence[Step]
    ) -> Reading:
        tokens = self._measures.tokens(words)
        plain = [token for token in tokens if token.text not in MARKS]
        if not plain:
            return NotACommand()
        view, fleet = context.view, context.fleet
        own = view.speaker if view.device(view.speaker) else None
        stop = self._halting.read(plain, fleet.names.mentions(plain), fleet.doing, own=own, about=context.about)
        if stop is not None:
            return stop
        read = self._answered(tokens, plain, question, context) or self._said(plain, question)
        if read is not None and not (last and isinstance(read, NotACommand)):
            return read
        fresh = read or self._fresh(tokens, context)
        if isinstance(fresh, Doubtful) and question is None:
            fresh = self._of_thing(tokens, last, context) or fresh
        if question is not None and question.kind == "argument" and isinstance(fresh, NotACommand):
            asks = any(token.text in {"?", '"'} for token in tokens)
            fresh = (None if asks else self._answers.unknown(plain, question, fleet)) or fresh
        is_no_wish = any(token.text in {"?", '"'} for token in tokens)
        return fresh if question is not None or is_no_wish else self._followups.read(plain, last, fresh, context)

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
        tokens = in_order(tokens)
        if (mended := self._mended(tokens, context)) is not None:
            return mended
        parts = clauses(tokens)
        parts = [
            part
            for at, part in enumerate(parts)
            if not (self._gate.is_address(part.tokens) or (at and self._gate.is_comparison(part.tokens)))
        ] or parts
        is_reported = self._gate.is_reported(tokens, context.fleet.verbs, context.fleet.words)
        if is_reported or not 0 < len(parts) <= MOST_CLAUSES:
            return NotACommand()
        asked = self._asked(parts, context, only_questions=True)
        if asked is not None:
            return asked
        reading = self._wishes.read(parts, tokens, context)
        if isinstance(reading, NotACommand):
            return self._asked(parts, context, only_questions=False) or reading
        return reading

    def _of_thing(self, tokens: Sequence[Token], last: Sequence[Step], context: Context) -> Commands | None:
        """Read `close it` after `open the gripper`."""
        thing = self._followups.thing(last, context)
        if thing is None or [token.text for token in tokens].count(_IT) != 1:
            return None
        named = (Token("the", "the"), Token(thing, thing))
        read = self._fresh([each for token in tokens for each in (named if token.text == _IT else (token,))], context)
        is_its = isinstance(read, Commands) and {step.device_id for step in read.steps} == {context.about}
        return read if isinstance(read, Commands) and is_its else None

    def _mended(self, tokens: Sequence[Token], context: Context) -> Reading | None:
        """Return what a wish is that is mended within the same breath: `a meter, no, half a meter`."""
        texts = [token.text for token in tokens]
        cuts = [at for at in range(1, len(texts)) if self._mending.at(texts, at)]
        at = next((cut for cut in cuts if texts[cut - 1] in MARKS or self._mending.at(texts, cut) > 1), 0)
        said = [token.text for token in tokens[:at] if token.text not in MARKS]
        if not said or "?" in texts or '"' in texts or self._gate.is_address(tokens[:at]):
            return None
        first = self._fresh(tokens[:at], context)
        if isinstance(first, AskBack) and first.question.device_id and first.question.action:
            return Doubtful(candidates=((first.question.device_id, first.question.action),), numbers={}, clauses=2)
        if not isinstance(first, Commands):
            return None
        end = at
        while end < len(texts) and (length := self._mending.at(texts, end) or int(texts[end] in MARKS)):
            end += length
        fresh = self._fresh(tokens[end:], replace(context, about=first.steps[-1].device_id))
        last = first.steps[-1]
        again = list(dict.fromkeys(map(_key, fresh.steps))) if isinstance(fresh, Commands) else []
        if isinstance(fresh, Commands) and len(again) == 1 and again[0][:2] == _key(last)[:2]:
            return Commands((*first.steps[:-1], fresh.steps[-1]))
        plain = [token for token in tokens[at:] if token.text not in MARKS]
        changed = self._followups.read(plain, first.steps, fresh, context, done=False)
        if not isinstance(changed, Commands) or changed is fresh:
            return None
        return Commands((*first.steps[:-1], *changed.steps))

    def _asked(self, parts: Sequence[Clause], context: Context, *, only_questions: bool) -> StateQuestion | None:
        """Return the question about state that the text is, if it is one sentence of that."""
        if len({part.sentence for part in parts}) > 2:
            return None
        last = [part for part in parts if part.sentence == parts[-1].sentence]
        words = [token for part in last for token in part.tokens]
        if only_questions and not self._state.begins_question(words):
            return None
        return self._state.read(words, context.view, context.fleet, asked=last[-1].asked, about=context.about)

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
        return self._fresh(tokens, Context(view=view, fleet=self._index.narrowed(view)))

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


def _key(step: Step) -> tuple[str, str, str]:
    return step.device_id, step.name, str(sorted(step.arguments.items(), key=str))


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
