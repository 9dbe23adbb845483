"""The engine process: reads lines from standard input, writes lines to standard output, dies with its parent.

Started by `naila.inference.worker_host`.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO, Final

from naila.errors import GenerationError, ModelError
from naila.inference import wire
from naila.inference.engine import Engine
from naila.inference.host import engine_figures, open_engine, request_of
from naila.inference.model import Model
from naila.inference.request import Completion, Request

_PR_SET_PDEATHSIG: Final = 1
_HEARTBEAT_S: Final = 1.0


class _Out:
    """The way to the parent, for several threads."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, message: wire.Message) -> None:
        # A parent that is gone needs no answers; this process is about to follow it.
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._stream.write(wire.dump(message))
            self._stream.flush()

    def progress(self, share: float) -> bool:
        """Pass the share loaded on; never gives up, since the parent ends this process where it does."""
        self.send({"progress": share})
        return True


class _Worker:
    """One engine and the requests that it has."""

    def __init__(self, model: Model, engine: Engine, out: _Out) -> None:
        self._model = model
        self._engine = engine
        self._out = out
        self._requests: dict[int, Request] = {}

    def obey(self, message: wire.Message) -> None:
        """Do what the parent says."""
        match message:
            case {"ask": int(number)}:
                try:
                    self._ask(number, message)
                except GenerationError as exc:
                    self._requests.pop(number, None)
                    self._out.send(wire.end_message(number, exc))
            case {"cancel": int(number), "cause": "cancelled" | "deadline" as cause}:
                if (request := self._requests.get(number)) is not None:
                    self._engine.cancel(request, cause)
            case {"forget": str(session)}:
                self._engine.forget(session)

    def _ask(self, number: int, message: wire.Message) -> None:
        def on_end(end: Completion | GenerationError) -> None:
            self._requests.pop(number, None)
            self._out.send(wire.end_message(number, end))

        request = request_of(
            wire.read_ask(message), self._model, lambda text: self._out.send({"text": text, "of": number}), on_end
        )
        self._requests[number] = request
        self._engine.submit(request)

    def heartbeat(self, stop: threading.Event) -> None:
        """Tell the parent, as long as this process lives, how the engine is."""
        while not stop.wait(_HEARTBEAT_S):
            self._out.send({"figures": engine_figures(self._engine), "stalled_for": self._engine.stalled_for()})


def main() -> int:
    """Load what the parent names, then obey until it closes the pipe."""
    _die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides; Ctrl-C reaches the whole group
    out = _Out(_private_stdout())
    _log_to(out, int(sys.argv[2]))
    lines = _lines(sys.stdin.buffer)
    with contextlib.ExitStack() as freeing:
        try:
            path, plan, limits, keep = wire.read_load(next(lines))
            model, engine = open_engine(path, plan, limits, keep, out.progress)
        except StopIteration:
            return 0
        except ModelError as exc:
            out.send({"failed": str(exc)})
            return 1
        freeing.callback(model.close)
        worker, stop = _Worker(model, engine, out), threading.Event()
        heart = threading.Thread(target=worker.heartbeat, args=(stop,), name="heartbeat", daemon=True)
        heart.start()
        # In reverse: closing writes conversations to disk, which takes its time, so the heart beats until that is done.
        freeing.callback(heart.join, _HEARTBEAT_S)
        freeing.callback(stop.set)
        freeing.callback(engine.close)
        out.send({"loaded": True})
        for message in lines:
            worker.obey(message)
    return 0


def _lines(stream: BinaryIO) -> Iterator[wire.Message]:
    return (wire.parse(line) for line in stream)


def _private_stdout() -> BinaryIO:
    """Keep the pipe to the parent to ourselves: what a native library prints goes to standard error."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


class _ToParent(logging.Handler):
    """Passes log lines on to the parent, whose logs have one form and one place."""

    def __init__(self, out: _Out) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter())  # else basicConfig sets one that says the level and the name again
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._out.send(wire.log_message(record.levelno, record.name, self.format(record)))
        except Exception:  # noqa: BLE001 - as every handler of logging's own
            self.handleError(record)


def _log_to(out: _Out, level: int) -> None:
    """Log as the parent does: our own lines from its level on, others from WARNING."""
    logging.basicConfig(level=logging.WARNING, handlers=[_ToParent(out)])
    logging.getLogger("naila").setLevel(level)
    logging.getLogger("naila.llama_cpp").setLevel(logging.DEBUG if level <= logging.DEBUG else logging.ERROR)


def _die_with_parent() -> None:
    """Let Linux kill this process when its parent ends; elsewhere the closed pipe ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
