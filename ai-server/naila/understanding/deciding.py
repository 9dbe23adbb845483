"""Deciding: what one wish comes to, of all the ways in which it can be explained."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from naila.config.lexicon import Lexicon
from naila.fleet import FleetView
from naila.understanding.evidence import ENOUGH
from naila.understanding.filling import argument_name, choice_words, said_choices
from naila.understanding.fleet_index import Compiled, device_of, words_of
from naila.understanding.frames import Frame, Slot
from naila.understanding.gate import Wish
from naila.understanding.matching import Match, Matcher
from naila.understanding.reading import AskBack, CannotDo, Doubtful, NotACommand, OpenQuestion, StateQuestion, Step
from naila.understanding.words import Phrases

Decision: TypeAlias = tuple[Step, ...] | AskBack | CannotDo | Doubtful | StateQuestion | NotACommand

Part: TypeAlias = tuple[Decision, tuple[Frame, ...]] | Literal["harmless"]

_TIE: Final = 0.12
_CLEARLY: Final = 0.35
_MOST_CANDIDATES: Final = 8
_MOST_UNEXPLAINED: Final = 2
_LONGEST_FEAT: Final = 8
_ARTICLES: Final = frozenset({"the", "a", "an", "my", "your"})
_AIMS: Final = frozenset({"to", "at", "into", "towards"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is known where a wish is read.

    Attributes:
        view: the fleet.
        fleet: the same, compiled.
        about: the device that was spoken of before.
        known: clauses of this text that were read already.
        before: frames that the wish before, in the same text, came to.
    """

    view: FleetView
    fleet: Compiled
    about: str | None = None
    before: tuple[Frame, ...] = ()
    known: dict[Hashable, Part] = field(default_factory=dict)


