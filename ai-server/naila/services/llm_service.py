"""The language model as the rest of the house sees it: asyncio in front, the engine's thread behind.

Loading, choosing and planning are injected, so that the same service loads again, with other facts, after a failure.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from naila.errors import (
    ContextOverflowError,
    DeadlineExceededError,
    GenerationCancelledError,
    GenerationError,
    ModelNotLoadedError,
)
from naila.inference.engine import Completion, Engine, Request, decoded_per_second
from naila.inference.gguf import read_header
from naila.inference.model import Model, Progress
from naila.inference.sampling import Sampling
from naila.inference.tokens import Segment
from naila.ports import (
    Cancellation,
    ChatMessage,
    EnginePlan,
    Generation,
    ModelHeader,
    SamplingOptions,
    TextPiece,
)

_log = logging.getLogger(__name__)

_KEEP_SHARE: Final = 0.75
_Event = str | Completion | GenerationError


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What is being served.

    Attributes:
        header: what the file says about itself.
        plan: how it is run here.
        load_s: what loading took.
    """

    header: ModelHeader
    plan: EnginePlan
    load_s: float


@dataclass(frozen=True, slots=True)
class _Serving:
    loaded: LoadedModel
    model: Model
    engine: Engine


class LlmService:
    """Loads one model and answers with it, one request at a time, in the order of their arrival."""

    def __init__(
        self,
        *,
        choose: Callable[[], Path],
        plan: Callable[[ModelHeader], EnginePlan],
        max_tokens: int = 512,
        sampling: Sampling | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        """Make a service without a model.

        Args:
            choose: names the file to load, verified; raises ModelError where there is none. Runs in a worker thread.
            plan: decides how to run it; raises ModelTooLargeError where it does not fit.
            max_tokens: bound on answers that state none.
            sampling: defaults of answers that state none.
            on_progress: told the share loaded, 0 to 1, in a worker thread; False gives up.
        """
        self._choose = choose
        self._plan = plan
        self._max_tokens = max_tokens
        self._sampling = sampling or Sampling()
        self._on_progress = on_progress
        self._serving: _Serving | None = None
        self._changing = asyncio.Lock()
        self._abandon = threading.Event()
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many requests in a row the engine failed on since it last answered or was loaded."""
        return self._failures

    @property
    def is_loaded(self) -> bool:
        """Whether a model can be asked now."""
        return self._serving is not None

    @property
    def model_name(self) -> str | None:
        """The loaded model's file name without its ending."""
        return self._serving.loaded.header.path.stem if self._serving else None

    @property
    def loaded(self) -> LoadedModel | None:
        """What is being served, if anything."""
        return self._serving.loaded if self._serving else None

    def stalled_for(self) -> float:
        """Return the seconds since the engine last made a step, 0 while it has nothing to do."""
        engine = self._serving.engine if self._serving else None
        return time.monotonic() - engine.last_step if engine is not None and engine.is_busy else 0.0

    async def load_model(self, path: Path | None = None) -> LoadedModel:
        """Load a model in place of the one that may be there.

        Args:
            path: the file; by default, whichever `choose` names.

        Raises:
            ModelError: see `naila.errors`; the service is then without a model.
        """
        async with self._changing:
            await self._unload()
            self._failures = 0
            self._abandon.clear()
            self._serving = await asyncio.to_thread(self._load, path)
            return self._serving.loaded

    async def unload_model(self) -> None:
        """End what runs as cancelled and free the model, give up loading one; does nothing without one."""
        self._abandon.set()
        async with self._changing:
            await self._unload()

    async def _unload(self) -> None:
        serving, self._serving = self._serving, None
        if serving is not None:
            await asyncio.to_thread(serving.engine.close)
            await asyncio.to_thread(serving.model.close)

    def _load(self, path: Path | None) -> _Serving:
        started = time.perf_counter()
        header = read_header(path if path is not None else self._choose())
        plan = self._plan(header)
        for what, why in plan.reasons.items():
            _log.info("plan: %s: %s", what, why)
        model = Model(header.path, plan, on_progress=self._progress)
        loaded = LoadedModel(header, plan, time.perf_counter() - started)
        _log.info("loaded %s in %.2f s", header.path.name, loaded.load_s)
        return _Serving(loaded, model, Engine(model))

    def _progress(self, share: float) -> bool:
        return not self._abandon.is_set() and (self._on_progress is None or self._on_progress(share))

    async def generate(
        self, prompt: str, options: SamplingOptions | None = None, *, cancellation: Cancellation | None = None
    ) -> Generation:
        """Continue a text, without a chat format.

        Raises:
            ModelNotLoadedError: there is no model.
            GenerationError: see `naila.errors`; what was cancelled or late carries the text so far.
        """
        return await _last(self.generate_streaming(prompt, options, cancellation=cancellation))

    async def generate_chat(
        self,
        messages: Sequence[ChatMessage],
        options: SamplingOptions | None = None,
        *,
        cancellation: Cancellation | None = None,
    ) -> Generation:
        """Answer a conversation; raises as `generate` does."""
        return await _last(self.generate_streaming(messages, options, cancellation=cancellation))

    async def generate_streaming(
        self,
        messages: Sequence[ChatMessage] | str,
        options: SamplingOptions | None = None,
        *,
        cancellation: Cancellation | None = None,
    ) -> AsyncGenerator[TextPiece | Generation, None]:
        """Yield the answer's pieces, then the one `Generation`; raises as `generate` does.

        Where the consumer stops listening, the engine stops writing.
        """
        serving = self._serving
        if serving is None:
            raise ModelNotLoadedError("no model is loaded")
        options = options or SamplingOptions()
        cancellation = cancellation or Cancellation()
        started = time.perf_counter()
        prompt, dropped = await asyncio.to_thread(self._prompt, serving.model, messages, options)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[_Event] = asyncio.Queue()
        request = Request(
            prompt=prompt,
            max_tokens=min(options.max_tokens or self._max_tokens, serving.model.n_ctx - len(prompt)),
            sampling=self._resolve(options),
            stop=options.stop,
            on_text=lambda text: _post(loop, events, text),
            on_end=lambda end: _post(loop, events, end),
        )
        serving.engine.submit(request)
        cancellation.subscribe(lambda cause: serving.engine.cancel(request, cause))
        pieces: list[str] = []
        try:
            while isinstance(event := await events.get(), str):
                pieces.append(event)
                yield TextPiece(event)
        finally:
            serving.engine.cancel(request, "cancelled")
        if isinstance(event, GenerationError):
            self._failures += 1
            raise event
        self._failures = 0
        generation = Generation(
            text="".join(pieces),
            finish_reason=event.finish_reason,
            usage=event.usage,
            ttft_ms=(time.perf_counter() - started) * 1000 - event.total_ms + event.ttft_ms,
            total_ms=(time.perf_counter() - started) * 1000,
            tokens_per_second=decoded_per_second(event),
            model=serving.loaded.header.path.stem,
            dropped_messages=dropped,
        )
        if event.finish_reason == "cancelled":
            raise GenerationCancelledError("the request was cancelled", partial=generation)
        if event.finish_reason == "deadline":
            raise DeadlineExceededError("the request's time was up", partial=generation)
        yield generation

    def _resolve(self, options: SamplingOptions) -> Sampling:
        stated = {
            name: value
            for name in ("temperature", "top_p", "top_k", "seed")
            if (value := getattr(options, name)) is not None
        }
        return replace(self._sampling, **stated)

    def _prompt(
        self, model: Model, messages: Sequence[ChatMessage] | str, options: SamplingOptions
    ) -> tuple[list[int], int]:
        """Return the prompt's tokens and how many history messages had to be left out."""
        if isinstance(messages, str):
            tokens = model.vocabulary.encode([Segment(messages, is_template=False)])
            return _checked(tokens, model.n_ctx - 1), 0
        # An answer of ordinary length must still fit behind the prompt.
        limit = model.n_ctx - min(options.max_tokens or self._max_tokens, model.n_ctx // 4)
        return fit(messages, limit, lambda kept: model.vocabulary.encode(model.chat_format.render(kept)))


def fit(
    messages: Sequence[ChatMessage], limit: int, encode: Callable[[Sequence[ChatMessage]], list[int]]
) -> tuple[list[int], int]:
    """Make a conversation fit: the oldest turns leave first, the system prompt and the last message never.

    Once something must leave, history is cut to three quarters of the limit: cutting one turn each time would change
    the prompt's beginning with every turn, and all of it would be read in again.

    Returns:
        The prompt's tokens and the number of messages left out.

    Raises:
        ContextOverflowError: the system prompt and the last message alone are too long.
    """
    tokens = encode(messages)
    if len(tokens) <= limit:
        return tokens, 0
    head = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    starts = [i for i in range(head + 1, len(messages)) if messages[i].role == "user"]
    for start in starts or [head]:
        tokens = encode([*messages[:head], *messages[start:]])
        if len(tokens) <= limit * _KEEP_SHARE or start == (starts or [head])[-1]:
            return _checked(tokens, limit), start - head
    raise AssertionError("the last start always returns")


def _checked(tokens: list[int], limit: int) -> list[int]:
    if not tokens:
        raise GenerationError("the prompt is empty")
    if len(tokens) > limit:
        raise ContextOverflowError(
            f"the message is too long: its prompt has {len(tokens)} tokens even without history, and {limit} fit; "
            "shorten it, or raise LLM_CONTEXT_SIZE",
            tokens=len(tokens),
            limit=limit,
        )
    return tokens


def _post(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[_Event], item: _Event) -> None:
    try:
        loop.call_soon_threadsafe(queue.put_nowait, item)
    except RuntimeError:
        _log.debug("the loop is closed; a late piece of an answer was dropped")


async def _last(stream: AsyncIterator[TextPiece | Generation]) -> Generation:
    async for item in stream:
        if isinstance(item, Generation):
            return item
    raise GenerationError("the answer ended without an end")
