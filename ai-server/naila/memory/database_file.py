"""The file of a database: made for its owner only, and moved aside where it is damaged."""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def make_private(path: Path) -> None:
    """Make the file, and its folder, where they are missing: SQLite would make it readable for everybody.

    Raises:
        OSError: it cannot be made, or not be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def check(verdict: object) -> None:
    """Take the verdict of a `quick_check`.

    Raises:
        sqlite3.DatabaseError: the file is damaged.
    """
    if verdict != "ok":
        damage = sqlite3.DatabaseError(str(verdict))
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage


def is_damage(exc: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is damaged, or no database."""
    return primary_code(exc) in _CORRUPT


def primary_code(exc: sqlite3.Error) -> int:
    """Return SQLite's error code without its extension, 0 where the error is Python's own."""
    return int(getattr(exc, "sqlite_errorcode", 0) or 0) & 0xFF


def move_aside(path: Path, now: datetime | None = None) -> Path:
    """Move a damaged file out of the way, and return where it is now.

    The log beside it is found by its name: together they can still be looked into.

    Raises:
        OSError: it cannot be moved.
    """
    aside = path.with_name(f"{path.name}.corrupt-{now or datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside
