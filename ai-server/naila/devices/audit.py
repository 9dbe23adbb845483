"""The audit log: who wanted what moved, proposed by what, decided why, and what came of it. JSON lines, append-only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from naila.devices.plain_json import canonical, shown
from naila.errors import ErrorCode
from naila.events import JsonValue

_log = logging.getLogger(__name__)

FILE: Final = "actions.jsonl"
_MAX_VALUE_BYTES: Final = 4096
_RETRY_S: Final = 1.0

AuditEvent = Literal[
    "sent", "refused", "done", "failed", "unanswered", "stopped", "pending", "approved", "denied", "expired", "ignored"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One line.

    Attributes:
        time: RFC 3339 UTC.
        event: what happened. `ignored`: a result that changed nothing.
        id: the action's id, or the pending one's.
        device_id: who was to move, or sent what was ignored.
        name: of the action.
        arguments: as checked, or as asked where refused.
        request_id: the request that it comes from.
        speaker: the device through which it was asked.
        user_id: which person asked, where known.
        by: what understood the wish as this.
        confirmation: the approval that it rests on.
        code: why it was refused, or failed.
        reason: the same in words.
        result: what the device returned.
    """

    time: str
    event: AuditEvent
    id: str
    device_id: str
    name: str | None = None
    arguments: object = None
    request_id: str | None = None
    speaker: str | None = None
    user_id: str | None = None
    by: str | None = None
    confirmation: str | None = None
    code: ErrorCode | None = None
    reason: str | None = None
    result: JsonValue = None


class Audit:
    """Writes entries in order, off the event loop; an async context manager, which writes all that it has at its end.

    A disk that refuses is told of once and tried again every second; meanwhile entries wait in memory. When
    `max_waiting` of them do, `is_full` says so, and who asks may refuse to do what could not be accounted for.
    An entry that does not fit even then (of a stop, which nothing may hold up) is counted, and so is what the disk has
    not taken at the end; the count is logged.

    Args:
        folder: made for its owner only; the file in it is `actions.jsonl`, older ones `actions.jsonl.1` and so on.
        max_bytes: a file that would grow beyond this is put aside.
        keep: how many are kept aside; the oldest goes.
        max_waiting: how many entries may wait for the disk.
        close_s: how long a disk that does not answer may hold up the end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 10_000_000,
        keep: int = 5,
        max_waiting: int = 1000,
        close_s: float = 5.0,
    ) -> None:
        self.path: Final = folder / FILE
        self._max_bytes: Final = max_bytes
        self._keep: Final = keep
        self._max_waiting: Final = max_waiting
        self._close_s: Final = close_s
        self._entries: Final[queue.SimpleQueue[AuditEntry | None]] = queue.SimpleQueue()
        self._closing: Final = threading.Event()
        self._thread = threading.Thread(target=self._work, name="naila-audit", daemon=True)
        self._backlog = 0
        self._lost = 0
        self._problem = ""

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    @property
    def waiting(self) -> int:
        """How many entries wait for the disk."""
        return self._entries.qsize() + self._backlog

    @property
    def is_full(self) -> bool:
        """Whether no more entries fit, because the disk takes none."""
        return self.waiting >= self._max_waiting

    def write(self, entry: AuditEntry) -> None:
        """Put an entry in line. Never waits and never raises."""
        if self.is_full:
            self._lost += 1
        else:
            self._entries.put(entry)

    def close(self) -> None:
        """Write what is left, as far as the disk takes it."""
        self._closing.set()
        self._entries.put(None)
        if self._thread.ident is not None:
            self._thread.join(self._close_s)
        lost, why = self._lost + self._backlog, self._problem or "they found no room"
        with contextlib.suppress(queue.Empty):
            while True:
                lost += self._entries.get_nowait() is not None
        if self._thread.is_alive():
            why = f"the disk has not answered for {self._close_s:g} s"
        if lost:
            _log.error("%s: %d entries are lost: %s", self.path, lost, why)

    def _work(self) -> None:
        """The thread: take what is there and write it; where the disk refuses, try again until it is closed."""
        ended = False
        while not ended:
            batch: list[AuditEntry] = []
            ended = self._take(batch, self._entries.get())
            while batch and not self._append(batch):
                if self._closing.wait(_RETRY_S):
                    ended = ended or self._take(batch, self._entries.get())
                    if self._append(batch):
                        break
                    return
            self._backlog = 0

    def _take(self, batch: list[AuditEntry], entry: AuditEntry | None) -> bool:
        """Add an entry and what stands behind it to the batch; true where the end was reached."""
        while entry is not None:
            batch.append(entry)
            self._backlog = len(batch)
            if len(batch) >= self._max_waiting or self._entries.empty():
                return False
            entry = self._entries.get()
        return True

    def _append(self, batch: list[AuditEntry]) -> bool:
        """Write a batch, whole lines only; false where the disk refused, and then nothing of it is in the file."""
        data = b"".join(_line(entry) for entry in batch)
        try:
            self._make_room(len(data))
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._write_all(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as exc:
            if not self._problem:
                _log.error("%s: the audit log cannot be written, and waits in memory: %s", self.path, exc)
            self._problem = str(exc)
            return False
        if self._problem:
            _log.warning("%s: the audit log is written again", self.path)
        self._problem = ""
        return True

    def _write_all(self, descriptor: int, data: bytes) -> None:
        size = os.fstat(descriptor).st_size
        # A line that a crash cut short must not swallow the next one.
        if size and not _ends_line(self.path, size):
            data = b"\n" + data
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
        except OSError:
            os.ftruncate(descriptor, size)
            raise

    def _make_room(self, size: int) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            there = self.path.stat().st_size
        except FileNotFoundError:
            return
        if not there or there + size <= self._max_bytes:
            return
        for number in range(self._keep, 0, -1):
            older = _aside(self.path, number - 1)
            if older.exists():
                older.replace(_aside(self.path, number))
        if self._keep == 0:
            self.path.unlink()


def audit_folder(memory_path: Path) -> Path:
    """Return where the audit log of a brain with this database lies: beside it."""
    return memory_path.parent / "audit"


def read_audit(folder: Path) -> Iterator[Mapping[str, JsonValue]]:
    """Yield the entries that are kept, oldest first; lines that were cut short or damaged are left out.

    Raises:
        OSError: a file cannot be read.
    """
    newest = folder / FILE
    numbers = sorted(
        (int(path.suffix[1:]) for path in folder.glob(f"{FILE}.*") if path.suffix[1:].isdecimal()), reverse=True
    )
    for path in [*(_aside(newest, number) for number in numbers), newest]:
        if not path.exists():
            continue
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict):
                    yield entry


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _ends_line(path: Path, size: int) -> bool:
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"


def _line(entry: AuditEntry) -> bytes:
    values = {
        field.name: _bounded(value) for field in fields(entry) if (value := getattr(entry, field.name)) is not None
    }
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def _bounded(value: object) -> object:
    """Return what can be written; of what is no plain JSON, or too long, only why it is not there."""
    if isinstance(value, str):
        return shown(value, 1000)
    try:
        canonical(value, "value", max_bytes=_MAX_VALUE_BYTES)
    except ValueError as exc:
        return f"(not kept: {shown(exc, 200)})"
    return value
