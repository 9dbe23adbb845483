"""A draft model: a small one that guesses on for a large one with the same vocabulary.

It writes greedily, a few tokens ahead of each of the few requests that it guesses for; the large model checks all of
them in one step (`naila.inference.speculation`). It pays where the large model's step costs many of the small one's,
and hardly more with a few rows in it: a large model on a graphics card, or one whose weights come from main memory.

Source: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", ICML 2023; Chen et al.,
"Accelerating Large Language Model Decoding with Speculative Sampling", 2023.
"""

from __future__ import annotations

import logging
import time
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Final

from naila.errors import ModelError
from naila.inference.batch import Batch
from naila.inference.gguf import read_header
from naila.inference.kv import NativeKv
from naila.inference.model import Model
from naila.inference.prefix_cache import common_prefix
from naila.inference.sampling import Sampler, Sampling
from naila.inference.speculation import LONGEST, Record, StepCost
from naila.ports import EnginePlan

PLACES: Final = 2  # requests that it guesses for at once: where more write, a step is well used already

_log = logging.getLogger(__name__)


def open_draft(path: str, plan: EnginePlan, target: Model) -> Draft | None:
    """Load a draft model for a target; None, and the log says why, where it cannot be used: it only saves time."""
    try:
        read_header(Path(path))
        model = Model(Path(path), replace(plan, n_cells=PLACES * plan.n_ctx, n_sequences=PLACES))
    except ModelError as exc:
        _log.warning("no draft model: %s; correct or unset LLM_DRAFT_MODEL", exc)
        return None
    why = None
    if model.is_recurrent:
        why = "its state cannot be cut after a wrong guess"
    elif not model.vocabulary.is_like(target.vocabulary):
        why = f"its vocabulary is not that of {target.path.name}"
    if why is None:
        return Draft(model)
    _log.warning("no draft model: %s: %s; choose another LLM_DRAFT_MODEL", path, why)
    model.close()
    return None


class Draft:
    """A draft model and its conversations. Belongs to the engine's thread."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._kv = NativeKv(model)
        self._batch = Batch(model.n_batch)
        self._sampler = Sampler(Sampling(temperature=0))
        self._held: list[array[int]] = [array("i") for _ in range(PLACES)]
        self._free = list(range(PLACES))
        self._token_s = 0.0

    def guesser(self, cost: StepCost | None) -> DraftGuesser:
        """Return what guesses for one request."""
        return DraftGuesser(self, cost)

    @property
    def token_s(self) -> float:
        """Seconds that it takes to guess a token; 0 until it has."""
        return self._token_s

    def claim(self) -> int | None:
        """Return a place of its own for a request, if one is free."""
        return self._free.pop() if self._free else None

    def leave(self, place: int) -> None:
        """Give a place back; what it held may serve the next request."""
        self._free.append(place)

    def write_on(self, place: int, tokens: array[int], count: int) -> array[int]:
        """Return the `count` tokens that it would write behind these; none while it still has much of them to read.

        Each call reads one batch at most, so that nobody's next token waits for it.
        """
        keep = common_prefix(self._held[place], tokens, len(tokens) - 1)
        if keep < len(self._held[place]):
            self._kv.trim(place, keep)
            del self._held[place][keep:]
        unread = tokens[keep : keep + self._batch.capacity]
        guess = array("i")
        if len(tokens) + count > self._model.n_ctx or not self._read(place, unread) or keep + len(unread) < len(tokens):
            return guess
        started = time.perf_counter()
        while True:
            guess.append(self._sampler.sample(self._model.context))
            if len(guess) == count or self._model.vocabulary.is_end(guess[-1]) or not self._read(place, guess[-1:]):
                break
        self._token_s = (time.perf_counter() - started) / len(guess)
        return guess

    def close(self) -> None:
        """Free everything."""
        self._sampler.close()
        self._batch.close()
        self._model.close()

    def _read(self, place: int, tokens: array[int]) -> bool:
        held = self._held[place]
        self._batch.clear()
        self._batch.add(tokens, position=len(held), sequence=place, outputs=1)
        if self._batch.decode(self._model.context) != 0:
            self._kv.trim(place, 0)
            del held[:]
            return False
        held.extend(tokens)
        return True


class DraftGuesser:
    """Guesses for one request by a draft model."""

    def __init__(self, draft: Draft, cost: StepCost | None) -> None:
        """Begin without experience.

        Args:
            draft: who writes.
            cost: what a step costs; None takes guesses for free.
        """
        self._draft = draft
        self._cost = cost
        self._record = Record()
        self._place: int | None = None

    def guess(self, tokens: array[int], room: int) -> array[int]:
        """Return what the draft model would write."""
        if not self._pays:
            self.close()
            return array("i")
        if self._place is None:
            self._place = self._draft.claim()
        return array("i") if self._place is None else self._draft.write_on(self._place, tokens, min(room, LONGEST))

    def learn(self, guessed: int, taken: int) -> None:
        """Note how many guessed tokens came true."""
        self._record.learn(guessed, taken)

    def close(self) -> None:
        """Give its place to the next request."""
        if self._place is not None:
            self._draft.leave(self._place)
            self._place = None

    @property
    def _pays(self) -> bool:
        return self._record.pays(self._cost.row + self._cost.of(self._draft.token_s) if self._cost is not None else 0.0)
