"""Deciding: what one wish comes to, of all the ways in which it can be explained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from naila.config.lexicon import Lexicon
from naila.understanding.context import Context, Decision
from naila.understanding.evidence import ENOUGH
from naila.understanding.fleet_index import device_of, words_of
from naila.understanding.frames import Frame
from naila.understanding.gate import Wish
from naila.understanding.matching import Match, Matcher
from naila.understanding.quantities import Token
from naila.understanding.reading import AskBack, CannotDo, Doubtful, NotACommand, OpenQuestion, StateQuestion, Step
from naila.understanding.refusing import Refusals, is_addressed, next_question, not_an_amount, unknown_goal
from naila.understanding.rivals import goes_only, is_bare_number, names_nothing, of_number, own_rival

_TIE: Final = 0.12
_CLEARLY: Final = 0.35
_MOST_CANDIDATES: Final = 8
_MOST_UNEXPLAINED: Final = 2
_SURE: Final = 1.0
_OWN_VERB: Final = 0.8
_BECOMING: Final = frozenset({"go", "be", "become", "turn", "switch", "put"})
_SWITCHING: Final = frozenset({"turn", "switch", "put", "flip", "shut"})
_SWITCH: Final = 2


class Decider:
    """Decides what a wish comes to.

    Args:
        lexicon: the language.
        matcher: explains words by frames.
    """

    def __init__(self, lexicon: Lexicon, matcher: Matcher) -> None:
        self._matcher = matcher
        self._pronouns = frozenset(word for word in lexicon.pronouns if " " not in word)
        self._refusals = Refusals(lexicon)

    def decide(self, wish: Wish, context: Context) -> tuple[Decision, tuple[Frame, ...]]:
        """Return what a wish comes to, and the frames that it was explained by."""
        matches = self._matches(wish, context)
        whole = [match for match in matches if match.is_whole]
        if whole:
            chosen = self._choose(whole, [*whole, *of_number(matches)], wish, context)
            if isinstance(chosen, AskBack):
                return chosen, ()
            if (rival := own_rival(chosen, matches, wish, context)) is not None:
                return doubtful((rival, *chosen)), ()
            if self._is_distant(chosen, wish, context):
                return doubtful(chosen), ()
            if not self._is_anothers(chosen, matches, wish, context):
                decision = self._decided(chosen, wish)
                return decision, tuple(match.frame for match in chosen)
            matches = [match for match in matches if match.frame.device_id == context.view.speaker]
        return self._not_whole(matches, wish, context), ()

    def _is_distant(self, chosen: Sequence[Match], wish: Wish, context: Context) -> bool:
        """Whether another device than that spoken to could be meant only for want of a better one: `drop it`."""
        if len(chosen) != 1 or wish.told or wish.mentions or context.own is None:
            return False
        frame, texts = chosen[0].frame, {token.text for token in wish.tokens}
        if frame.device_id in {context.own, context.about} or frame in context.before:
            return False
        if chosen[0].has_object:
            return True  # `pick up my socks` is not for an arm that stands elsewhere
        nouns = {token.lemma for token in wish.tokens} & (frame.nouns.keys() | frame.own)
        given = [slot for slot in frame.slots if slot.name in chosen[0].arguments]
        is_own_verb = any(frame.verbs.get(text, 0.0) > _OWN_VERB for text in texts & _BECOMING)
        is_clear = is_own_verb and bool(given) and not all(slot.is_switch for slot in given)
        is_vague = bool(self._pronouns & texts) or (bool(texts & _BECOMING) and not is_clear)
        return is_vague and not {noun for noun in nouns if not frame.verbs.get(noun)}

    @staticmethod
    def _is_anothers(chosen: Sequence[Match], matches: Sequence[Match], wish: Wish, context: Context) -> bool:
        """Whether another device only might be meant, and the one that is spoken to might do something alike."""
        own = context.view.speaker
        if wish.told or wish.mentions or any(match.is_complete or match.frame.device_id == own for match in chosen):
            return False
        return any(match.frame.device_id == own and _is_near(match) for match in matches)

    def _matches(self, wish: Wish, context: Context) -> list[Match]:
        found: list[Match] = []
        oneself = _oneself(wish, context)
        for frame in context.fleet.candidates(wish, context.view.speaker, context.before):
            if oneself and frame.device_id not in oneself:
                continue
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
        if not (near or spoken_of) and goes_only(match, wish):
            return True
        if not (match.is_strong or near or spoken_of) and names_nothing(match, wish):
            return True
        if match.alone and match.is_change and match.missing and not near and not spoken_of:
            return True
        has_noun = match.evidence > 1.0 or bool(match.frame.nouns.keys() & {token.lemma for token in wish.tokens})
        return match.alone and not near and not spoken_of and not has_noun

    def _choose(
        self, whole: list[Match], meant: Sequence[Match], wish: Wish, context: Context
    ) -> tuple[Match, ...] | AskBack:
        best: dict[str, Match] = {}
        for match in whole:
            device = match.frame.device_id
            first = best.setdefault(device, match)
            if _is_rather(match, first):
                best[device] = match
        mentions = (*wish.told, *wish.mentions)
        every = next((mention for mention in mentions if mention.every), None)
        if every is not None:
            return tuple(best[device] for device in best if device in every.devices)
        chosen = next(iter(best)) if len(best) == 1 else self._whose(best, wish, context)
        if chosen is not None:
            others = (match for match in meant if match.frame.device_id == chosen)
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
        if same or (other.is_whole and best.evidence - other.evidence > _TIE):
            return None
        if best.is_complete != other.is_complete and (other.is_whole or not is_bare_number(best)):
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
        named = {device for mention in wish.mentions for device in mention.devices} & best.keys()
        if len(named) == 1 and best[next(iter(named))].is_complete:
            return next(iter(named))  # `turn off the lamp`, where an oven has a light
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
        refused = next(
            (found for match in matches if (found := self._refusals.unknown_value(match, wish, context))), None
        )
        refused = refused or self._refusals.unknown_of_kind(wish, context)
        refused = refused or unknown_goal(wish, context) or self._refusals.only_measured(wish, context)
        if refused is not None:
            return refused
        near = [match for match in matches if _is_near(match) and not _is_switched(match, wish)]
        of_others = near if not wish.mentions else [match for match in near if match.frame.device_id == context.own]
        near = [match for match in near if is_addressed(match, wish, context)] or of_others
        if near and near[0].problems:
            return problem_of(near[0])
        if near and (amounts := [token for token in wish.tokens if token.amount and token.text in near[0].unexplained]):
            if _only_lasts(near[0], amounts, wish):
                return doubtful(near[:1])
            if all(token.amount and token.amount.vague for token in amounts) and near[0].missing:
                return next_question(near[0], words_of(wish.tokens))
            if all(token.amount and token.amount.vague for token in amounts):
                return doubtful(near)
            return not_an_amount(near[0], amounts, wish)
        if not near and not wish.asked and wish.mood in {"plain", "request"}:
            near = [match for match in matches if match.is_strong and not match.unexplained and not match.arguments]
            near = [match for match in near if any(token.text in self._pronouns for token in wish.tokens)]
        return doubtful(near) if near and not wish.asked else self._refusals.unknown_feat(wish, context)


def _is_switched(match: Match, wish: Wish) -> bool:
    """Whether something is switched on or off, and the match is no switch: `turn off the tv` turns nobody round."""
    texts = [token.text for token in wish.tokens]
    is_switch = match.frame.parameter is not None or any(slot.is_switch for slot in match.frame.slots)
    is_said = texts[0] in _SWITCHING and bool({"on", "off"} & {texts[-1], *texts[1:2]})
    return is_said and not is_switch and len(texts) > _SWITCH


def _only_lasts(match: Match, amounts: Sequence[Token], wish: Wish) -> bool:
    """Whether it is only said how long, of what is clear but for that: `honk for one second`."""
    texts = [token.text for token in wish.tokens]
    is_for = all("for" in texts and texts[texts.index(token.text) - 1] == "for" for token in amounts)
    return is_for and not match.missing and len(match.unexplained) == len(amounts)


def _oneself(wish: Wish, context: Context) -> frozenset[str]:
    """Return the devices that `yourself` stands for; none where nobody says so."""
    if not any(token.text in {"yourself", "yourselves"} for token in wish.tokens):
        return frozenset()
    called = [*wish.told, *(mention for mention in wish.mentions if mention.start == 0)]
    return frozenset().union(*(mention.devices for mention in called)) or frozenset(filter(None, (context.own,)))


def _is_near(match: Match) -> bool:
    return match.is_strong and len(match.unexplained) <= _MOST_UNEXPLAINED and match.evidence >= ENOUGH


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


def _is_rather(match: Match, first: Match) -> bool:
    """Whether a match that is complete is meant rather than one that only a noun speaks for: `switch to heat`."""
    is_noun_only = bool(first.missing) and not (first.arguments or first.is_strong)
    if match.is_complete and match.is_strong and not first.is_strong and match.evidence >= _SURE:
        return True  # `open up` opens, though `up` may be said of a position
    if match.is_complete and match.is_strong and match.evidence >= _SURE and first.missing and not first.arguments:
        return True
    near = match.evidence >= first.evidence - _TIE
    return is_noun_only and match.is_complete and bool(match.arguments) and near
