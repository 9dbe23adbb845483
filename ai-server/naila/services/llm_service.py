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
from typing import Final, Literal

from naila.errors import (
    DeadlineExceededError,
    EngineFailedError,
    GenerationCancelledError,
    GenerationError,
    ModelLoadError,
    ModelNotLoadedError,
)
from naila.inference.gguf import read_header
from naila.inference.grammar import gbnf
from naila.inference.host import Ask, EngineHost, LocalHost
from naila.inference.job import EngineLimits
from naila.inference.kv_store import KeepPlan, forget_files
from naila.inference.model import Progress
from naila.inference.request import Completion
from naila.inference.sampling import Sampling
from naila.inference.worker_host import WorkerHost
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

_Event = str | Completion | GenerationError


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What is being served.

    Attributes:
        header: what the file says about itself.
        plan: how it is run here.
        load_s: what loading took.
        prefixes_s: how much of it was reading in what prompts begin with.
    """

    header: ModelHeader
    plan: EnginePlan
    load_s: float
    prefixes_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Serving:
    loaded: LoadedModel
    host: EngineHost


class LlmService:
    """Loads one model and answers with it, many requests at once."""

    def __init__(
        self,
        *,
        choose: Callable[[], ModelHeader],
        plan: Callable[[ModelHeader], EnginePlan],
        max_tokens: int = 512,
        sampling: Sampling | None = None,
        worker: Literal["process", "thread"] = "process",
        limits: EngineLimits | None = None,
        keep: KeepPlan | None = None,
        prefixes: Sequence[Sequence[ChatMessage]] = (),
        on_progress: Progress | None = None,
        on_failure: Callable[[], None] = lambda: None,
        may_act: Callable[[ModelHeader], bool] = lambda _: False,
    ) -> None:
        """Make a service without a model.

        Args:
            choose: returns the header of the file to load, verified; raises ModelError where there is none. Runs in a
                worker thread.
            plan: decides how to run it; raises ModelTooLargeError where it does not fit.
            max_tokens: bound on answers that state none.
            sampling: defaults of answers that state none.
            worker: where the engine lives: in a child process, which may die alone, or in this one.
            limits: bounds of the engine.
            keep: where KV outlives the engine.
            prefixes: what prompts begin with: read in before the model counts as loaded.
            on_failure: told when the engine is lost.
            on_progress: told the share loaded, 0 to 1, in a worker thread; False gives up.
            may_act: whether a model may choose actions; by default, none may.
        """
        self._choose = choose
        self._plan = plan
        self._max_tokens = max_tokens
        self._sampling = sampling or Sampling()
        self._host: Final = WorkerHost if worker == "process" else LocalHost
        self._limits = limits or EngineLimits()
        self._keep = keep
        self._prefixes = prefixes
        self._on_progress = on_progress
        self._on_failure = on_failure
        self._may_act = may_act
        self._serving: _Serving | None = None
        self._changing = asyncio.Lock()
        self._abandon = threading.Event()
        self._loading: asyncio.Timeout | None = None
        self._failures = 0
        self._has_answered = False

    @property
    def has_answered(self) -> bool:
        """Whether the engine has finished an answer since it was loaded."""
        return self._has_answered

    @property
    def failures(self) -> int:
        """How many requests in a row the engine failed on since it last answered or was loaded."""
        return self._failures

    @property
    def is_loaded(self) -> bool:
        """Whether a model can be asked now."""
        return self._serving is not None and self._serving.host.failure is None

    @property
    def model_name(self) -> str | None:
        """The loaded model's file name without its ending."""
        return self._serving.loaded.header.path.stem if self._serving else None

    @property
    def may_act(self) -> bool:
        """Whether the loaded model may choose among declared actions, or only talk."""
        return self._serving is not None and self.is_loaded and self._may_act(self._serving.loaded.header)

    @property
    def loaded(self) -> LoadedModel | None:
        """What is being served, if anything."""
        return self._serving.loaded if self._serving and self.is_loaded else None

    @property
    def failure(self) -> str | None:
        """Why the engine that was there can't be asked any more, if that is so."""
        return self._serving.host.failure if self._serving else None

    def stalled_for(self) -> float:
        """Return the seconds for which the engine has made no step although it had work."""
        return self._serving.host.stalled_for() if self._serving else 0.0

    def figures(self) -> dict[str, float]:
        """Return what the engine has done, by name; nothing without one."""
        return self._serving.host.figures() if self._serving else {}

    async def forget(self, session: str) -> None:
        """Drop the KV of a conversation, `device/conversation`, or of a device, `device/`, in memory and on disk."""
        # An engine that is being closed puts on disk what it holds: its files are looked for when it is done.
        async with self._changing:
            if self._serving is not None and self._serving.host.failure is None:
                self._serving.host.forget(session)
            if self._keep is not None:
                # What an engine kept before it was started with other parameters, it does not know of.
                await asyncio.to_thread(forget_files, self._keep.folder, session)

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
            self._has_answered = False
            self._abandon.clear()
            try:
                async with asyncio.timeout(None) as self._loading:
                    self._serving = await self._load(path)
            except TimeoutError as exc:
                raise ModelLoadError("loading the model was given up", path=path) from exc
            finally:
                self._loading = None
            return self._serving.loaded

    async def unload_model(self) -> None:
        """End what runs as cancelled and free the model, give up loading one; does nothing without one."""
        self._abandon.set()
        if self._loading is not None and not self._loading.expired():
            self._loading.reschedule(asyncio.get_running_loop().time())
        async with self._changing:
            await self._unload()

    async def _unload(self) -> None:
        serving, self._serving = self._serving, None
        if serving is not None:
            await serving.host.close()

    async def _load(self, path: Path | None) -> _Serving:
        header, plan = await asyncio.to_thread(self._prepare, path)
        for what, why in plan.reasons.items():
            _log.info("plan: %s: %s", what, why)
        started = time.perf_counter()
        host = await self._start(header.path, plan)
        started_reading = time.perf_counter()
        try:
            await self._read_prefixes(host)
            if host.failure is not None:
                raise ModelLoadError(f"{header.path}: {host.failure}", path=header.path)
        except BaseException:
            await host.close()
            raise
        now = time.perf_counter()
        loaded = LoadedModel(header, plan, now - started, now - started_reading)
        _log.info(
            "loaded %s in %.2f s, %.2f s of them for prefixes", header.path.name, loaded.load_s, loaded.prefixes_s
        )
        return _Serving(loaded, host)

    async def _start(self, path: Path, plan: EnginePlan) -> EngineHost:
        start = self._host.start(
            path,
            plan,
            limits=self._limits,
            keep=self._keep,
            on_progress=self._progress,
            on_failure=self._on_failure,
        )
        starting: asyncio.Task[EngineHost] = asyncio.create_task(start, name="engine start")
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A process can be killed; a thread inside llama.cpp gives up when it next tells its progress.
            self._abandon.set()
            if self._host is WorkerHost:
                starting.cancel()
            await asyncio.wait({starting})
            if not starting.cancelled() and starting.exception() is None:
                await starting.result().close()
            raise

    async def _read_prefixes(self, host: EngineHost) -> None:
        for prefix in self._prefixes:
            try:
                await self._read_in(host, Ask(messages=prefix, max_tokens=0, sampling=self._sampling, is_prefix=True))
            except Exception as exc:  # noqa: BLE001 - a foreign chat template may raise whatever it likes
                _log.warning("a prefix of the prompts could not be read in: %s", exc)

    async def _read_in(self, host: EngineHost, ask: Ask) -> None:
        ended: asyncio.Queue[Completion | GenerationError] = asyncio.Queue()
        ticket = await host.ask(ask, lambda _: None, ended.put_nowait)
        try:
            end = await ended.get()
        finally:
            ticket.cancel("cancelled")
        if isinstance(end, GenerationError):
            raise end

    def _prepare(self, path: Path | None) -> tuple[ModelHeader, EnginePlan]:
        header = read_header(path) if path is not None else self._choose()
        return header, self._plan(header)

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
        session: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> Generation:
        """Answer a conversation; raises as `generate` does."""
        return await _last(self.generate_streaming(messages, options, session=session, cancellation=cancellation))

    async def generate_streaming(
        self,
        messages: Sequence[ChatMessage] | str,
        options: SamplingOptions | None = None,
        *,
        session: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> AsyncGenerator[TextPiece | Generation, None]:
        """Yield the answer's pieces, then the one `Generation`; raises as `generate` does.

        Where the consumer stops listening, the engine stops writing.
        """
        serving = self._asked()
        options = options or SamplingOptions()
        started = time.perf_counter()
        events: asyncio.Queue[_Event] = asyncio.Queue()
        ask = Ask(
            messages=messages,
            max_tokens=options.max_tokens if options.max_tokens is not None else self._max_tokens,
            sampling=self._resolve(options),
            grammar=_grammar(options),
            reserve=self._max_tokens,
            stop=options.stop,
            session=session,
        )
        ticket = await serving.host.ask(ask, events.put_nowait, events.put_nowait)
        if cancellation is not None:
            cancellation.subscribe(ticket.cancel)
        pieces: list[str] = []
        try:
            while isinstance(event := await events.get(), str):
                pieces.append(event)
                yield TextPiece(event)
        finally:
            ticket.cancel("cancelled")
        if isinstance(event, GenerationError):
            self._failures += isinstance(event, EngineFailedError)
            raise event
        self._failures = 0
        self._has_answered = True
        _log.debug("the engine took %.3f ms for %s, %s", event.total_ms, event.usage, event.finish_reason)
        generation = Generation(
            text="".join(pieces),
            finish_reason=event.finish_reason,
            usage=event.usage,
            ttft_ms=event.ttft_ms,
            total_ms=(time.perf_counter() - started) * 1000,
            tokens_per_second=event.tokens_per_second,
            model=serving.loaded.header.path.stem,
            dropped_messages=event.dropped_messages,
        )
        if event.finish_reason == "cancelled":
            raise GenerationCancelledError("the request was cancelled", partial=generation)
        if event.finish_reason == "deadline":
            raise DeadlineExceededError("the request's time was up", partial=generation)
        yield generation

    async def read_in(self, messages: Sequence[ChatMessage], *, session: str | None = None) -> None:
        """Read a prompt into the KV cache and answer nothing: the next request that begins like it is warm.

        Raises:
            ModelNotLoadedError: there is no model.
            GenerationError: it was refused or failed.
        """
        await self._read_in(
            self._asked().host,
            Ask(
                messages=messages,
                max_tokens=0,
                reserve=self._max_tokens,
                sampling=self._sampling,
                session=session,
                is_background=True,
            ),
        )

    def _asked(self) -> _Serving:
        if self._serving is None or self._serving.host.failure is not None:
            raise ModelNotLoadedError("no model is loaded")
        return self._serving

    def _resolve(self, options: SamplingOptions) -> Sampling:
        stated = {
            name: value
            for name in ("temperature", "top_p", "top_k", "seed")
            if (value := getattr(options, name)) is not None
        }
        return replace(self._sampling, **stated)


def _grammar(options: SamplingOptions) -> str | None:
    if options.json_schema is None:
        return None
    if options.stop:
        raise GenerationError("stop strings and a JSON Schema exclude each other: JSON may contain any string")
    return gbnf(options.json_schema)


async def _last(stream: AsyncIterator[TextPiece | Generation]) -> Generation:
    async for item in stream:
        if isinstance(item, Generation):
            return item
    raise GenerationError("the answer ended without an end")
