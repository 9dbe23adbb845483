"""Tells systemd how the service is. Source: sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Supervisor:
    """The service manager that started this process, or nobody."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        watchdog_pid = environ.get("WATCHDOG_PID", str(os.getpid()))
        usec = environ.get("WATCHDOG_USEC", "0")
        is_ours = watchdog_pid == str(os.getpid())
        self.watchdog_s: float | None = int(usec) / 1e6 if is_ours and usec.isdigit() and int(usec) else None

    def notify(self, **fields: str | int) -> None:
        """Send fields such as `READY=1`; does nothing without a service manager, and never fails."""
        if not self._address:
            return
        # An address that begins with @ is in the abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A newline would begin another field.
        message = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto(message.encode(), address)
        except OSError:
            return

    def ready(self, status: str) -> None:
        """The service serves."""
        self.notify(READY=1, STATUS=status)

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`."""
        self.notify(STATUS=text)

    def extend_start(self, seconds: float) -> None:
        """Ask for more time to start, or to stop."""
        self.notify(EXTEND_TIMEOUT_USEC=int(seconds * 1e6))

    def reloading(self) -> None:
        """The service reads its settings again; `ready` ends that."""
        self.notify(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def stopping(self) -> None:
        """The service is on its way out."""
        self.notify(STOPPING=1, STATUS="stopping")

    def alive(self) -> None:
        """Feed the watchdog."""
        self.notify(WATCHDOG=1)
