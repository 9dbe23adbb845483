"""The way into the engine: what other threads may call, and the only lock."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Final

from naila.errors import ContextOverflowError, EngineBusyError, EngineFailedError
from naila.inference.model import AbortFlag
from naila.inference.request import Request
from naila.ports import StopCause


class Intake:
    """Takes requests, cancellations and things to forget; the engine's thread collects them between its steps."""

    def __init__(self, abort: AbortFlag, *, most: int, longest: int) -> None:
        """Open.

        Args:
            abort: stops the step that runs.
            most: most requests in the engine at once.
            longest: most tokens of a prompt.
        """
        self._abort = abort
        self._most: Final = most
        self._longest: Final = longest
        self._mail: queue.SimpleQueue[Request | str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._accepted = 0
        self._in_step: dict[Request, int] = {}
        self._was_aborted = False
        self.is_closing = False

    def submit(self, request: Request) -> None:
        """Take a request in.

        Raises:
            EngineBusyError: too many are there.
            ContextOverflowError: it can never fit.
            EngineFailedError: the engine was closed.
        """
        tokens, limit = len(request.prompt), self._longest
        if not 0 < tokens <= limit:
            raise ContextOverflowError(f"a prompt of {tokens} tokens, and 1 to {limit} fit", tokens=tokens, limit=limit)
        with self._lock:
            if self.is_closing:
                raise EngineFailedError("the engine was closed")
            if self._accepted >= self._most:
                raise EngineBusyError(f"{self._accepted} requests are in the engine, which is its limit")
            self._accepted += 1
            self._mail.put(request)

    def cancel(self, request: Request, cause: StopCause) -> None:
        """End a request, even inside a long read; one that has ended stays as it is."""
        with self._lock:
            request.cause = request.cause or cause
            if self._is_worth_aborting(request):
                self._abort.set()
        self._mail.put(None)

    def forget(self, session: str) -> None:
        """Have a conversation forgotten."""
        self._mail.put(session)

    def close(self) -> None:
        """Take nothing more in and end the step that runs."""
        with self._lock:
            self.is_closing = True
            self._abort.set()
        self._mail.put(None)

    def collect(self, *, patience_s: float | None) -> Iterator[Request | str]:
        """Yield what came: requests, and sessions to forget.

        Args:
            patience_s: how long to wait for the first letter; 0 not at all, None for ever.

        Raises:
            queue.Empty: nothing came in time.
        """
        letter = self._mail.get(block=patience_s != 0, timeout=patience_s or None)
        while True:
            if letter is not None:
                yield letter
            try:
                letter = self._mail.get_nowait()
            except queue.Empty:
                return

    def is_empty(self) -> bool:
        """Whether nothing is left and nothing can come any more."""
        with self._lock:
            return self.is_closing and self._mail.empty()

    def release(self) -> None:
        """Note that a request has ended."""
        with self._lock:
            self._accepted -= 1

    def begin_step(self, tokens: dict[Request, int]) -> bool:
        """Let a step begin: from now on a cancellation may abort it. False where somebody was cancelled already.

        Args:
            tokens: how many tokens of each request are in it.
        """
        with self._lock:
            if self.is_closing or any(request.cause is not None for request in tokens):
                return False
            self._in_step = tokens
            self._abort.clear()
            return True

    def end_step(self, *, was_aborted: bool) -> None:
        """Note that the step has ended."""
        with self._lock:
            self._in_step = {}
            self._was_aborted = was_aborted

    def _is_worth_aborting(self, request: Request) -> bool:
        """Tell whether ending a request is worth the step that it shares with others: they lose it, too.

        Not twice running: somebody who asks and cancels all the time must not stop everybody else.
        """
        tokens = self._in_step.get(request)
        if tokens is None:
            return False
        is_alone = all(other.cause is not None for other in self._in_step)
        return is_alone or (2 * tokens >= sum(self._in_step.values()) and not self._was_aborted)
