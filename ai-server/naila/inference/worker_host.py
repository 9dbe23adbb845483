"""An engine in a child process: a crash, an abort or the OOM killer costs the running answers, not the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from naila.errors import EngineFailedError, GenerationError, ModelLoadError
from naila.inference import wire
from naila.inference.host import Ask, OnEnd, OnText, Ticket
from naila.inference.job import EngineLimits
from naila.inference.kv_store import KeepPlan
from naila.inference.model import Progress
from naila.ports import EnginePlan, StopCause

_log = logging.getLogger(__name__)

_MAX_LINE: Final = 64 * 2**20
_SILENCE_S: Final = 10.0
_CLOSE_S: Final = 5.0
_STALL_S: Final = 120.0
# The child finds the same package as this process, however that found it.
_BOOT: Final = "import sys; sys.path.insert(0, sys.argv[1]); from naila.inference.worker import main; sys.exit(main())"


@dataclass(frozen=True, slots=True)
class _WorkerTicket:
    host: WorkerHost
    number: int

    def cancel(self, cause: StopCause) -> None:
        self.host.cancel(self.number, cause)


class WorkerHost:
    """The parent's side of an engine process."""

    def __init__(self, process: asyncio.subprocess.Process, on_failure: Callable[[], None]) -> None:
        self._process = process
        self._on_failure = on_failure
        self._numbers = itertools.count()
        self._asked: dict[int, tuple[OnText, OnEnd]] = {}
        self._figures: dict[str, float] = {}
        self._stalled_for = 0.0
        self._failure: str | None = None
        self._closing = False
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        path: Path,
        plan: EnginePlan,
        *,
        limits: EngineLimits,
        keep: KeepPlan | None,
        on_progress: Progress | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> Self:
        """Start a process and load a model in it.

        Raises:
            ModelLoadError: llama.cpp refused it, or the process died over it.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _BOOT,
            str(Path(__file__).parents[2]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_MAX_LINE,
        )
        host = cls(process, on_failure)
        try:
            host._send(wire.load_message(path, plan, limits, keep))
            await host._loaded(path, on_progress)
        except BaseException:
            host._kill()
            await process.wait()
            raise
        host._reading = asyncio.create_task(host._read(), name="engine process")
        return host

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def failure(self) -> str | None:
        """Why it can't be asked any more, if that is so."""
        return self._failure

    async def ask(self, ask: Ask, on_text: OnText, on_end: OnEnd) -> Ticket:
        """Put a request to the engine; a refusal comes through `on_end`."""
        if self._failure is not None:
            raise EngineFailedError(self._failure)
        number = next(self._numbers)
        self._asked[number] = on_text, on_end
        self._send(wire.ask_message(number, ask))
        return _WorkerTicket(self, number)

    def cancel(self, number: int, cause: StopCause) -> None:
        """End a request early."""
        if number in self._asked:
            self._send({"cancel": number, "cause": cause})

    def forget(self, session: str) -> None:
        """Drop what is held of a conversation."""
        self._send({"forget": session})

    def figures(self) -> dict[str, float]:
        """What the engine had done a second ago, by name."""
        return dict(self._figures)

    def stalled_for(self) -> float:
        """Return the seconds for which it has made no step although it had work."""
        return self._stalled_for

    async def close(self) -> None:
        """End what runs as cancelled and free everything."""
        self._closing = True
        for number in list(self._asked):
            self.cancel(number, "cancelled")
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._process.wait()
        except TimeoutError:
            self._kill()
        if self._reading is not None:
            await self._reading

    async def _loaded(self, path: Path, on_progress: Progress | None) -> None:
        while True:
            match await self._next():
                case None:
                    raise ModelLoadError(f"{path}: {await self._death()} while it loaded the model", path=path)
                case {"failed": str(why)}:
                    raise ModelLoadError(why, path=path)
                case {"loaded": True}:
                    return
                case {"progress": int() | float() as share} if on_progress is not None and not on_progress(share):
                    raise ModelLoadError(f"loading {path} was given up", path=path)

    async def _read(self) -> None:
        """Pass on what the engine says, until it is gone."""
        try:
            while True:
                async with asyncio.timeout(_SILENCE_S):
                    message = await self._next()
                if message is None:
                    break
                self._take(message)
        except (TimeoutError, ValueError) as exc:
            self._kill()
            why = f"was silent for {_SILENCE_S:.0f} s" if isinstance(exc, TimeoutError) else f"is out of order ({exc})"
            await self._process.wait()
            self._fail(f"the engine process {why} and was killed")
        else:
            self._fail(await self._death())

    async def _next(self) -> wire.Message | None:
        stdout = self._process.stdout
        line = await stdout.readline() if stdout is not None else b""
        return wire.parse(line) if line else None

    def _take(self, message: wire.Message) -> None:
        match message:
            case {"text": str(text), "of": int(number)}:
                if number in self._asked:
                    self._asked[number][0](text)
            case {"of": int(number)}:
                if (asked := self._asked.pop(number, None)) is not None:
                    asked[1](wire.read_end(message))
            case {"figures": dict(figures), "stalled_for": int() | float() as stalled_for}:
                self._figures = figures
                self._stalled_for = stalled_for
                if stalled_for > _STALL_S:
                    raise ValueError(f"no step for {stalled_for:.0f} s")

    def _fail(self, why: str) -> None:
        self._failure = why
        if not self._closing:
            _log.error("%s; %d answers were being written", why, len(self._asked))
            self._on_failure()
        asked, self._asked = self._asked, {}
        for _, on_end in asked.values():
            error: GenerationError = EngineFailedError(why)
            on_end(error)

    async def _death(self) -> str:
        code = await self._process.wait()
        if code < 0:
            return f"the engine process died of {signal.Signals(-code).name}"
        return f"the engine process ended with exit code {code}"

    def _send(self, message: wire.Message) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(wire.dump(message))

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
