"""Durable transactions that share one commit: what waits for the disk is one `fsync` for all that came meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, Protocol, TypeVar

from naila.errors import StorageError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

MAX_SHARED: Final = 256


class Transact(Protocol):
    """Whoever runs work in a durable transaction."""

    def __call__(self, work: Work[T]) -> T:
        """Run it, in the database's thread.

        Raises:
            StorageError: nothing of it was committed.
        """
        ...


class SharedCommit:
    """Collects work in the loop's thread and commits it in the database's, at most `MAX_SHARED` pieces at a time.

    Args:
        transact: runs work in a durable transaction.
        thread: of one worker, the database's.
        explain: says what SQLite refused, and what to do.
    """

    def __init__(
        self, transact: Transact, thread: Executor, *, explain: Callable[[sqlite3.Error], StorageError]
    ) -> None:
        self._transact: Final = transact
        self._explain: Final = explain
        self._thread: Final = thread
        self._waiting: Final[deque[tuple[Work[Any], Future[Any]]]] = deque()

    async def run(self, work: Work[T]) -> T:
        """Run `work`; committed when it returns, undone when it raises.

        Raises:
            StorageError: it could not be committed.
        """
        future: Future[T] = Future()
        self._waiting.append((work, future))
        try:
            # One call for each: those that find nothing left to do cost next to nothing.
            self._thread.submit(self._commit)
        except RuntimeError as exc:
            raise StorageError("the database is closed") from exc
        return await asyncio.wrap_future(future)

    def _commit(self) -> None:
        batch: list[tuple[Work[Any], Future[Any]]] = []
        while self._waiting and len(batch) < MAX_SHARED:
            work, future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                batch.append((work, future))
        if not batch:
            return
        try:
            results = self._transact(lambda connection: [_attempt(connection, work) for work, _ in batch])
        except BaseException as exc:  # noqa: BLE001 - whoever waits in the loop is told
            for _, future in batch:
                future.set_exception(exc)
            return
        for (_, future), (result, error) in zip(batch, results, strict=True):
            if isinstance(error, sqlite3.Error):
                future.set_exception(self._explain(error))
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)


def _attempt(connection: sqlite3.Connection, work: Work[T]) -> tuple[T | None, Exception | None]:
    """Run one piece; where it fails alone, undo it alone."""
    connection.execute("SAVEPOINT piece")
    try:
        result = work(connection)
    except Exception as exc:
        if not connection.in_transaction:  # SQLite has undone everything: the disk is full, or worse
            raise
        connection.execute("ROLLBACK TO piece")
        connection.execute("RELEASE piece")
        return None, exc
    connection.execute("RELEASE piece")
    return result, None
