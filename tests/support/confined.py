"""Runs a command as systemd would run the service, as far as that can be done without systemd.

    python tests/support/confined.py UNIT STATE READABLE... -- COMMAND...

UNIT is the unit file: its sandbox is read from there. STATE is the only folder that can be written, READABLE what is to
be seen of homes and of /tmp. Done here: another user without capabilities, no new privileges, a read-only system,
private /tmp and /dev, no homes, processes of others invisible, no memory that is written and executed, and the filters
on system calls, address families, namespaces, realtime and set-user-id bits. Not done: what needs the manager itself
(cgroups, the kernel keyring, RemoveIPC).

Needs root and Linux 5.12 on a 64-bit machine, libseccomp 2.5 and systemd-analyze, which knows the groups of calls.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import re
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

NOBODY: Final = 65534
CLONE_NEWNS: Final = 0x20000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY: Final = 1
SYS_MOUNT_SETATTR: Final = 442
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 24, 38, 65
LAST_CAP: Final = 40
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NE, EQ, GE, MASKED_EQ = 1, 4, 5, 7
NEW_NAMESPACES: Final = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
SCHED_DEADLINE: Final = 6
HIDDEN: Final = {
    "/tmp": "PrivateTmp",  # noqa: S108 - these are meant
    "/var/tmp": "PrivateTmp",  # noqa: S108
    "/home": "ProtectHome",
    "/root": "ProtectHome",
    "/run/user": "ProtectHome",
}
Condition: TypeAlias = tuple[int, int, int, int]
# What becomes of a call, its name, and which arguments make it so.
Rule: TypeAlias = tuple[int, str, tuple[Condition, ...]]
DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")

libc: Final = ctypes.CDLL(None, use_errno=True)


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def missing() -> str | None:
    """Say what is missing to do this here; None where it can be done."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can confine a process so without systemd"
    if ctypes.util.find_library("seccomp") is None:
        return "libseccomp is not installed"
    try:
        calls("@system-service")
    except (OSError, subprocess.CalledProcessError):
        return "systemd-analyze is not installed"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else "this machine lets root mount nothing"


def calls(group: str) -> set[str]:
    """Return the system calls of one of systemd's groups."""
    shown = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    found: set[str] = set()
    for line in shown.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= calls(word)
        elif word and not word.startswith("#"):
            found.add(word)
    return found


def directives(unit: Path) -> dict[str, list[str]]:
    """Return the values of a unit's settings, by name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def is_on(unit: dict[str, list[str]], name: str) -> bool:
    """Whether a unit switches something on."""
    return unit.get(name, ["no"])[-1] == "yes"


def check(result: int, what: str) -> None:
    """Raise what the C library reports."""
    if result != 0:
        code = ctypes.get_errno() or -result
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount."""
    check(libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()), target)


def read_only(path: str, *, on: bool = True) -> None:
    """Make everything below a mount point read-only, or writable again."""
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY if on else 0, 0 if on else MOUNT_ATTR_RDONLY, 0, 0)
    check(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), AT_RECURSIVE, attributes, 32), path)


def hide_files(unit: dict[str, list[str]], state: Path, readable: list[Path]) -> None:
    """Show the process only what the unit lets it see."""
    check(libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    kept = {path: os.open(path, os.O_PATH) for path in [*readable, state]}
    for folder, switch in HIDDEN.items():
        if is_on(unit, switch) and Path(folder).is_dir():
            mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777" if "tmp" in folder else "mode=755")
    if is_on(unit, "PrivateDevices"):
        private_devices()
    for path, handle in kept.items():
        path.mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{handle}", str(path), flags=MS_BIND)
        os.close(handle)
    if unit["ProtectProc"] == ["invisible"]:
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV, "hidepid=invisible")
    if unit["ProtectSystem"] == ["strict"]:
        read_only("/")
        for folder in ("/tmp", "/var/tmp", "/dev/shm", str(state)):  # noqa: S108 - these are meant
            read_only(folder, on=False)


def private_devices() -> None:
    """Leave only devices that are none."""
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in DEVICES if Path(f"/dev/{name}").exists()}
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755")
    for name, handle in devices.items():
        Path(f"/dev/{name}").touch()
        mount(f"/proc/self/fd/{handle}", f"/dev/{name}", flags=MS_BIND)
        os.close(handle)
    Path("/dev/shm").mkdir()  # noqa: S108
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108


