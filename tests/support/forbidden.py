"""Tries what the service must not do, and prints what of it was possible: run inside the sandbox."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)


def native(result: int) -> None:
    """Raise where the C library refused."""
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def first_of(folder: str) -> None:
    """Raise where a folder is empty."""
    next(iter(os.scandir(folder)))


def others() -> None:
    """Raise where no process of another user can be seen."""
    next(folder for folder in Path("/proc").iterdir() if folder.name.isdigit() and folder.stat().st_uid != os.getuid())


def written_and_executed() -> None:
    """Take memory that can be written and executed."""
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def made_executable() -> None:
    """Make memory that was written executable."""
    LIBC.mmap.restype = ctypes.c_void_p
    page = LIBC.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, 0)
    native(LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(4096), 5))


def set_user_id() -> None:
    """Make a program that runs as its owner."""
    Path("program").touch()
    Path("program").chmod(0o4755)


FORBIDDEN: dict[str, Callable[[], object]] = {
    "write to /etc": lambda: Path("/etc/naila-was-here").touch(),
    "write to /": lambda: Path("/naila-was-here").touch(),
    "write to the program": lambda: Path(sys.argv[1], "naila-was-here").touch(),
    "look into /home": lambda: first_of("/home"),
    "see memory": lambda: Path("/dev/mem").read_bytes(),
    "see a disk": lambda: first_of("/dev/disk"),
    "see a terminal": lambda: first_of("/dev/pts"),
    "see others' processes": others,
    "become root": lambda: os.setuid(0),
    "mount": lambda: native(LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    "make a namespace": lambda: native(LIBC.unshare(0x10000000)),
    "make a network namespace": lambda: native(LIBC.unshare(0x40000000)),
    "speak netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "speak packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "listen to everything": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "take a low port": lambda: socket.socket().bind(("127.0.0.1", 80)),
    "write and execute": written_and_executed,
    "make executable": made_executable,
    "make a set-user-id program": set_user_id,
    "run in real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "change the personality": lambda: native(LIBC.personality(0x0040000)),
    "debug": lambda: native(LIBC.ptrace(16, os.getppid(), 0, 0)),
    "load a kernel module": lambda: native(LIBC.init_module(None, 0, None)),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "reboot": lambda: native(LIBC.reboot(0)),
    "change a kernel parameter": lambda: Path("/proc/sys/kernel/hostname").write_text("x"),
}
NEEDED: dict[str, Callable[[], object]] = {
    "write state": lambda: Path("state").touch(),
    "write to /tmp": lambda: Path("/tmp/x").touch(),  # noqa: S108 - it is private
    "read randomness": lambda: os.close(os.open("/dev/urandom", os.O_RDONLY)),
    "read the memory's size": lambda: Path("/proc/meminfo").read_text(),
    "connect": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "notify": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    "start a process": lambda: os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}), 0),
}


def is_possible(attempt: Callable[[], object]) -> bool:
    """Try one thing."""
    try:
        attempt()
    except (OSError, StopIteration, ValueError):
        return False
    return True


def main() -> None:
    """Try everything."""
    possible = [name for name, attempt in FORBIDDEN.items() if is_possible(attempt)]
    impossible = [name for name, attempt in NEEDED.items() if not is_possible(attempt)]
    sys.stdout.write(json.dumps({"possible": possible, "impossible": impossible}))


if __name__ == "__main__":
    main()
