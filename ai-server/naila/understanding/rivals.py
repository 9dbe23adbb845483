"""Rivals: what may be meant as well as what was found, so that it is asked about or left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from naila.understanding.context import Context
from naila.understanding.gate import Wish
from naila.understanding.matching import Match

_SHORT: Final = 2
_LITTLE: Final = 0.5


def own_rival(chosen: Sequence[Match], matches: Sequence[Match], wish: Wish, context: Context) -> Match | None:
    """Return what the device that is spoken to might do, where only another's word was said: `home`."""
    own = context.view.speaker
    is_anothers = len(chosen) == 1 and chosen[0].frame.device_id not in {own, context.about}
    if not is_anothers or wish.told or wish.mentions:
        return None
    said = {token.lemma for token in wish.tokens}
    rivals = [match for match in matches if match.frame.device_id == own and not match.unexplained]
    named = (match for match in rivals if match.frame.own & said and not (match.problems or chosen[0].arguments))
    is_bare = chosen[0].bare or bool(chosen[0].problems)
    is_short = len(wish.tokens) <= _SHORT and not chosen[0].arguments
    given = (match for match in rivals if match.arguments and (is_bare or (is_short and not _is_switch(match))))
    return next(given, None) or next(named, None)


def _is_switch(match: Match) -> bool:
    """Whether a match only switches something on or off."""
    return {str(value).casefold() for value in match.arguments.values()} <= {"on", "off", "true", "false"}


def is_bare_number(match: Match) -> bool:
    """Whether nothing but a number speaks for a setting: `get the oven up to 190`."""
    return match.is_complete and match.by_number


def of_number(matches: Iterable[Match]) -> list[Match]:
    """Return the settings that a bare number could be for, too."""
    return [
        match for match in matches if match.by_number and not (match.is_whole or match.unexplained or match.missing)
    ]


def goes_only(match: Match, wish: Wish) -> bool:
    """Whether only a way was said that several things can go, and no verb of this one: `raise it`, `get down`."""
    verbs = match.frame.verbs
    return bool(match.frame.ways) and not any(verbs.get(token.lemma, 0.0) > _LITTLE for token in wish.tokens)


def names_nothing(match: Match, wish: Wish) -> bool:
    """Whether a match is only on or off, or only a number, which many devices can be told: `turn off`."""
    nouns = match.frame.nouns.keys() | match.frame.own
    if any(token.lemma in nouns and match.frame.nouns.get(token.lemma, 1.0) > _LITTLE for token in wish.tokens):
        return False
    given = [slot for slot in match.frame.slots if slot.kind == "choice" and slot.name in match.arguments]
    return bool(match.arguments) and all(slot.is_switch for slot in given)
