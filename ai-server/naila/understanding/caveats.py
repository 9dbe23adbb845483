"""Caveats: words that turn what stands beside them into something else: `around the table`, `five times a second`.

They keep a match from being whole: what was said so is asked about, or left, and never done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from naila.events import JsonValue
from naila.understanding.frames import Frame, Slot
from naila.understanding.quantities import DEGREE, Amount, Token, Units

_ARTICLES: Final = frozenset({"the", "a", "an", "my", "your", "this", "that", "our"})
_ELSEWHERE: Final = frozenset(
    {
        "around", "round", "on", "onto", "under", "underneath", "beneath", "behind", "beside", "past", "beyond",
        "between", "above", "below", "across", "off", "opposite", "outside", "without", "against", "by", "near",
    }
)  # fmt: skip
_BEYOND: Final = frozenset(
    {"above", "below", "over", "under", "beyond", "past", "within", "beneath", "between", "until", "till"}
)
_NOT_QUITE: Final = frozenset({"almost", "nearly"})
_EACH: Final = ("every ", "each ", "per ")
_RATE: Final = ("a ", "an ", "per ")
_PAUSES: Final = frozenset({"interval", "period", "pause", "gap", "delay", "every", "between", "cycle"})
_GOALS: Final = frozenset({"height", "altitude", "position", "level", "target", "goal"})
_LATER: Final = (["from", "now"], ["hence"], ["from", "here", "on"])
_LOOSE: Final = frozenset({"straight", "up", "on", "off", "over", "low", "fast", "strong", "normal", "slow", "gentle"})
_MEANT: Final = 0.85
_MOVING: Final = ("go", "drive")


class Caveats:
    """Finds the words that an understood value or amount may not stand beside.

    Args:
        units: units of measurement.
    """

    def __init__(self, units: Units) -> None:
        self._units = units

    def places(
        self, frame: Frame, tokens: Sequence[Token], used: set[int], taken: set[int], arguments: dict[str, JsonValue]
    ) -> set[int]:
        """Return the places of words that change what a value or an amount means.

        Args:
            frame: what is tried on the words.
            tokens: the words.
            used: places of words that gave an argument.
            taken: places where a device is spoken of.
            arguments: what they gave, by name.
        """
        texts = [token.text for token in tokens]
        found: set[int] = set()
        for slot in frame.slots:
            value = arguments.get("value" if frame.parameter is not None else slot.name)
            if slot.kind == "choice" and value is not None:
                found.update(_other_values(slot, value, tokens, used | taken))
                found.update(_elsewhere(frame, slot, value, tokens, used))
        for at, token in enumerate(tokens):
            if token.text in _NOT_QUITE and not (at + 1 < len(tokens) and _is_much(tokens[at + 1])):
                found.add(at)
            if token.amount is not None and at in used:
                found.update(self._beside(frame, token.amount, texts, tokens, at))
        return found

    def _beside(
        self, frame: Frame, amount: Amount, texts: list[str], tokens: Sequence[Token], at: int
    ) -> Iterator[int]:
        """Find what makes an amount a time, a rate, a goal or a bound."""
        before = texts[at - 1] if at else ""
        is_time = amount.unit is not None and self._units.convert(1, amount.unit, "second") is not None
        if before in _BEYOND or (before == "on" and at == 1 and amount.unit is None):
            yield at - 1  # `on three, beep`
        if is_time and amount.said.startswith(_RATE) and at and tokens[at - 1].amount:
            yield at
        if is_time and amount.said.startswith(_EACH) and not any(slot.nouns & _PAUSES for slot in frame.slots):
            yield at
        if any(texts[at + 1 : at + 1 + len(words)] == words for words in _LATER) or texts[at + 1 :] == ["from"]:
            yield at
        if before == "by" and not amount.vague and self._only_lasts(frame) and (is_time or amount.unit is None):
            yield at
        aims = before == "to" and not _has_goal(frame) and (amount.unit == DEGREE or texts[at - 2 : at - 1] != ["up"])
        if aims and amount.unit is not None and not is_time and frame.parameter is None:
            yield at

    def _only_lasts(self, frame: Frame) -> bool:
        """Whether every number of an action is a time."""
        units = [slot.unit for slot in frame.slots if slot.kind == "number"]
        return bool(units) and all(unit and self._units.convert(1, unit, "second") is not None for unit in units)


def _has_goal(frame: Frame) -> bool:
    """Whether an action's number is where something is to be."""
    return frame.is_setting or any(slot.nouns & _GOALS for slot in frame.slots)


def _is_much(token: Token) -> bool:
    return token.amount is not None or token.share is not None or token.text in {"all", "a", "the"}


def _other_values(slot: Slot, value: JsonValue, tokens: Sequence[Token], known: set[int]) -> Iterator[int]:
    """Find another value of the same argument: `left and right`, `forward 1 meter back`."""
    last = len(tokens) - 1
    for choice in slot.choices:
        if choice.value == value:
            continue
        for words, near in choice.phrases:
            if near < _MEANT or (words[0] in _LOOSE and not (slot.is_switch and len(words) == 1)):
                continue
            for at in range(len(tokens) - len(words) + 1):
                places = range(at, at + len(words))
                said = words == tuple(tokens[place].lemma for place in places)
                if not said or any(place in known for place in places) or tokens[at].form == "past":
                    continue
                if not slot.is_switch or at == last or at - 1 in known or at + 1 in known:
                    yield from places


def _elsewhere(frame: Frame, slot: Slot, value: JsonValue, tokens: Sequence[Token], used: set[int]) -> Iterator[int]:
    """Find what says that a place is not the one to go to: `around the table`, `the back door`."""
    if slot.senses or not any(verb in frame.verbs for verb in _MOVING):
        return
    phrases = [words for choice in slot.choices if choice.value == value for words, _ in choice.phrases]
    for words in phrases:
        for at in range(1, len(tokens) - len(words) + 1):
            if at not in used or words != tuple(token.lemma for token in tokens[at : at + len(words)]):
                continue
            before = at - 1
            if tokens[before].text == "back" and before and tokens[before - 1].text in _ARTICLES:
                yield before
            before -= int(tokens[before].text in _ARTICLES)
            if before >= 0 and before not in used and tokens[before].text in _ELSEWHERE:
                yield before
