"""Where an engine lives: in this process (`LocalHost`) or in a child (`naila.inference.worker_host.WorkerHost`).

Both are asked the same way and answer on the asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar

from naila.errors import EngineFailedError, GenerationError
from naila.inference.draft import open_draft
from naila.inference.engine import Engine
from naila.inference.job import EngineLimits
from naila.inference.kv_store import KeepPlan, open_store
from naila.inference.model import Model, Progress
from naila.inference.prompt import build_prompt
from naila.inference.request import Completion, Request
from naila.inference.sampling import Grammar, Sampling
from naila.ports import ChatMessage, EnginePlan, StopCause

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One thing asked of an engine.

    Attributes:
        messages: a conversation, or a text to continue.
        max_tokens: bound on the answer; 0 only reads the prompt in.
        reserve: where it is only read in, the bound on the answer that will be asked for, which must fit as well.
        sampling: how tokens are drawn.
        grammar: what the answer is bound to, as GBNF written by `naila.inference.grammar`.
        stop: strings that end the answer.
        session: the conversation that its KV belongs to, `device/conversation`; None for none.
        is_background: nobody waits for it.
        is_prefix: what many prompts begin with: read in, it stays.
    """

    messages: Sequence[ChatMessage] | str
    max_tokens: int
    reserve: int = 0
    sampling: Sampling
    grammar: str | None = None
    stop: tuple[str, ...] = ()
    session: str | None = None
    is_background: bool = False
    is_prefix: bool = False

    @property
    def owner(self) -> str:
        """Whose it is, for fairness: the device."""
        return (self.session or "").partition("/")[0]


A = TypeVar("A")
OnText = Callable[[str], None]
OnEnd = Callable[[Completion | GenerationError], None]


class Ticket(Protocol):
    """A request that an engine has."""

    def cancel(self, cause: StopCause) -> None:
        """End it early; does nothing once it has ended."""
        ...


class EngineHost(Protocol):
    """An engine, wherever it lives. Belongs to the asyncio loop."""

    async def ask(self, ask: Ask, on_text: OnText, on_end: OnEnd) -> Ticket:
        """Put a request to the engine; the callbacks are called on the loop, `on_end` exactly once.

        Raises:
            GenerationError: it is refused: too long, or too many wait.
        """
        ...

    def forget(self, session: str) -> None:
        """Drop what is held of a conversation, or of all of a device's (`device/`)."""
        ...

    def figures(self) -> dict[str, float]:
        """What the engine has done, by name."""
        ...

    def stalled_for(self) -> float:
        """Return the seconds for which it has made no step although it had work."""
        ...

    @property
    def failure(self) -> str | None:
        """Why it can't be asked any more, if that is so."""
        ...

    async def close(self) -> None:
        """End what runs as cancelled and free everything."""
        ...


@dataclass(frozen=True, slots=True)
class _LocalTicket:
    engine: Engine
    request: Request

    def cancel(self, cause: StopCause) -> None:
        self.engine.cancel(self.request, cause)


class LocalHost:
    """An engine on a thread of this process: no pipe, but what kills the engine kills the daemon."""

    failure: str | None = None

    def __init__(self, model: Model, engine: Engine) -> None:
        self._model = model
        self._engine = engine
        self._preparing = 0
        self._prepared = asyncio.Event()
        self._closing = False

    @classmethod
    async def start(
        cls,
        path: Path,
        plan: EnginePlan,
        *,
        limits: EngineLimits,
        keep: KeepPlan | None,
        on_progress: Progress | None = None,
        on_failure: Callable[[], None] = lambda: None,  # noqa: ARG003 - what ends this engine ends the process
    ) -> Self:
        """Load a model.

        Raises:
            ModelLoadError: llama.cpp refused it.
        """
        return cls(*await asyncio.to_thread(open_engine, path, plan, limits, keep, on_progress))

    async def ask(self, ask: Ask, on_text: OnText, on_end: OnEnd) -> Ticket:
        """Put a request to the engine."""
        loop = asyncio.get_running_loop()
        request = await self._prepare(
            ask, lambda text: _on_loop(loop, on_text, text), lambda end: _on_loop(loop, on_end, end)
        )
        self._engine.submit(request)
        return _LocalTicket(self._engine, request)

    async def _prepare(self, ask: Ask, on_text: OnText, on_end: OnEnd) -> Request:
        if self._closing:
            raise EngineFailedError("the engine was closed")
        self._preparing += 1
        try:
            # Tokenising a long conversation takes milliseconds, which the loop has better uses for.
            return await asyncio.to_thread(request_of, ask, self._model, on_text, on_end)
        finally:
            self._preparing -= 1
            self._prepared.set()

    def forget(self, session: str) -> None:
        """Drop what is held of a conversation."""
        self._engine.forget(session)

    def figures(self) -> dict[str, float]:
        """What the engine has done, by name."""
        return engine_figures(self._engine)

    def stalled_for(self) -> float:
        """Return the seconds for which it has made no step although it had work."""
        return self._engine.stalled_for()

    async def close(self) -> None:
        """End what runs as cancelled and free everything."""
        self._closing = True
        # A prompt that is being tokenised reads the vocabulary, which goes with the model.
        while self._preparing:
            self._prepared.clear()
            await self._prepared.wait()
        await asyncio.to_thread(self._engine.close)
        await asyncio.to_thread(self._model.close)


def open_engine(
    path: Path, plan: EnginePlan, limits: EngineLimits, keep: KeepPlan | None, on_progress: Progress | None = None
) -> tuple[Model, Engine]:
    """Load a model and start an engine on it, with a disk and a draft model behind it where they are wanted.

    Raises:
        ModelLoadError: llama.cpp refused it.
    """
    model = Model(path, plan, on_progress=on_progress)
    try:
        store = open_store(keep, path, plan) if keep is not None else None
        may_guess = limits.speculation != "off" and not model.is_recurrent
        draft = open_draft(limits.draft, plan, model) if may_guess and limits.draft is not None else None
        return model, Engine(model, limits, store, draft)
    except BaseException:
        model.close()
        raise


def request_of(ask: Ask, model: Model, on_text: OnText, on_end: OnEnd) -> Request:
    """Put what is asked into tokens.

    Raises:
        GenerationError: it is too long, or the model's template or grammar cannot take it.
    """
    try:
        prompt, dropped = build_prompt(model, ask.messages, ask.max_tokens or ask.reserve)
        grammar = Grammar(ask.grammar, model.vocabulary) if ask.grammar is not None else None
    except GenerationError:
        raise
    except Exception as exc:
        _log.exception("a prompt cannot be put to the model")
        raise GenerationError(f"the prompt cannot be put to the model: {exc}") from exc
    return Request(
        prompt=prompt,
        max_tokens=min(ask.max_tokens, model.n_ctx - len(prompt)),
        sampling=ask.sampling,
        grammar=grammar,
        stop=ask.stop,
        owner=ask.owner,
        session=ask.session,
        is_background=ask.is_background,
        is_prefix=ask.is_prefix,
        dropped_messages=dropped,
        on_text=on_text,
        on_end=on_end,
    )


def engine_figures(engine: Engine) -> dict[str, float]:
    """Return everything an engine counts, by name."""
    running, waiting = engine.load
    # Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    extra = {"restored": engine.restored, "running": running, "waiting": waiting, "peak_rss_bytes": peak}
    return {**asdict(engine.figures), **asdict(engine.cache_figures), **extra}


def _on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[A], None], argument: A) -> None:
    # The loop may be gone when the daemon dies in the middle of an answer.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, argument)