class Decider:
    """Decides what a wish comes to.

    Args:
        lexicon: the language.
        matcher: explains words by frames.
    """

    def __init__(self, lexicon: Lexicon, matcher: Matcher) -> None:
        self._matcher = matcher
        self._pronouns = frozenset(word for word in lexicon.pronouns if " " not in word)
        self._feats = Phrases(lexicon.feats)
        self._carriers = lexicon.carriers
        self._talk = lexicon.talk
        self._kinds = {kind: Phrases(words) for kind, words in lexicon.kinds.items()}

    def decide(self, wish: Wish, context: Context) -> tuple[Decision, tuple[Frame, ...]]:
        """Return what a wish comes to, and the frames that it was explained by."""
        matches = self._matches(wish, context)
        whole = [match for match in matches if match.is_whole]
        if whole:
            chosen = self._choose(whole, wish, context)
            if isinstance(chosen, AskBack):
                return chosen, ()
            decision = self._decided(chosen, wish)
            return decision, tuple(match.frame for match in chosen)
        return self._not_whole(matches, wish, context), ()

    def _matches(self, wish: Wish, context: Context) -> list[Match]:
        found: list[Match] = []
        for frame in context.fleet.candidates(wish, context.view.speaker, context.before):
            inherited = frame in context.before
            device = device_of(context.view, frame.device_id)
            match = self._matcher.match(frame, wish, device)
            if inherited and (match is None or not match.is_whole):
                match = self._matcher.match(frame, wish, device, inherited=True)
                if match is not None and not (match.arguments or match.problems):
                    match = None
            if match is not None and not self._is_far(match, wish, context):
                found.append(match)
        return sorted(found, key=_rank, reverse=True)

    @staticmethod
    def _is_far(match: Match, wish: Wish, context: Context) -> bool:
        """Whether only a value was said, as `red`, and to another device."""
        device = match.frame.device_id
        near = device in {context.view.speaker, context.about} or match.frame in context.before
        spoken_of = any(device in mention.devices for mention in (*wish.told, *wish.mentions))
        has_noun = match.evidence > 1.0 or bool(match.frame.nouns.keys() & {token.lemma for token in wish.tokens})
        return match.alone and not near and not spoken_of and not has_noun

    def _choose(self, whole: list[Match], wish: Wish, context: Context) -> tuple[Match, ...] | AskBack:
        best: dict[str, Match] = {}
        for match in whole:
            device = match.frame.device_id
            best.setdefault(device, match)
        mentions = (*wish.told, *wish.mentions)
        every = next((mention for mention in mentions if mention.every), None)
        if every is not None:
            return tuple(best[device] for device in best if device in every.devices)
        chosen = next(iter(best)) if len(best) == 1 else self._whose(best, wish, context)
        if chosen is not None:
            others = (match for match in whole if match.frame.device_id == chosen)
            doubt = next((found for match in others if (found := self._doubt(best[chosen], match))), None)
            if doubt is None:
                return (best[chosen],)
            question = OpenQuestion(kind="action", device_id=chosen, choices=doubt, text=words_of(wish.tokens))
            return AskBack(question)
        ranked = sorted(best.values(), key=_rank, reverse=True)
        first = ranked[0]
        return AskBack(
            OpenQuestion(
                kind="device",
                action=first.frame.action,
                choices=tuple(match.frame.device_id for match in ranked),
                text=words_of(wish.tokens),
            )
        )

    def _doubt(self, best: Match, other: Match) -> tuple[str, ...] | None:
        """Return the two actions that are meant alike, None where one is clearly meant."""
        same = best.frame.action == other.frame.action and best.frame.parameter == other.frame.parameter
        if same or best.evidence - other.evidence > _TIE or best.is_complete != other.is_complete:
            return None
        if best.missing and other.missing:
            return None
        return (best.frame.parameter or best.frame.action, other.frame.parameter or other.frame.action)

    def _whose(self, best: dict[str, Match], wish: Wish, context: Context) -> str | None:
        before = {frame.device_id for frame in context.before}
        own, about = context.view.speaker, context.about
        has_pronoun = any(token.text in self._pronouns for token in wish.tokens)
        first = [*before] if len(before) == 1 else []
        order = [*first, about, own] if has_pronoun else [*first, own, about]
        if wish.mentions or wish.told:
            order = [own]
        top = max(match.evidence for match in best.values())
        for device in order:
            if device in best and (best[device].evidence >= top - _CLEARLY or best[device].is_complete):
                return device
        ranked = sorted(best.values(), key=_rank, reverse=True)
        clear = ranked[0].is_complete and not ranked[1].is_complete
        if clear and ranked[0].evidence >= ranked[1].evidence:
            return ranked[0].frame.device_id
        return ranked[0].frame.device_id if ranked[0].evidence - ranked[1].evidence > _CLEARLY else None

    def _decided(self, chosen: Sequence[Match], wish: Wish) -> Decision:
        if wish.asked and wish.mood == "plain" and not wish.polite and all(match.is_complete for match in chosen):
            return NotACommand()
        if wish.mood == "wish" and all(match.bare for match in chosen):
            return NotACommand()
        steps: list[Step] = []
        for match in chosen:
            obstacle = self._obstacle(match, wish)
            if obstacle is not None:
                return obstacle
            steps.append(Step(device_id=match.frame.device_id, name=match.frame.action, arguments=match.arguments))
        return tuple(steps)

    @staticmethod
    def _obstacle(match: Match, wish: Wish) -> Decision | None:
        """Return why a match is no step yet, None if it is one."""
        frame = match.frame
        if wish.mood == "ability" and match.bare:
            return StateQuestion(topic="capabilities", device_id=frame.device_id, names=(frame.action,))
        if not frame.writable:
            return CannotDo(
                code="bad_arguments",
                device_id=frame.device_id,
                action=frame.action,
                argument=frame.parameter,
                asked=words_of(wish.tokens),
                allowed="nothing: it can only be read",
            )
        if match.problems:
            return problem_of(match)
        return next_question(match, words_of(wish.tokens)) if match.missing else None

    def _not_whole(self, matches: list[Match], wish: Wish, context: Context) -> Decision:
        refused = next((found for match in matches if (found := self._unknown_value(match, wish, context))), None)
        refused = refused or self._unknown_of_kind(wish, context)
        if refused is not None:
            return refused
        near = [match for match in matches if _is_near(match)]
        near = [match for match in near if _is_addressed(match, wish, context)] or near
        if near and near[0].problems:
            return problem_of(near[0])
        if near and any(token.amount and token.text in near[0].unexplained for token in wish.tokens):
            device = near[0].frame.device_id
            return CannotDo(code="unknown_action", device_id=device, asked=words_of(wish.tokens))
        return doubtful(near) if near and not wish.asked else self._unknown_feat(wish, context)

    def _unknown_feat(self, wish: Wish, context: Context) -> Decision:
        """Tell what people ask of robots in earnest, and nobody declared, from talk: `fly to the moon`."""
        texts = [token.text for token in wish.tokens]
        start = next((at for at in range(len(texts)) if not _in_mention(at, wish)), 0)
        if not self._feats.at(texts, start) or texts[start] in self._talk:
            return NotACommand()
        spoken_of = next((mention.devices for mention in (*wish.told, *wish.mentions)), frozenset())
        device = next(iter(spoken_of)) if len(spoken_of) == 1 else _own(context)
        if wish.mood == "ability":
            return StateQuestion(topic="capabilities", device_id=device)
        if len(texts) > _LONGEST_FEAT or wish.mood == "wish" or wish.asked:
            return NotACommand()
        return CannotDo(code="unknown_action", device_id=device, asked=words_of(wish.tokens))

    def _unknown_value(self, match: Match, wish: Wish, context: Context) -> CannotDo | None:
        """Recognise that a value was said that is not among those declared: `go to the attic`."""
        tokens = wish.tokens
        texts = [token.text for token in tokens]
        unknown = [at for at, token in enumerate(tokens) if token.text in match.unexplained]
        open_slots = [slot for slot in match.frame.slots if slot.kind == "choice" and _is_open(slot, match)]
        is_one = 0 < len(unknown) <= 3 and unknown[-1] - unknown[0] < 4 and len(open_slots) == 1
        if not is_one or any(tokens[at].amount for at in unknown) or match.evidence < ENOUGH:
            return None
        slot, first = open_slots[0], unknown[0]
        at = first - int(first > 0 and texts[first - 1] in _ARTICLES)
        is_aimed = at > 0 and texts[at - 1] in _AIMS
        only = match.is_strong and match.missing == (slot.name,)
        named = is_aimed or (at < first and (only or bool(match.arguments)))
        of_this = slot.required and (match.is_strong or match.frame.parameter is not None)
        of_kind = any(self._kinds[kind].at(texts, first) >= len(unknown) for kind in slot.senses)
        if not (of_kind or (named and of_this)) or not _is_addressed(match, wish, context):
            return None
        return _not_among(match.frame, slot, " ".join(texts[at : unknown[-1] + 1]))

    def _unknown_of_kind(self, wish: Wish, context: Context) -> CannotDo | None:
        """Recognise `make the light pink` where nothing but the device and a colour is said."""
        spoken = [mention for mention in (*wish.told, *wish.mentions) if len(mention.devices) == 1]
        texts = [token.text for token in wish.tokens]
        if not spoken or not (wish.told or texts[0] in self._carriers or wish.mood == "wish"):
            return None
        device = next(iter(spoken[0].devices))
        rest = [at for at in range(len(texts)) if not _in_mention(at, wish) and texts[at] not in self._carriers]
        rest = [at for at in rest if texts[at] not in _ARTICLES | {"to"}]
        for frame in context.fleet.frames.get(device, ()):
            for slot in frame.slots:
                if rest and any(self._kinds[kind].at(texts, rest[0]) >= len(rest) for kind in slot.senses):
                    return _not_among(frame, slot, " ".join(texts[at] for at in rest))
        return None


