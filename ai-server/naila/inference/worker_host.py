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
from typing import Final, Self, TypeVar

from naila.errors import EngineFailedError, ModelError, ModelLoadError
from naila.inference import wire
from naila.inference.host import Ask, OnEnd, OnText, Ticket
from naila.inference.job import EngineLimits
from naila.inference.kv_store import KeepPlan
from naila.inference.model import Progress
from naila.ports import EnginePlan, StopCause

_log = logging.getLogger(__name__)

_MAX_LINE: Final = 64 * 2**20
_SILENCE_S: Final = 10.0
_CLOSE_S: Final = 20.0
_CLOSE_SILENCE_S: Final = 5.0
_GRACE_S: Final = 1.0
_DEATH_S: Final = 2.0
_STALL_S: Final = 120.0
_LOAD_FIX: Final = (
    ": out of memory (`dmesg` shows it) wants a smaller model or LLM_CONTEXT_SIZE; else `naila models verify` the file"
)
# The child finds the same package as this process, however that found it.
_BOOT: Final = "import sys; sys.path.insert(0, sys.argv[1]); from naila.inference.worker import main; sys.exit(main())"

A = TypeVar("A")


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
        self._heard_at = 0.0
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
            str(logging.getLogger("naila").getEffectiveLevel()),
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
        message = wire.ask_message(number, ask)
        self._asked[number] = on_text, on_end
        self._send(message)
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
        """End what runs as cancelled and free everything; what is warm is put on disk, as far as there is time."""
        self._closing = True
        for number in list(self._asked):
            self.cancel(number, "cancelled")
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._reading is None:
            return
        try:
            await self._leave_time(self._reading)
        finally:
            self._kill()
        await asyncio.wait({self._reading}, timeout=_CLOSE_SILENCE_S)
        self._reading.cancel()

    async def _leave_time(self, reading: asyncio.Task[None]) -> None:
        """Wait for the process to end, as long as it gives signs of life, but not for ever."""
        now = asyncio.get_running_loop().time
        self._heard_at = now()
        until = self._heard_at + _CLOSE_S
        while not reading.done() and (left := min(until, self._heard_at + _CLOSE_SILENCE_S) - now()) > 0:
            await asyncio.wait({reading}, timeout=left)

    async def _loaded(self, path: Path, on_progress: Progress | None) -> None:
        try:
            while not await self._has_loaded(path, on_progress):
                pass
        except ModelError:
            raise
        except Exception as exc:
            raise ModelLoadError(f"{path}: the engine process is out of order ({exc})", path=path) from exc

    async def _has_loaded(self, path: Path, on_progress: Progress | None) -> bool:
        match await self._next():
            case None:
                raise ModelLoadError(f"{path}: {await self._death()} while it loaded the model{_LOAD_FIX}", path=path)
            case {"failed": str(why)}:
                raise ModelLoadError(why, path=path)
            case {"loaded": True}:
                return True
            case {"progress": share}:
                if not 0 <= wire.read_number(share) <= 1:
                    raise ValueError("progress that is no share")
                if on_progress is not None and not on_progress(share):
                    raise ModelLoadError(f"loading {path} was given up", path=path)
        return False

    async def _read(self) -> None:
        """Pass on what the engine says, until it is gone; then, whatever the reason, everything asked of it ends."""
        why = "the daemon stopped listening to the engine process"
        try:
            why = await self._listen()
        except Exception as exc:  # noqa: BLE001 - a process that may have been taken over may say anything
            _log.debug("what the engine process said", exc_info=True)
            why = f"the engine process is out of order ({exc}) and was killed"
        finally:
            self._kill()
            try:
                await self._code(_DEATH_S)
            finally:
                self._fail(why)

    async def _listen(self) -> str:
        """Pass on what the engine says; return why there is no more of it."""
        patience = _SILENCE_S
        while True:
            try:
                async with asyncio.timeout(patience):
                    message = await self._next()
            except TimeoutError:
                if patience < _SILENCE_S:
                    return f"the engine process was silent for {_SILENCE_S:.0f} s and was killed"
                # It may have been this process that stood still; then what was said lies there already.
                patience = min(_GRACE_S, _SILENCE_S / 2)
                continue
            if message is None:
                return await self._death()
            patience = _SILENCE_S
            self._heard_at = asyncio.get_running_loop().time()
            self._take(message)

    async def _next(self) -> wire.Message | None:
        """Return what the process says next; its log lines become lines of this process's log."""
        stdout = self._process.stdout
        while line := await stdout.readline() if stdout is not None else b"":
            message = wire.parse(line)
            if "log" not in message:
                return message
            level, logger, text = wire.read_log(message)
            logging.getLogger(logger).log(level, "%s", text)
        return None

    def _take(self, message: wire.Message) -> None:
        match message:
            case {"text": str(text), "of": int(number)}:
                if number in self._asked:
                    _call(self._asked[number][0], text)
            case {"of": int(number)}:
                end = wire.read_end(message)
                if (asked := self._asked.pop(number, None)) is not None:
                    _call(asked[1], end)
            case {"figures": figures, "stalled_for": stalled_for}:
                self._figures = wire.read_figures(figures)
                self._stalled_for = wire.read_number(stalled_for)
                if self._stalled_for > _STALL_S:
                    raise ValueError(f"no step for {stalled_for:.0f} s")

    def _fail(self, why: str) -> None:
        self._failure = why
        if not self._closing:
            _log.error("%s; %d answers were being written", why, len(self._asked))
            _call(lambda _: self._on_failure(), None)
        asked, self._asked = self._asked, {}
        for _, on_end in asked.values():
            _call(on_end, EngineFailedError(why))

    async def _death(self) -> str:
        """Say how the process died, which has closed its output; help it where it lives on."""
        code = await self._code(_DEATH_S)
        if code is None:
            self._kill()
            await self._code(_DEATH_S)
            return "the engine process closed its output and was killed"
        if code < 0:
            return f"the engine process died of {_signal_name(-code)}"
        return f"the engine process ended with exit code {code}"

    async def _code(self, patience: float) -> int | None:
        """Return the process's exit code; None where it lives on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await self._process.wait()
        return None

    def _send(self, message: wire.Message) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(wire.dump(message))

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def _call(callback: Callable[[A], None], argument: A) -> None:
    try:
        callback(argument)
    except Exception:  # noqa: BLE001 - what fails there is no reason to stop listening
        _log.exception("what was told of an answer could not be taken")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