def drop_powers(unit: dict[str, list[str]]) -> None:
    """Become nobody, without capabilities, for ever."""
    if unit["CapabilityBoundingSet"] == [""]:
        for number in range(LAST_CAP + 1):
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.umask(int(unit["UMask"][-1], 8))
    if is_on(unit, "NoNewPrivileges"):
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    if is_on(unit, "MemoryDenyWriteExecute"):
        libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)  # Linux 6.3; the filter below does the same for older ones


class Filter:
    """A filter of system calls.

    Args:
        default: what becomes of a call that no rule names.
    """

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("seccomp"))
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))

    def rule(self, action: int, name: str, *conditions: Condition) -> None:
        """Say what becomes of a call, where its arguments are such; of one that this machine has not, nothing."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return
        rules = (_Compare * len(conditions))(*(_Compare(*condition) for condition in conditions))
        result = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(conditions), rules
        )
        check(result, f"rule for {name}")

    def load(self) -> None:
        """Put it in force, for ever."""
        check(self._library.seccomp_load(self._context), "seccomp")


def allowed_calls(unit: dict[str, list[str]]) -> set[str]:
    """Return the system calls that the unit lets through."""
    allowed: set[str] = set()
    for line in unit["SystemCallFilter"]:
        for group in line.removeprefix("~").split():
            allowed = allowed - calls(group) if line.startswith("~") else allowed | calls(group)
    return allowed


def filter_calls(unit: dict[str, list[str]], allowed: set[str]) -> None:
    """Put the unit's filters in force: which arguments, and which calls there are at all."""
    arguments = Filter(ALLOW)
    for action, name, conditions in [*family_rules(unit), *argument_rules(unit)]:
        arguments.rule(action, name, *conditions)
    everything = Filter(ERRNO | getattr(errno, unit["SystemCallErrorNumber"][-1]))
    for name in sorted(allowed):
        everything.rule(ALLOW, name)
    arguments.load()
    everything.load()


def family_rules(unit: dict[str, list[str]]) -> Iterator[Rule]:
    """Yield what refuses every family of addresses but the unit's."""
    refused = ERRNO | errno.EAFNOSUPPORT
    families = {int(getattr(socket, name)) for name in unit["RestrictAddressFamilies"][-1].split()}
    for family in set(range(64)) - families:
        yield refused, "socket", ((0, EQ, family, 0),)
    yield refused, "socket", ((0, GE, 64, 0),)


def argument_rules(unit: dict[str, list[str]]) -> Iterator[Rule]:
    """Yield what refuses arguments of calls that are allowed."""
    rules: dict[str, list[tuple[str, Condition]]] = {
        "RestrictNamespaces": [
            (name, (0, MASKED_EQ, flag, flag)) for flag in NEW_NAMESPACES for name in ("clone", "unshare")
        ],
        "RestrictSUIDSGID": [
            (name, (place, MASKED_EQ, bit, bit))
            for name, place in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2))
            for bit in (stat.S_ISUID, stat.S_ISGID)
        ],
        "RestrictRealtime": [
            ("sched_setscheduler", (1, EQ, policy, 0)) for policy in (os.SCHED_FIFO, os.SCHED_RR, SCHED_DEADLINE)
        ],
        "LockPersonality": [("personality", (0, NE, 0, 0))],
        "MemoryDenyWriteExecute": [
            ("mmap", (2, MASKED_EQ, 6, 6)),
            ("mprotect", (2, MASKED_EQ, 4, 4)),
            ("pkey_mprotect", (2, MASKED_EQ, 4, 4)),
        ],
    }
    for switch, refused in rules.items():
        if is_on(unit, switch):
            yield from ((ERRNO | errno.EPERM, name, (condition,)) for name, condition in refused)
    if is_on(unit, "RestrictNamespaces"):
        yield ERRNO | errno.EPERM, "setns", ()
        yield ERRNO | errno.ENOSYS, "clone3", ()


def main() -> None:
    """Confine this process, then become the command."""
    split = sys.argv.index("--")
    unit, state, *readable = map(Path, sys.argv[1:split])
    read = directives(unit)
    os.chown(state, NOBODY, NOBODY)
    allowed = allowed_calls(read)  # systemd-analyze cannot be asked from inside
    hide_files(read, state, readable)
    os.chdir(state)
    drop_powers(read)
    filter_calls(read, allowed)
    os.execv(sys.argv[split + 1], sys.argv[split + 1 :])  # noqa: S606


if __name__ == "__main__":
    main()