def _not_among(frame: Frame, slot: Slot, asked: str) -> CannotDo:
    return CannotDo(
        code="bad_arguments",
        device_id=frame.device_id,
        action=frame.action,
        argument=argument_name(frame, slot),
        asked=asked,
        allowed=said_choices(slot),
    )


def _is_near(match: Match) -> bool:
    return match.is_strong and len(match.unexplained) <= _MOST_UNEXPLAINED and match.evidence >= ENOUGH


def _is_addressed(match: Match, wish: Wish, context: Context) -> bool:
    """Whether the words are for this device: its own, or it is spoken of, or they are for nobody in particular."""
    spoken_of = (*wish.told, *wish.mentions)
    if spoken_of:
        return any(match.frame.device_id in mention.devices for mention in spoken_of)
    own = _own(context)
    return own is None or match.frame.device_id in {own, context.about}


def doubtful(matches: Iterable[Match], clauses: int = 1) -> Doubtful:
    """Return what may be meant, the likeliest first."""
    candidates: list[tuple[str, str]] = []
    numbers: dict[str, tuple[float, ...]] = {}
    for match in matches:
        candidate = (match.frame.device_id, match.frame.action)
        if candidate not in candidates and len(candidates) < _MOST_CANDIDATES:
            candidates.append(candidate)
            for name, values in match.support.items():
                numbers[name] = tuple(dict.fromkeys((*numbers.get(name, ()), *values)))
    return Doubtful(candidates=tuple(candidates), numbers=numbers, clauses=clauses)


def next_question(match: Match, text: str) -> AskBack:
    """Return the question for the first argument that a match still misses."""
    argument = match.missing[0]
    slot = next((slot for slot in match.frame.slots if slot.name == argument), match.frame.slots[0])
    question = OpenQuestion(
        kind="argument",
        device_id=match.frame.device_id,
        action=match.frame.action,
        argument=argument,
        arguments=match.arguments,
        choices=choice_words(slot),
        text=text,
    )
    return AskBack(question)


def problem_of(match: Match) -> CannotDo:
    """Return why a match cannot be done."""
    problem = match.problems[0]
    return CannotDo(
        code=problem.code,
        device_id=match.frame.device_id,
        action=match.frame.action,
        argument=problem.argument,
        asked=problem.asked,
        allowed=problem.allowed,
    )


def _rank(match: Match) -> tuple[bool, bool, float, int]:
    return (match.is_whole, not match.problems, match.evidence + 0.05 * len(match.arguments), -len(match.missing))


def _is_open(slot: Slot, match: Match) -> bool:
    return slot.name not in match.arguments and "value" not in match.arguments


def _in_mention(at: int, wish: Wish) -> bool:
    return any(mention.start <= at < mention.end for mention in wish.mentions)


def _own(context: Context) -> str | None:
    return context.view.speaker if context.view.device(context.view.speaker) else None
