"""What systemd is told, over a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from naila.server.health import feed_watchdog
from naila.server.notify import Supervisor


@dataclass
class ServiceManager:
    """The other end."""

    address: str
    socket: socket.socket

    def hear(self) -> list[str]:
        """Return the lines of the next message."""
        return self.socket.recv(4096).decode().split("\n")

    def is_told(self) -> bool:
        """Wait as long as the timeout says for a message."""
        try:
            self.hear()
        except TimeoutError:
            return False
        return True


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@naila-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        yield ServiceManager(name, listening)


@pytest.mark.parametrize(
    ("tell", "lines"),
    [
        (lambda supervisor: supervisor.ready("online"), ["READY=1", "STATUS=online"]),
        (lambda supervisor: supervisor.status("degraded (llm: gone)"), ["STATUS=degraded (llm: gone)"]),
        (lambda supervisor: supervisor.extend_start(1.5), ["EXTEND_TIMEOUT_USEC=1500000"]),
        (lambda supervisor: supervisor.stopping(), ["STOPPING=1", "STATUS=stopping"]),
        (lambda supervisor: supervisor.alive(), ["WATCHDOG=1"]),
    ],
)
def test_the_service_manager_hears(
    manager: ServiceManager, tell: Callable[[Supervisor], None], lines: list[str]
) -> None:
    tell(Supervisor({"NOTIFY_SOCKET": manager.address}))
    assert manager.hear() == lines


def test_a_reload_carries_the_time_that_systemd_asks_for(manager: ServiceManager) -> None:
    Supervisor({"NOTIFY_SOCKET": manager.address}).reloading()
    reloading, at = manager.hear()
    assert reloading == "RELOADING=1"
    assert at.removeprefix("MONOTONIC_USEC=").isdigit()


def test_a_text_cannot_add_a_field(manager: ServiceManager) -> None:
    Supervisor({"NOTIFY_SOCKET": manager.address}).status("all is lost:\nSTOPPING=1")
    assert manager.hear() == ["STATUS=all is lost: STOPPING=1"]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_service_manager_nothing_happens(environ: dict[str, str]) -> None:
    supervisor = Supervisor(environ)
    supervisor.ready("online")
    assert supervisor.watchdog_s is None


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_only_where_it_says_so(environ: dict[str, str], seconds: float | None) -> None:
    assert Supervisor(environ).watchdog_s == seconds


async def test_the_watchdog_is_fed_as_long_as_nothing_stalls(
    manager: ServiceManager, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000"})
    stalled: list[str] = []
    feeding = asyncio.create_task(feed_watchdog(supervisor, lambda: stalled))
    for _ in range(3):
        assert await asyncio.to_thread(manager.hear) == ["WATCHDOG=1"]
    stalled.append("the engine")
    manager.socket.settimeout(0.2)
    while await asyncio.to_thread(manager.is_told):
        pass  # what was on its way
    assert "no progress in the engine" in caplog.text
    manager.socket.settimeout(5)
    stalled.clear()
    assert await asyncio.to_thread(manager.hear) == ["WATCHDOG=1"]
    feeding.cancel()
    await asyncio.wait({feeding})


async def test_without_a_watchdog_nobody_feeds() -> None:
    await asyncio.wait_for(feed_watchdog(Supervisor({}), list), 1)
