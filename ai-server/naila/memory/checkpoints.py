"""Where LangGraph keeps what waits for a person: an SQLite file of its own beside the database."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

# Nothing but plain data is ever read back from a checkpoint.
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from naila.errors import StorageError
from naila.memory.database_file import check, is_damage, make_private, move_aside

BUSY_TIMEOUT_MS: Final = 5000

_log = logging.getLogger(__name__)


class Checkpoints(AsyncSqliteSaver):
    """An async context manager: open inside the `async with`, closed after it. Made in a running event loop.

    A power cut loses nothing that was kept. A file that is damaged is moved aside: what waited in it is lost, and its
    requests are asked again by their devices.

    Args:
        path: the file; its folder is made for its owner only.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(aiosqlite.connect(path, isolation_level=None))
        self._path: Final = path

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except sqlite3.DatabaseError as exc:
            await self.conn.close()
            if not is_damage(exc):
                raise StorageError(f"{self._path}: {exc}") from exc
            aside = move_aside(self._path)
            _log.error("%s is damaged (%s) and was moved to %s: what waited for a yes is lost", self._path, exc, aside)
            self.conn = aiosqlite.connect(self._path, isolation_level=None)
            await self._open()
        except OSError as exc:
            raise StorageError(f"{self._path}: it cannot be opened ({exc.strerror or exc})") from exc
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.conn.close()

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint.

        Raises:
            StorageError: SQLite refused.
        """
        with self._explained():
            return await super().aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, object]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a node has written.

        Raises:
            StorageError: SQLite refused.
        """
        with self._explained():
            await super().aput_writes(config, writes, task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint.

        Raises:
            StorageError: SQLite refused.
        """
        with self._explained():
            return await super().aget_tuple(config)

    async def threads(self) -> Sequence[str]:
        """Return the names of all threads.

        Raises:
            StorageError: SQLite refused.
        """
        with self._explained():
            rows = await self.conn.execute_fetchall("SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id")
        return [name for (name,) in rows]

    async def adelete_thread(self, thread_id: str) -> None:
        """Forget a thread.

        Raises:
            StorageError: SQLite refused.
        """
        with self._explained():
            await super().adelete_thread(thread_id)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as exc:  # aiosqlite says with a ValueError that it is closed
            raise StorageError(f"{self._path}: {exc}") from exc

    async def _open(self) -> None:
        make_private(self._path)
        await self.conn
        for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", "synchronous = FULL", "secure_delete = ON"):
            await self.conn.execute(f"PRAGMA {pragma}")
        await self.setup()
        async with self.conn.execute("PRAGMA quick_check(1)") as rows:
            verdict = await rows.fetchone()
        check(verdict[0] if verdict is not None else verdict)
