"""Examples: what those of an action say of its arguments, and of the ways that its device can go."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from naila.understanding.frames import WAYS, Slot
from naila.understanding.quantities import Token

_MOST_BESIDE: Final = 2


def counting(
    said: Sequence[Sequence[Token]], slots: tuple[Slot, ...], values: AbstractSet[tuple[str, ...]]
) -> tuple[Slot, ...]:
    """Let a number without a unit be counted where an example counts it: `zoom in 3 times`, `two coffees`."""
    bare = [slot for slot in slots if slot.kind == "number" and slot.unit is None]
    counted = (
        token.amount is not None
        and token.amount.unit is None
        and (token.amount.counted or (at + 1 < len(tokens) and (tokens[at + 1].lemma,) in values))
        for tokens in said
        for at, token in enumerate(tokens)
    )
    if len(bare) != 1 or bare[0].counts or not any(counted):
        return slots
    return tuple(replace(slot, counts=True) if slot is bare[0] else slot for slot in slots)


def ways_of(examples: Sequence[tuple[str, ...]], device_words: frozenset[str]) -> frozenset[str]:
    """Return the ways that examples say of the device, with a verb or without: `blind up`, `let the blinds down`."""
    said: set[str] = set()
    for content in examples:
        rest = [word for word in content if word not in device_words]
        if len(rest) < len(content) and len(rest) <= _MOST_BESIDE:
            said.update(WAYS.keys() & rest)
    return frozenset(said)


def is_setting(said: Sequence[Sequence[Token]], slots: tuple[Slot, ...]) -> bool:
    """Whether examples say what a number is to come to: `heat to 180 degrees`."""
    if not any(slot.kind == "number" and slot.required for slot in slots):
        return False
    before = {tokens[at - 1].text for tokens in said for at, token in enumerate(tokens) if token.amount and at}
    return "to" in before and "by" not in before
