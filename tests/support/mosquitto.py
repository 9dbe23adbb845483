"""A real Mosquitto for tests: on a free port, stopped, killed and started again on the same one."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from naila.config.settings import Settings, load_settings

EXECUTABLE = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
START_TIMEOUT_S = 10.0


def free_port() -> int:
    """Return a port that nobody listens on, and that no connection is given before somebody does."""
    while True:
        port = random.randrange(10_000, 32_000)  # below what kernels give to connections that ask for none
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Mosquitto:
    """One broker process.

    Args:
        folder: where its files go.
        users: passwords by user; None lets everybody in.
        tls: CA, certificate and key of the broker, which then speaks only TLS.
        persistent: keep sessions and retained messages across `stop` and `start`.
        lines: more lines for its configuration.
        verbose: have it log every packet.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: dict[str, str] | None = None,
        tls: tuple[Path, Path, Path] | None = None,
        persistent: bool = False,
        lines: tuple[str, ...] = (),
        verbose: bool = True,
    ) -> None:
        self.port = free_port()
        self._folder = folder
        self._users = users
        self._tls = tls
        self._persistent = persistent
        self._lines = lines
        self._options = ["-v"] if verbose else []
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self, **overrides: Any) -> Settings:
        """Return settings that point here."""
        values = {"MQTT_HOST": "127.0.0.1", "MQTT_PORT": self.port, "MQTT_KEEPALIVE_S": 2, **overrides}
        return load_settings(env_file=None, environ={}, overrides=values)

    def start(self) -> Mosquitto:
        """Start it; returns when it listens."""
        config = self._folder / f"mosquitto-{self.port}.conf"
        config.write_text("\n".join(self._config()) + "\n")
        log = (self._folder / f"mosquitto-{self.port}.log").open("ab")
        with log:
            self._process = subprocess.Popen([EXECUTABLE, *self._options, "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Mosquitto did not start:\n{self.log()}")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """End it in good order."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it without closing its sockets."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start again on the same port."""
        self.stop()
        self.start()

    def log(self) -> str:
        """What it has written."""
        return (self._folder / f"mosquitto-{self.port}.log").read_text(errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal until the process is gone: it was seen to sleep on for ten seconds after its first SIGTERM."""
        self.thaw()
        process, self._process = self._process, None
        if process is None:
            return
        for _ in range(10):
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
                return
        process.kill()
        process.wait(10)
        raise TimeoutError(f"Mosquitto is still there 10 s after {number.name}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _config(self) -> list[str]:
        lines = [f"listener {self.port} 127.0.0.1", "user root", f"allow_anonymous {str(not self._users).lower()}"]
        if self._users:
            lines.append(f"password_file {self._password_file()}")
        if self._tls:
            ca, certificate, key = self._tls
            lines += [f"cafile {ca}", f"certfile {certificate}", f"keyfile {key}"]
        if self._persistent:
            lines += ["persistence true", f"persistence_location {self._folder}/"]
        return [*lines, *self._lines]

    def _password_file(self) -> Path:
        path = self._folder / f"passwords-{self.port}"
        path.touch()
        for user, password in (self._users or {}).items():
            subprocess.run(["mosquitto_passwd", "-b", str(path), user, password], check=True)
        return path


def make_certificates(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path, Path]:
    """Make a CA and, signed by it, the certificate and key of a broker at `host`."""
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    request, certificate, key = folder / "broker.csr", folder / "broker.pem", folder / "broker.key"
    extensions = folder / "extensions"
    extensions.write_text(f"subjectAltName=IP:{host}\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    signing = ["-CA", str(ca), "-CAkey", str(ca_key), "-CAcreateserial", "-days", "2", "-extfile", str(extensions)]
    _openssl("req", "-x509", *new_key, "-days", "2", "-subj", "/CN=test CA", "-keyout", str(ca_key), "-out", str(ca))
    _openssl("req", *new_key, "-subj", f"/CN={host}", "-keyout", str(key), "-out", str(request))
    _openssl("x509", "-req", "-in", str(request), *signing, "-out", str(certificate))
    return ca, certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
