"""Guessing what comes next, to have several tokens checked in one step instead of one drawn in each.

Prompt lookup: what followed the last few tokens where they stood before will often follow again, in quotes, names,
numbers and JSON. Where it finds nothing, a draft model may guess (`naila.inference.draft`), if one is configured. A
guess costs a few more rows in a step and can't change the answer: each token is still drawn from the model's own
logits, and what was guessed wrong is dropped. Where guesses don't pay for themselves they stop.

Source: Saxena, "Prompt Lookup Decoding", 2023; Leviathan et al., "Fast Inference from Transformers via Speculative
Decoding", ICML 2023.
"""

from __future__ import annotations

from array import array
from typing import Final, Protocol

LONGEST: Final = 6

_NGRAM: Final = 3
_TRIAL: Final = 8
_FAR_BACK: Final = 4096
_MANY: Final = 16
_FEW_READ: Final = 8
_LONGEST_STEP_S: Final = 0.12
_HOPELESS: Final = 0.6  # half of the guesses come true in the best of texts


class StepCost:
    """What one more token in a step costs, in steps of one token, learnt from the steps that happen anyway.

    On a graphics card, or where weights have to come from main memory, next to nothing; where the processor is busy
    with arithmetic, as with a small model, nearly a whole step: then no guess can pay.
    """

    def __init__(self) -> None:
        self._single = 0.0
        self._row = 0.0

    def learn(self, tokens: int, seconds: float) -> None:
        """Note how long a step took."""
        if tokens == 1:
            self._single = _smooth(self._single, seconds)
        elif tokens >= _MANY and self._single:
            self._row = _smooth(self._row, max(0.0, seconds - self._single) / (tokens - 1))

    def affordable(self, capacity: int) -> int:
        """Return how many tokens may be read in beside others' writing, so that their next tokens do not wait long."""
        if not self._row or not self._single:
            return min(capacity, _MANY * 2)
        longest = max(_LONGEST_STEP_S, 2 * self._single)
        return max(_FEW_READ, min(capacity, int((longest - self._single) / self._row)))

    @property
    def row(self) -> float:
        """The cost; 1 where it is not known yet."""
        return min(1.0, self._row / self._single) if self._single and self._row else 1.0

    def of(self, seconds: float) -> float:
        """Return what so many seconds cost; 1 where it is not known yet."""
        return seconds / self._single if self._single else 1.0


class Guesser(Protocol):
    """One request's way to guess."""

    def guess(self, tokens: array[int], room: int) -> array[int]:
        """Return what may follow, at most `room` tokens; nothing where nothing is known or guesses don't pay."""
        ...

    def learn(self, guessed: int, taken: int) -> None:
        """Note how many guessed tokens came true."""
        ...

    def close(self) -> None:
        """Give back what it holds; it guesses no more."""
        ...


class Record:
    """How often guesses came true, and whether that pays."""

    def __init__(self) -> None:
        self._steps = 0
        self._guessed = 0
        self._taken = 0

    def learn(self, guessed: int, taken: int) -> None:
        """Note how many guessed tokens came true."""
        self._steps += 1
        self._guessed += guessed
        self._taken += taken

    def pays(self, cost: float) -> bool:
        """Whether to go on, where a guessed token costs so much of a step."""
        return cost < _HOPELESS and (self._steps < _TRIAL or self._taken >= self._guessed * cost)


class Speculation:
    """One request's guessers: the first that guesses anything is the one that learns."""

    def __init__(self, *guessers: Guesser) -> None:
        self._guessers = guessers
        self._last: Guesser | None = None

    def guess(self, tokens: array[int], room: int) -> array[int]:
        """Return what may follow, at most `room` tokens."""
        for guesser in self._guessers if room > 0 else ():
            if guess := guesser.guess(tokens, room):
                self._last = guesser
                return guess
        return array("i")

    def learn(self, guessed: int, taken: int) -> None:
        """Note how many guessed tokens came true."""
        if self._last is not None:
            self._last.learn(guessed, taken)

    def close(self) -> None:
        """Give back what is held; nothing is guessed any more."""
        for guesser in self._guessers:
            guesser.close()
        self._guessers = ()


class PromptLookup:
    """Guesses from what the prompt and the answer already say."""

    def __init__(self, cost: StepCost | None) -> None:
        """Begin without experience.

        Args:
            cost: what a guess costs; None takes it for nothing.
        """
        self._cost = cost
        self._record = Record()

    def guess(self, tokens: array[int], room: int) -> array[int]:
        """Return what may follow, at most `room` tokens; nothing where nothing is known or guesses don't pay."""
        longest = min(room, LONGEST)
        if longest < 1 or len(tokens) <= _NGRAM or not self._pays:
            return array("i")
        begin = max(0, len(tokens) - _FAR_BACK)
        found = _rfind(tokens[begin:-1], tokens[-_NGRAM:])
        return tokens[begin + found + _NGRAM :][:longest] if found >= 0 else array("i")

    def learn(self, guessed: int, taken: int) -> None:
        """Note how many guessed tokens came true."""
        self._record.learn(guessed, taken)

    def close(self) -> None:
        """Nothing is held."""

    @property
    def _pays(self) -> bool:
        return self._record.pays(self._cost.row if self._cost is not None else 0.0)


def _rfind(tokens: array[int], wanted: array[int]) -> int:
    """Return where `wanted` stands last in `tokens`, or -1."""
    data, pattern, size = tokens.tobytes(), wanted.tobytes(), tokens.itemsize
    at = data.rfind(pattern)
    while at > 0 and at % size:
        at = data.rfind(pattern, 0, at + len(pattern) - 1)
    return at // size if at >= 0 else -1


def _smooth(before: float, now: float) -> float:
    return now if not before else before + (now - before) / 8
