"""Tells systemd how the service is. Source: sd_notify(3)."""

from __future__ import annotations

import os
import socket
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
        message = "\n".join(f"{name}={value}" for name, value in fields.items())
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

    def stopping(self) -> None:
        """The service is on its way out."""
        self.notify(STOPPING=1, STATUS="stopping")

    def alive(self) -> None:
        """Feed the watchdog."""
        self.notify(WATCHDOG=1)
