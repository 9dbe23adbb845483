"""Matching: how well the words of a wish are explained by one frame, and the arguments that they give.

Every word that carries meaning must be explained (by the action, a value, an amount, a device) for a match to be
whole; and something must speak for the action itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from naila.config.lexicon import Lexicon
from naila.events import JsonValue
from naila.fleet import DeviceView
from naila.understanding.attempt import Filling, Problem
from naila.understanding.caveats import Caveats
from naila.understanding.evidence import ENOUGH, Scales
from naila.understanding.filling import Filler
from naila.understanding.frames import Frame
from naila.understanding.gate import Wish
from naila.understanding.quantities import Token
from naila.understanding.words import Phrases

_UP: Final = frozenset({"up", "on", "onto", "hold"})
_INHERITED: Final = 0.5
_ARTICLES: Final = frozenset({"the", "a", "an", "this", "that", "my", "your"})
_DEFINITE: Final = frozenset({"the", "this", "that", "my", "your", "our", "his", "her"})
_PERSONS: Final = frozenset({"me", "us", "him", "her", "them", "everybody", "everyone", "somebody", "someone"})
_MOST_WORDS: Final = 2
_LITTLE: Final = 0.5
_LASTING: Final = frozenset(
    {
        "night", "day", "week", "weekend", "evening", "morning", "afternoon", "month", "year", "while", "rest", "time",
        "moment", "duration", "length", "sec", "bit", "meantime", "season", "holiday", "round", "win", "kill", "money",
    }
)  # fmt: skip
_LEADS: Final = _ARTICLES | _DEFINITE | {"in", "on", "at", "by", "of", "from", "with", "its", "for"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A frame and how it fits.

    Attributes:
        frame: what is meant.
        evidence: how much speaks for it.
        unexplained: words that it leaves unexplained.
        arguments: what the words give, in the declared units.
        missing: required arguments that they do not give.
        problems: what they give that is not allowed.
        bare: nothing but the verb was said.
        alone: neither a verb of its own nor one that sets anything was said.
        is_strong: its own verb or phrase was said.
        has_object: it is done to something that nobody declared: `pick up the cup`.
        is_change: only how it should differ was said: `faster`.
        by_number: nothing was said of a setting but a number without a unit.
        support: numbers that the words support, by argument.
    """

    frame: Frame
    evidence: float
    unexplained: tuple[str, ...] = ()
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    bare: bool = False
    alone: bool = False
    is_strong: bool = False
    has_object: bool = False
    is_change: bool = False
    by_number: bool = False
    support: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether every word is explained and enough speaks for it."""
        return not self.unexplained and self.evidence >= ENOUGH

    @property
    def is_complete(self) -> bool:
        """Whether it can be done as it was said."""
        return self.is_whole and not self.missing and not self.problems


class Matcher:
    """Explains words by frames.

    Args:
        lexicon: the language.
        filler: finds arguments.
    """

    def __init__(self, lexicon: Lexicon, filler: Filler) -> None:
        self._filler = filler
        self._caveats = Caveats(filler.units)
        self._scales = Scales(lexicon, filler.related)
        self._free = Phrases((*lexicon.function, *lexicon.hedges, *lexicon.manners))
        self._particles = Phrases(lexicon.particles)
        self._carriers = lexicon.carriers
        self._generic = lexicon.generic
        self._figurative = lexicon.figurative
        self._body = lexicon.body
        self._scales_words = lexicon.scales
        openings = (
            lexicon.factors,
            lexicon.state.adjectives,
            lexicon.relative,
            lexicon.extremes,
            lexicon.manner,
            lexicon.half_turns,
            lexicon.whole_turns,
            lexicon.ordinals,
        )
        self._openings = frozenset(phrase.split()[0] for phrases in openings for phrase in phrases)

    def match(
        self,
        frame: Frame,
        wish: Wish,
        view: DeviceView,
        *,
        inherited: bool = False,
        given: Mapping[str, JsonValue] | None = None,
    ) -> Match | None:
        """Return how a frame explains a wish, None where it does not at all.

        Args:
            frame: the frame.
            wish: the words.
            view: its device, now.
            inherited: the words may leave out the verb: the frame was just spoken of.
            given: arguments that are known already.
        """
        tokens = wish.tokens
        mentioned = _mentioned(frame, wish)
        head = None if mentioned is None else self._head(tokens, mentioned)
        if mentioned is None or (head is not None and not self._may_begin(frame, tokens[head])):
            return None
        filling = self._filler.fill(frame, tokens, view, taken=mentioned, given=given or {})
        evidence, strong, found = self._scales.weigh(frame, wish, head, filling)
        explained = mentioned | filling.used | filling.named | found
        self._explain_rest(tokens, explained)
        has_object = False
        if strong:
            _explain_particle(frame, tokens, explained)
            has_object = self._explain_object(frame, tokens, explained)
        explained -= self._caveats.places(frame, tokens, filling.used, mentioned | filling.named, filling.arguments)
        is_talk = not inherited and _is_statement(wish, mentioned, head, filling)
        if is_talk or (head is not None and head not in explained):
            return None
        if frame.needs_verb and not strong and not inherited and filling.evidence < ENOUGH:
            evidence = min(evidence, ENOUGH / 2)
        evidence += _INHERITED if inherited else 0.0
        if evidence <= 0:
            return None
        return Match(
            frame=frame,
            evidence=evidence,
            unexplained=tuple(token.text for at, token in enumerate(tokens) if at not in explained),
            arguments=filling.arguments,
            missing=filling.missing,
            problems=filling.problems,
            alone=not strong and not (head is not None and tokens[head].lemma in self._carriers),
            bare=not filling.used and len(tokens) - len(mentioned) <= 1,
            is_strong=strong,
            has_object=has_object,
            is_change=bool(filling.attributes),
            by_number=frame.is_setting and not (strong or filling.named) and _is_by_number(frame, tokens, filling),
            support=filling.support,
        )

    def _head(self, tokens: Sequence[Token], mentioned: set[int]) -> int | None:
        """Return the place of the word where the verb should be."""
        at = 0
        texts = [token.text for token in tokens]
        while at < len(tokens):
            if at in mentioned:
                at += 1
            elif texts[at] in self._carriers or not (length := self._free.at(texts, at)):
                return at
            else:
                at += length
        return None

    def _may_begin(self, frame: Frame, token: Token) -> bool:
        """Whether a word can be explained by a frame at all."""
        if token.amount is not None or token.share is not None or token.lemma in self._carriers:
            return True
        words = {token.lemma, token.text}
        return bool(words & frame.words or words & self._openings)

    def _explain_rest(self, tokens: Sequence[Token], explained: set[int]) -> None:
        """Explain the words that mean nothing here."""
        texts = [token.text for token in tokens]
        at = 0
        while at < len(tokens):
            length = 0 if at in explained else max(self._free.at(texts, at), self._particles.at(texts, at))
            explained.update(range(at, at + length))
            if _is_article_number(tokens, at) or self._is_scale(tokens, at, explained):
                explained.add(at)
            at += length or 1

    def _is_scale(self, tokens: Sequence[Token], at: int, explained: set[int]) -> bool:
        """Whether it is the `level` of `level five`."""
        after = tokens[at + 1].amount if at + 1 < len(tokens) and at + 1 in explained else None
        return after is not None and after.unit is None and not after.counted and tokens[at].lemma in self._scales_words

    def _explain_object(self, frame: Frame, tokens: Sequence[Token], explained: set[int]) -> bool:
        """Explain one thing that something is done to: `the cup`, `at my daughter`; return whether it is a thing."""
        unknown = [at for at in range(len(tokens)) if at not in explained]
        if len(unknown) == 1 and tokens[unknown[0]].text in _PERSONS:
            explained.update(at for at in unknown if at and tokens[at - 1].text in frame.object_after)
            return False
        if _for_whom(tokens, unknown):
            explained.update(unknown)
            return False
        if not unknown or len(unknown) > 2 or unknown[-1] - unknown[0] >= len(unknown) or unknown[0] < 2:
            return False
        first = unknown[0]
        before = tokens[first - 2]
        if before.text in _UP and first > 2:
            before = tokens[first - 3]  # `pick up the cup`
        are_nouns = all(tokens[at].form in {"base", "s"} and tokens[at].amount is None for at in unknown)
        if not are_nouns or tokens[first - 1].text not in _DEFINITE:
            return False
        figurative = self._figurative | self._body
        is_figurative = any({tokens[at].text, tokens[at].lemma} & figurative for at in unknown)
        is_thing = before.lemma in frame.object_verbs and not any(tokens[at].lemma in self._generic for at in unknown)
        is_thing = is_thing and tokens[first - 1].text != "your"
        is_somebody = before.text in frame.object_after and tokens[first - 1].text != "your"
        if not is_figurative and (is_thing or is_somebody):
            explained.update(unknown)
        return is_thing and not is_figurative


def _is_by_number(frame: Frame, tokens: Sequence[Token], filling: Filling) -> bool:
    """Whether numbers without units gave all the arguments, and nothing else was said of a frame."""
    said = [amount for at in filling.used if (amount := tokens[at].amount) is not None]
    is_said = any(frame.nouns.get(token.lemma, 0.0) > _LITTLE for token in tokens)
    return len(said) == len(filling.arguments) > 0 and not is_said and all(amount.unit is None for amount in said)


def _for_whom(tokens: Sequence[Token], unknown: Sequence[int]) -> bool:
    """Whether only a purpose is left at the end: `for the album`; never how long: `for the day`."""
    first = unknown[0] if unknown else 0
    at_end = bool(unknown) and list(unknown) == list(range(first, len(tokens))) and len(unknown) <= _MOST_WORDS
    before = [token.text for token in tokens[max(0, first - 2) : first]]
    is_for = before[:1] in (["for"], ["like"]) and before[-1] in _ARTICLES
    are_nouns = all(
        (tokens[at].form == "base" or before[:1] == ["like"]) and tokens[at].amount is None for at in unknown
    )
    return at_end and is_for and are_nouns and not any(tokens[at].text in _LASTING for at in unknown)


def _explain_particle(frame: Frame, tokens: Sequence[Token], explained: set[int]) -> None:
    """Explain the `up` of `open up`."""
    last = len(tokens) - 1
    if last > 0 and tokens[last].text == "up" and tokens[last - 1].lemma in frame.whole_verbs:
        explained.add(last)


def _mentioned(frame: Frame, wish: Wish) -> set[int] | None:
    """Return the places where a frame's device is spoken of, None where another is told."""
    if wish.told and not any(frame.device_id in mention.devices for mention in wish.told):
        return None
    mine = (mention for mention in wish.mentions if frame.device_id in mention.devices)
    return {place for mention in mine for place in range(mention.start, mention.end)}


def _is_article_number(tokens: Sequence[Token], at: int) -> bool:
    """Whether it is the one of `take one photo`."""
    amount = tokens[at].amount
    is_one = amount is not None and amount.value == 1 and amount.unit is None
    return is_one and amount is not None and not amount.vague and not amount.counted and at + 1 < len(tokens)


def _is_statement(wish: Wish, mentioned: set[int], head: int | None, filling: Filling) -> bool:
    """Whether it says what a device does (`the rover go …`), or names a thing (`the red light`)."""
    if wish.mood != "plain" or head is None or wish.polite:
        return False
    tokens, used = wish.tokens, filling.used
    first = next((mention for mention in wish.mentions if mention.start == 0 and mention.article), None)
    if first and set(range(first.start, first.end)) <= mentioned:
        return head not in used
    if tokens[0].amount is not None or tokens[0].text not in _LEADS:
        return False
    if not used:
        return True
    values = [at for at in sorted(used) if tokens[at].amount is None]
    amounts = any(tokens[at].amount for at in used)
    return tokens[0].text in _ARTICLES and values[:1] == [head] and not amounts
