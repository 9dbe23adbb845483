"""Conversations that write without end: the load under which an engine is measured."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Mapping
from functools import partial
from typing import Final

from naila.errors import EngineFailedError, GenerationError
from naila.inference.engine import Engine
from naila.inference.request import Completion, Request
from naila.inference.sampling import Sampling

_GRACE_S: Final = 2.0
_GIVE_UP_S: Final = 300.0


class Writers:
    """Writes in several conversations at once until stopped, and counts.

    An answer that ends, at its bound or because the model drew its end, is asked for again at once. All of its prompt
    but one token is in the KV cache then, so that asking again costs the one step that the next token would have cost:
    every step writes one token in every conversation, whatever the model says.
    """

    def __init__(
        self, engine: Engine, prompts: Mapping[str, array[int]], sampling: Sampling, *, max_tokens: int
    ) -> None:
        """Prepare.

        Args:
            engine: writes.
            prompts: by session, what has been read in already.
            sampling: how tokens are drawn.
            max_tokens: bound on each answer.
        """
        self._engine = engine
        self._prompts = prompts
        self._sampling = sampling
        self._max_tokens = max_tokens
        self._asked: dict[str, Request] = {}
        self._until = float("inf")
        self._seconds = float("inf")
        self._started = self._ended = 0.0
        self._tokens = 0
        self._failure: GenerationError | None = None
        self._done = threading.Event()

    def start(self, seconds: float = float("inf")) -> None:
        """Begin, for so many seconds."""
        self._seconds = seconds
        session, prompt = next(iter(self._prompts.items()))
        # On the engine's thread all ask between two steps, and so write from the same step on.
        starter = self._request(session, prompt, 0)
        starter.on_end = self._begin
        self._engine.submit(starter)

    def wait(self) -> float:
        """Return, when the time is up, the tokens written in a second, in all conversations together.

        Raises:
            GenerationError: the engine failed.
        """
        if not self._done.wait(self._seconds + _GRACE_S if self._seconds < _GIVE_UP_S else _GIVE_UP_S):
            self._cancel()
        if not self._done.wait(_GIVE_UP_S):
            raise EngineFailedError("the engine does not answer")
        if self._failure is not None:
            raise self._failure
        return self._tokens / max(self._ended - self._started, 1e-9)

    def stop(self) -> float:
        """End it now; return as `wait` does."""
        self._until = self._seconds = 0.0
        return self.wait()

    def _cancel(self) -> None:
        self._until = 0.0
        for request in list(self._asked.values()):
            self._engine.cancel(request, "cancelled")

    # What follows runs on the engine's thread.

    def _begin(self, end: Completion | GenerationError) -> None:
        self._started = time.perf_counter()
        self._until = min(self._until, self._started + self._seconds)
        if isinstance(end, GenerationError):
            self._failure = end
            self._done.set()
            return
        for session, prompt in self._prompts.items():
            self._ask(session, prompt)

    def _ask(self, session: str, prompt: array[int]) -> None:
        self._asked[session] = request = self._request(session, prompt, self._max_tokens)
        self._engine.submit(request)

    def _request(self, session: str, prompt: array[int], max_tokens: int) -> Request:
        return Request(
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=self._sampling,
            owner=session.partition("/")[0],
            session=session,
            on_text=partial(self._look_at_the_clock, session),
            on_end=partial(self._go_on, session),
        )

    def _look_at_the_clock(self, session: str, _text: str) -> None:
        # Between two steps, so that nothing is cut off in the middle of one and lost.
        if time.perf_counter() >= self._until:
            self._engine.cancel(self._asked[session], "cancelled")

    def _go_on(self, session: str, end: Completion | GenerationError) -> None:
        if isinstance(end, GenerationError):
            self._failure, self._until = end, 0.0
        else:
            self._tokens += end.usage.completion_tokens
        if time.perf_counter() < self._until:
            self._ask(session, self._prompts[session])
            return
        del self._asked[session]
        if not self._asked:
            self._ended = time.perf_counter()
            self._done.set()
