"""The engine: one thread that owns the context and answers one request after another.

What a request shares with the one before it, from the first token on, stays in the KV cache and is not read again.
Nobody else touches the context, so nothing here needs a lock but the queue.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import llama_cpp

from naila.errors import EngineFailedError, GenerationError
from naila.events import FinishReason, Usage
from naila.inference.model import AbortFlag, Model
from naila.inference.sampling import Sampler, Sampling
from naila.inference.text import TextAssembler
from naila.ports import StopCause

_log = logging.getLogger(__name__)

_ABORTED: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How a request ended.

    Attributes:
        finish_reason: why.
        usage: exact counts.
        ttft_ms: from the engine's start on it to the first token.
        total_ms: from the engine's start on it to the end.
        decode_s: spent on the tokens after the first.
    """

    finish_reason: FinishReason
    usage: Usage
    ttft_ms: float
    total_ms: float
    decode_s: float


@dataclass(slots=True, kw_only=True)
class Request:
    """One prompt to complete. The callbacks run on the engine's thread and must return at once.

    Attributes:
        prompt: its tokens, at least one, fewer than the context holds.
        max_tokens: bound on the answer.
        sampling: how tokens are drawn.
        stop: strings that end the answer.
        on_text: told each piece of text.
        on_end: told once how it ended, or what failed.
    """

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]
    on_text: Callable[[str], None]
    on_end: Callable[[Completion | GenerationError], None]
    cause: StopCause | None = field(default=None, init=False)


class Engine:
    """Runs requests in the order of their arrival on its own thread, from construction to `close`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._abort = AbortFlag(model.context)
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running: Request | None = None
        self._closing = False
        self._held: list[int] = []  # the tokens whose KV the context holds, in order
        self.last_step: float = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="naila-engine", daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being worked on."""
        return self._running is not None

    def submit(self, request: Request) -> None:
        """Queue a request. It ends exactly once, through its `on_end`."""
        self._queue.put(request)

    def cancel(self, request: Request, cause: StopCause) -> None:
        """End a request, even inside a long prefill. Safe from any thread; a request that ended stays as it is."""
        with self._lock:
            request.cause = request.cause or cause
            if self._running is request:
                self._abort.set()

    def close(self) -> None:
        """End what runs and what waits as cancelled, and stop the thread."""
        with self._lock:
            self._closing = True
            if self._running is not None:
                self._running.cause = self._running.cause or "cancelled"
                self._abort.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (request := self._queue.get()) is not None:
            with self._lock:
                if self._closing:
                    request.cause = request.cause or "cancelled"
                self._running = request
            self.last_step = time.monotonic()
            try:
                end: Completion | GenerationError = self._complete(request)
            except GenerationError as exc:
                end = exc
            except Exception as exc:  # noqa: BLE001 - whatever happens, the request ends and the thread lives
                _log.exception("the engine failed on a request of %d tokens", len(request.prompt))
                end = EngineFailedError(f"the engine failed: {exc!r}")
            if isinstance(end, EngineFailedError):
                self._forget(0)
            with self._lock:
                self._running = None
                self._abort.clear()
            request.on_end(end)

    def _complete(self, request: Request) -> Completion:
        started = time.perf_counter()
        cached = self._share_prefix(request.prompt)
        assembler = TextAssembler(request.stop)
        drawn = 0
        first = 0.0
        reason: FinishReason | None = None
        if not self._read_in(request, request.prompt[cached:]):
            reason = request.cause
        sampler = Sampler(request.sampling)
        try:
            while reason is None:
                token = sampler.sample(self._model.context)
                drawn += 1
                first = first or time.perf_counter()
                reason = self._take(request, token, assembler, drawn)
                if reason is None and not self._read_in(request, (token,)):
                    reason = request.cause
        finally:
            sampler.close()
        if rest := assembler.finish():
            request.on_text(rest)
        ended = time.perf_counter()
        return Completion(
            finish_reason=reason or "stop",
            usage=Usage(prompt_tokens=len(request.prompt), cached_tokens=cached, completion_tokens=drawn),
            ttft_ms=((first or ended) - started) * 1000,
            total_ms=(ended - started) * 1000,
            decode_s=ended - (first or ended),
        )

    def _take(self, request: Request, token: int, assembler: TextAssembler, drawn: int) -> FinishReason | None:
        """Pass a drawn token on and tell whether the answer ends with it."""
        if self._model.vocabulary.is_end(token):
            return "stop"
        if text := assembler.feed(self._model.vocabulary.decode(token)):
            request.on_text(text)
        if assembler.stopped:
            return "stop"
        if request.cause is not None:
            return request.cause
        if drawn >= request.max_tokens or len(self._held) >= self._model.n_ctx:
            return "length"
        return None

    def _share_prefix(self, prompt: Sequence[int]) -> int:
        """Keep the KV that the prompt begins with, drop the rest, and return how many tokens that spares."""
        # The last token is always decoded, since its logits are wanted.
        limit = min(len(self._held), len(prompt) - 1)
        common = next((i for i in range(limit) if self._held[i] != prompt[i]), limit)
        return common if self._forget(common) else 0

    def _forget(self, keep: int) -> bool:
        """Drop the KV after the first `keep` tokens; all of it where the model cannot drop a part."""
        memory = llama_cpp.llama_get_memory(self._model.context)
        kept = bool(llama_cpp.llama_memory_seq_rm(memory, 0, keep, -1))
        if not kept:
            llama_cpp.llama_memory_clear(memory, False)
        del self._held[keep if kept else 0 :]
        return kept

    def _read_in(self, request: Request, tokens: Sequence[int]) -> bool:
        """Decode tokens in batches; False where the request was cancelled, which leaves the KV as far as it got."""
        for start in range(0, len(tokens), self._model.n_batch):
            if request.cause is not None:
                return False
            chunk = tokens[start : start + self._model.n_batch]
            array = (llama_cpp.llama_token * len(chunk))(*chunk)
            code = llama_cpp.llama_decode(self._model.context, llama_cpp.llama_batch_get_one(array, len(chunk)))
            self.last_step = time.monotonic()
            if code == _ABORTED:
                self._forget(len(self._held))
                return False
            if code != 0:
                raise EngineFailedError(f"llama_decode returned {code} for {len(chunk)} tokens", code=code)
            self._held += chunk
        return True


def decoded_per_second(completion: Completion) -> float:
    """Return the speed of the tokens after the first, 0 where there were none."""
    tokens = completion.usage.completion_tokens - 1
    return tokens / completion.decode_s if tokens > 0 and completion.decode_s > 0 else 0.0


__all__ = ["Completion", "Engine", "Request", "decoded_per_second"]
