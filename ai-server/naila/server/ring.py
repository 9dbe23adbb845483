"""A file that keeps the last lines written to it, in slots that are written over: bounded, and there after any crash.

Each line is one small write into the page cache, so a killed process has lost nothing, and nobody has to ask a dying
one to dump what it knows. A line that a power cut tore is left out when the file is read.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

_HEAD: Final = 18  # sixteen hexadecimal digits, what kind of piece, a space
_FIRST: Final = "-"
_MORE: Final = "+"
_MOST_PIECES: Final = 16


class Ring:
    """The writer's side. Nothing is touched before the first line; trouble with the disk is never the caller's.

    Args:
        path: the file; its folder is made for its owner only.
        slots: how many pieces it keeps.
        slot_bytes: size of a piece. A longer line takes several, sixteen at most.
    """

    def __init__(self, path: Path, *, slots: int, slot_bytes: int = 512) -> None:
        self.path = path
        self._slots = slots
        self._slot_bytes = slot_bytes
        self._lock = threading.Lock()
        self._file: int | None = None
        self._next = 0
        self._last: int | None = None

    def append(self, line: str) -> None:
        """Keep a line; never raises for the disk's sake."""
        with self._lock:
            self._write(line, self._next)

    def replace_last(self, line: str) -> None:
        """Keep a line instead of the last one of this writer."""
        with self._lock:
            self._write(line, self._next if self._last is None else self._last)

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _write(self, line: str, number: int) -> None:
        try:
            if self._file is None:
                fresh = self._open()
                number = number or fresh
            room = self._slot_bytes - _HEAD - 1
            data = " ".join(line.splitlines()).encode("utf-8", "replace")[: room * _MOST_PIECES] or b" "
            for at, kind in enumerate([_FIRST, *[_MORE] * ((len(data) - 1) // room)]):
                piece = f"{number + at:016x}{kind} ".encode() + data[at * room : (at + 1) * room].ljust(room) + b"\n"
                os.pwrite(self._file_number(), piece, (number + at) % self._slots * self._slot_bytes)
        except OSError:
            self._drop()
            return
        self._last, self._next = number, number + at + 1

    def _open(self) -> int:
        """Open the file and return the number of its next piece."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        size = self._slots * self._slot_bytes
        if os.fstat(self._file).st_size > size:
            os.ftruncate(self._file, 0)  # of another layout
        numbers = [number for number, _, _ in _pieces(os.pread(self._file, size, 0), self._slot_bytes)]
        return max(numbers, default=-1) + 1

    def _file_number(self) -> int:
        if self._file is None:
            raise OSError(f"{self.path} is not open")
        return self._file

    def _drop(self) -> None:
        """Give up a file that cannot be written; the next line tries again."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def read_ring(path: Path, *, slot_bytes: int = 512) -> list[str]:
    """Return the lines that a ring holds, oldest first; none where there is no such file.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines: list[bytes] = []
    before: int | None = None
    for number, kind, text in sorted(_pieces(data, slot_bytes)):
        if kind == _FIRST:
            lines.append(text)
        elif lines and before == number - 1:
            lines[-1] += text
        before = number
    return [line.decode("utf-8", "replace").rstrip() for line in lines]


def _pieces(data: bytes, slot_bytes: int) -> list[tuple[int, str, bytes]]:
    """Return what whole slots hold: number, kind and text."""
    found = []
    for start in range(0, len(data) - slot_bytes + 1, slot_bytes):
        slot = data[start : start + slot_bytes]
        head, kind = slot[:16], chr(slot[16])
        if slot[-1:] != b"\n" or kind not in {_FIRST, _MORE} or not head.isalnum():
            continue
        try:
            found.append((int(head, 16), kind, slot[_HEAD:-1]))
        except ValueError:
            continue
    return found
