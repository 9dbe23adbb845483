"""The whole daemon as tests use it: a real process, real signals, its own folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, str(ROOT / "ai-server" / "main.py"))
START_TIMEOUT_S = 60.0


def _inherited() -> Mapping[str, str]:
    """Return what a process needs of this one's environment, and no setting."""
    return {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TZ"}}


class Brain:
    """One `naila run` process.

    Args:
        folder: where its state and its log go.
        port: the broker's port on the loopback interface.
        environ: more settings.
    """

    def __init__(self, folder: Path, port: int, **environ: str) -> None:
        self.folder = folder
        self.log_path = folder / "brain.log"
        self.log_from = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.environ = {
            "MQTT_HOST": "127.0.0.1",
            "MQTT_PORT": str(port),
            "MQTT_KEEPALIVE_S": "2",
            "MQTT_CLIENT_ID": "naila-test",
            "MEMORY_PATH": str(folder / "state" / "naila.db"),
            "CONFIG_DIR": str(ROOT / "config"),
            # One thread: two on a busy machine of two cores wait for each other at every barrier.
            "LLM_THREADS": "1",
            "LLM_CONTEXT_SIZE": "2048",
            "LLM_MAX_TOKENS": "64",
            "LLM_TEMPERATURE": "0",
            **environ,
        }

    def start(self, **environ: str) -> Brain:
        """Start the process; does not wait for anything."""
        self.log_from = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "run"],
                cwd=self.folder,
                env={**_inherited(), **self.environ, **environ},
                stdout=log,
                stderr=log,
            )
        return self

    def command(self, *arguments: str, stdin: str = "", timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run another `naila` command with the same settings."""
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env={**_inherited(), **self.environ},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 20.0) -> int:
        """Wait for its end and return the exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        """End it in good order and return the exit code."""
        if self.is_running:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.is_running:
            self.signal(signal.SIGKILL)
            self.wait()

    def engine(self) -> int | None:
        """Return its engine process's id, if there is one."""
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.Error):  # it is gone, or dead and not buried yet
                if "naila.inference.worker" in " ".join(child.cmdline()):
                    return child.pid
        return None

    def kill_engine(self) -> None:
        """Kill its engine process, if there is one."""
        if (engine := self.engine()) is not None:
            os.kill(engine, signal.SIGKILL)

    def log(self) -> str:
        """What it has logged."""
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, text: str, timeout_s: float = START_TIMEOUT_S, *, times: int = 1) -> None:
        """Return when its log contains a text, so many times."""
        deadline = time.monotonic() + timeout_s
        while self.log().count(text) < times:
            if time.monotonic() > deadline or not self.is_running:
                raise AssertionError(f"{text!r} did not come in the log:\n{self.log()}")
            time.sleep(0.02)


BrainMaker = Callable[..., Brain]
