"""Databases of older and newer versions."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from naila.errors import StorageError
from naila.memory.database import Database
from naila.memory.migrations import MIGRATIONS


def first(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE notes (text TEXT NOT NULL)")


def second(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE notes ADD COLUMN room TEXT NOT NULL DEFAULT 'hall'")


def breaks(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE half (id)")
    connection.execute("INSERT INTO nowhere VALUES (1)")


def rows(query: str, connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute(query).fetchall()


async def test_an_older_database_is_brought_up_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "naila.db"
    async with Database(path, steps=[first]) as database:
        await database.run(lambda connection: connection.execute("INSERT INTO notes VALUES ('hello')"))
    async with Database(path, steps=[first, second]) as database:
        assert await database.read(lambda connection: rows("SELECT text, room FROM notes", connection)) == [
            ("hello", "hall")
        ]
        assert await database.read(lambda connection: rows("SELECT number, name FROM migrations", connection)) == [
            (1, "first"),
            (2, "second"),
        ]


async def test_a_step_that_fails_leaves_nothing_behind_and_runs_again_later(tmp_path: Path) -> None:
    path = tmp_path / "naila.db"
    with pytest.raises(StorageError, match=r"naila\.db: no such table: nowhere"):
        async with Database(path, steps=[first, breaks]):
            pass
    async with Database(path, steps=[first, second]) as database:
        tables = await database.read(
            lambda connection: rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name", connection)
        )
    assert tables == [("migrations",), ("notes",)]


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "naila.db"
    async with Database(path, steps=[first, second]):
        pass
    with pytest.raises(
        StorageError,
        match=r"naila\.db: it was written by a newer NAILA \(it has step 2, this NAILA knows 1\): install the newest",
    ):
        async with Database(path, steps=[first]):
            pass
    async with Database(path, steps=[first, second]):
        pass


async def test_many_that_open_a_new_file_at_once_run_each_step_once(tmp_path: Path) -> None:
    async def opened() -> list[tuple[object, ...]]:
        async with Database(tmp_path / "naila.db", steps=[first, second]) as database:
            return await database.read(lambda connection: rows("SELECT number FROM migrations", connection))

    assert await asyncio.gather(*(opened() for _ in range(8))) == [[(1,), (2,)]] * 8


def test_every_step_has_a_name_of_its_own_and_says_what_it_does() -> None:
    assert len({step.__name__ for step in MIGRATIONS}) == len(MIGRATIONS)
    assert all(step.__doc__ for step in MIGRATIONS)
