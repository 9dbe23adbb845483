"""One SQLite file, owned by two threads: one writes, one reads.

Every transaction is one hop to a thread and back, so the event loop never waits for a disk, and no two writing
transactions of this process meet. Who only reads does not wait for the disk that a writer waits for.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

from naila.errors import StorageError
from naila.memory.database_file import check, is_damage, make_private, move_aside, primary_code
from naila.memory.migrations import MIGRATIONS, Migration, migrate
from naila.memory.shared_commit import SharedCommit

_log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
IN_MEMORY: Final = Path(":memory:")
_FIXES: Final = {
    sqlite3.SQLITE_BUSY: "another process holds its lock: stop that process, or set MEMORY_PATH to another file",
    sqlite3.SQLITE_LOCKED: "another process holds its lock: stop that process, or set MEMORY_PATH to another file",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable for the user that NAILA runs as",
    sqlite3.SQLITE_PERM: "make the file and its folder readable and writable for the user that NAILA runs as",
    sqlite3.SQLITE_CANTOPEN: "make the file and its folder readable and writable for the user that NAILA runs as",
    sqlite3.SQLITE_FULL: "the disk is full: free some space, or set MEMORY_PATH to a file on another disk",
    sqlite3.SQLITE_IOERR: "the disk failed: look at the system's log and at the space left on it",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restart NAILA, which moves it aside and begins a new one",
    sqlite3.SQLITE_NOTADB: "the file is damaged: restart NAILA, which moves it aside and begins a new one",
}


class Database:
    """An async context manager: open inside the `async with`, closed after it.

    Args:
        path: the file; its folder is made for its owner only. `IN_MEMORY` for a database that nothing keeps.
        synchronous: NORMAL survives a killed process; FULL a power cut too, at 200 to 300 commits/s.
        busy_timeout_s: how long to wait for another process's lock.
        move_corrupt: move a damaged file aside and begin a new one; else a damaged file is an error. For whoever
            only looks into a database that a daemon may have open.
        steps: the migrations.
        now: the time in the name of a file that is moved aside.
        on_health: told in the caller's loop when using the database begins to fail, and with None when it works again.

    Attributes:
        path: as given.
        error: why the last use failed, None while reading and writing work.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        busy_timeout_s: float = 5.0,
        move_corrupt: bool = True,
        steps: Sequence[Migration] = MIGRATIONS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_health: Callable[[StorageError | None], None] = lambda _: None,
    ) -> None:
        self.error: StorageError | None = None
        self._error_of_writing = False
        self._on_health: Final = on_health
        self.path: Final = path
        self._synchronous: Final = synchronous
        self._busy_timeout_s: Final = busy_timeout_s
        self._move_corrupt: Final = move_corrupt
        self._steps: Final = tuple(steps)
        self._now: Final = now
        self._thread: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="naila-database")
        self._reading_thread: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="naila-database-reads")
        self._shared: Final = SharedCommit(self._durably, self._thread, explain=self._explained)
        self._connection: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._hop(self._open)
            if self.path != IN_MEMORY:
                await self._hop(self._open_for_reading, thread=self._reading_thread)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def run(self, work: Work[T], *, durable: bool = False) -> T:
        """Run `work` in a writing transaction: committed when it returns, undone when it raises.

        Args:
            work: what to do.
            durable: on return it survives a power cut too, whatever `synchronous` says.

        Durable transactions that come while another is being committed share the next commit, and so its wait for the
        disk; one that raises undoes itself only.

        A caller that is cancelled does not learn which of the two happened: write so that a repeat does no harm.

        Raises:
            StorageError: SQLite refused; the message names the file and the fix.
        """
        if durable:
            return await self._watched(self._shared.run(work), writes=True)
        return await self._watched(self._hop(partial(self._transaction, "BEGIN IMMEDIATE", work)), writes=True)

    def post(self, work: Work[object]) -> None:
        """Run `work` in a writing transaction, soon, in order with all others. Never waits; a failure is logged."""

        def attempt() -> None:
            try:
                self._transaction("BEGIN IMMEDIATE", work)
            except StorageError:
                _log.exception("what was to be written is lost")

        try:
            self._thread.submit(attempt)
        except RuntimeError:
            _log.warning("%s: the database is closed", self.path)

    async def read(self, work: Work[T]) -> T:
        """Run `work` in a transaction that sees one state of the database and waits for nobody.

        It sees every `run` that has returned; a `post` it may not see yet.

        Raises:
            StorageError: SQLite refused; the message names the file and the fix.
        """
        if self._reading is None:
            return await self._watched(self._hop(partial(self._transaction, "BEGIN", work)), writes=False)
        reading = self._hop(partial(self._transaction, "BEGIN", work, self._reading), thread=self._reading_thread)
        return await self._watched(reading, writes=False)

    async def purge(self) -> None:
        """Make sure that no byte of what was deleted is left in the file.

        `secure_delete` alone is not enough: pages that were rearranged earlier keep copies of rows in their gaps, and
        the write-ahead log keeps whole old pages. So the file is written anew and the log cut to nothing.
        """
        await self._hop(self._purge)

    async def _watched(self, result_of: Awaitable[T], *, writes: bool) -> T:
        """Take note of whether something worked. A full disk can still be read: that heals no writing."""
        try:
            result = await result_of
        except StorageError as exc:
            was_well, self.error = self.error is None, exc
            self._error_of_writing = self._error_of_writing or writes
            if was_well:
                self._on_health(exc)
            raise
        if self.error is not None and (writes or not self._error_of_writing):
            self.error, self._error_of_writing = None, False
            self._on_health(None)
        return result

    async def _hop(self, call: Callable[[], T], *, thread: ThreadPoolExecutor | None = None) -> T:
        try:
            future = (thread or self._thread).submit(call)
        except RuntimeError as exc:
            raise StorageError(f"{self.path}: the database is closed") from exc
        return await asyncio.wrap_future(future)

    async def _close(self) -> None:
        def close() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        def close_reading() -> None:
            reading, self._reading = self._reading, None
            if reading is not None:
                reading.close()

        # A cancelled caller must not take the closing out of the queue; the writer, closing last, empties the log.
        for thread, work in ((self._reading_thread, close_reading), (self._thread, close)):
            closing = thread.submit(work)
            thread.shutdown(wait=False)
            await asyncio.shield(asyncio.wrap_future(closing))

    # From here on everything runs in one of the database's threads.

    def _open_for_reading(self) -> None:
        try:
            connection = sqlite3.connect(self.path, timeout=self._busy_timeout_s, isolation_level=None)
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            self._set_up(connection)
            connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as exc:
            raise self._explained(exc) from exc
        self._reading = connection

    def _open(self) -> None:
        try:
            self._create()
            try:
                self._connection = self._connect()
            except sqlite3.DatabaseError as exc:
                if not self._move_corrupt or not is_damage(exc):
                    raise
                aside = move_aside(self.path, self._now())
                _log.error(
                    "THE DATABASE IS DAMAGED: %s (%s). It was moved to %s and a new one was begun: what was remembered "
                    "until now is only in the old file. `sqlite3 %s .recover` may bring it back.",
                    self.path,
                    exc,
                    aside,
                    aside,
                )
                self._create()
                self._connection = self._connect()
        except sqlite3.Error as exc:
            raise self._explained(exc) from exc
        except OSError as exc:
            raise StorageError(
                f"{self.path}: the database cannot be opened ({exc.strerror or exc}): make the file and its folder "
                f"readable and writable for the user that NAILA runs as, or set MEMORY_PATH to another file"
            ) from exc
        except StorageError as exc:
            raise StorageError(
                f"{self.path}: {exc}: install the newest NAILA, or set MEMORY_PATH to another file"
            ) from exc

    def _create(self) -> None:
        if self.path != IN_MEMORY:
            make_private(self.path)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=self._busy_timeout_s, isolation_level=None)
        try:
            # A flipped bit in one row must not make every recall of its conversation fail.
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            self._switch_to_wal(connection)
            self._set_up(connection)
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            check(verdict)
            migrate(connection, self._steps)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        """Switch, again and again: where two switch a new file at once, SQLite refuses one without any timeout."""
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as exc:
                if primary_code(exc) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _transaction(self, begin: str, work: Work[T], connection: sqlite3.Connection | None = None) -> T:
        connection = connection or self._opened()
        try:
            connection.execute(begin)
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise
        except sqlite3.Error as exc:
            raise self._explained(exc) from exc
        return result

    def _durably(self, work: Work[T]) -> T:
        connection = self._opened()
        connection.execute("PRAGMA synchronous = FULL")
        try:
            return self._transaction("BEGIN IMMEDIATE", work)
        finally:
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")

    def _purge(self) -> None:
        connection = self._opened()
        try:
            connection.execute("VACUUM")
            (busy, _pages, _done) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as exc:
            raise self._explained(exc) from exc
        if busy:
            raise StorageError(
                f"{self.path}: what was forgotten is deleted, but traces stay in {self.path}-wal while another process "
                f"reads the database: forget it once more when that process is done"
            )

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StorageError(f"{self.path}: the database is not open")
        return self._connection

    def _explained(self, exc: sqlite3.Error) -> StorageError:
        fix = _FIXES.get(primary_code(exc), "")
        return StorageError(f"{self.path}: {exc}{': ' if fix else ''}{fix}")


def storable(text: str) -> str:
    """Replace lone surrogates, which are no characters, have no UTF-8 form and would make SQLite refuse the row."""
    return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
