"""The database file: how it is made, what it survives, and what it says when it cannot work."""

import asyncio
import logging
import sqlite3
import stat
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from naila.errors import StorageError
from naila.memory.database import IN_MEMORY, Database


def insert(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO facts (device_id, key, value) VALUES ('r2', 'name', 'Ada')")


def count(connection: sqlite3.Connection) -> int:
    (facts,) = connection.execute("SELECT count(*) FROM facts").fetchone()
    return int(facts)


def pragma(name: str, connection: sqlite3.Connection) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_folder_and_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "naila.db"
    async with Database(path) as database:
        await database.run(insert)
        assert mode(path.parent) == 0o700
        assert {mode(part) for part in path.parent.iterdir()} == {0o600}
        assert path.with_name("naila.db-wal").exists()


async def test_pragmas_are_the_promised_ones(tmp_path: Path) -> None:
    async with Database(tmp_path / "naila.db", synchronous="FULL", busy_timeout_s=1.5) as database:
        names = ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "busy_timeout")
        values = [await database.read(lambda connection, name=name: pragma(name, connection)) for name in names]  # type: ignore[misc]
        assert values == ["wal", 2, 1, 1, 1500]
    async with Database(tmp_path / "naila.db") as database:
        assert await database.read(lambda connection: pragma("synchronous", connection)) == 1


async def test_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    for before in range(3):
        async with Database(tmp_path / "naila.db") as database:
            assert await database.read(count) == before
            await database.run(insert)


async def test_a_transaction_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        insert(connection)
        raise LookupError("in the middle")

    async with Database(tmp_path / "naila.db") as database:
        with pytest.raises(LookupError, match="in the middle"):
            await database.run(half)
        assert await database.read(count) == 0


async def test_text_that_sqlite_cannot_encode_undoes_its_transaction_only() -> None:
    def surrogate(connection: sqlite3.Connection) -> None:
        insert(connection)
        connection.execute("INSERT INTO facts (device_id, key, value) VALUES ('r2', 'likes', ?)", ("\ud800",))

    async with Database(IN_MEMORY) as database:
        with pytest.raises(UnicodeEncodeError):
            await database.run(surrogate)
        await database.run(insert)
        assert await database.read(count) == 1


async def test_bytes_that_are_no_utf8_are_read_as_replacement_characters() -> None:
    def broken(connection: sqlite3.Connection) -> str:
        return str(connection.execute("SELECT CAST(x'41ff42' AS TEXT)").fetchone()[0])

    async with Database(IN_MEMORY) as database:
        assert await database.read(broken) == "A\N{REPLACEMENT CHARACTER}B"


async def test_all_work_runs_in_one_thread_that_is_not_the_loops() -> None:
    async with Database(IN_MEMORY) as database:
        threads = await asyncio.gather(*(database.run(lambda _: threading.get_ident()) for _ in range(20)))
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


async def test_concurrent_transactions_do_not_lose_updates() -> None:
    def increment(connection: sqlite3.Connection) -> None:
        (value,) = connection.execute("SELECT user_version FROM pragma_user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {value + 1}")

    async with Database(IN_MEMORY) as database:
        await asyncio.gather(*(database.run(increment) for _ in range(50)))
        assert await database.read(lambda connection: pragma("user_version", connection)) == 50


async def test_a_cancelled_caller_leaves_a_database_that_works() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        entered.set()
        leave.wait()
        insert(connection)

    async with Database(IN_MEMORY) as database:
        caller = asyncio.create_task(database.run(slow))
        await asyncio.to_thread(entered.wait)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        leave.set()
        assert await database.read(count) == 1


async def test_a_closed_or_unopened_database_says_so(tmp_path: Path) -> None:
    database = Database(tmp_path / "naila.db")
    with pytest.raises(StorageError, match=r"naila\.db: the database is not open"):
        await database.read(count)
    async with database:
        pass
    with pytest.raises(StorageError, match=r"naila\.db: the database is closed"):
        await database.read(count)


def garbage(path: Path) -> None:
    path.write_bytes(b"this is not a database, but it is long enough to be looked at" * 100)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [garbage, truncated, overwritten])
async def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    path = tmp_path / "naila.db"
    async with Database(path) as database:
        await database.run(insert)
    assert callable(damage)
    damage(path)
    old = path.read_bytes()
    path.with_name("naila.db-wal").write_bytes(b"left over")

    async with Database(path, now=lambda: datetime(2026, 1, 2, 3, 4, 5, 6, UTC)) as database:
        assert await database.read(count) == 0
        await database.run(insert)

    aside = tmp_path / "naila.db.corrupt-20260102T030405000006"
    assert aside.read_bytes() == old
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert str(path) in record.getMessage()
    assert str(aside) in record.getMessage()
    async with Database(path) as database:
        assert await database.read(count) == 1


def names(folder: Path) -> list[str]:
    return sorted(part.name for part in folder.iterdir())


async def test_whoever_only_looks_moves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "naila.db"
    garbage(path)
    with pytest.raises(StorageError, match=r"naila\.db: .*restart NAILA, which moves it aside"):
        async with Database(path, move_corrupt=False):
            pass
    assert names(tmp_path) == ["naila.db"]


async def test_a_lock_held_by_another_is_named_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "naila.db"
    async with Database(path, busy_timeout_s=0.01) as database, Database(path) as other:
        held, leave = threading.Event(), threading.Event()

        def hold(_: sqlite3.Connection) -> None:
            held.set()
            leave.wait()

        holder = asyncio.create_task(other.run(hold))
        await asyncio.to_thread(held.wait)
        try:
            with pytest.raises(StorageError, match=r"naila\.db: database is locked: another process holds its lock"):
                await database.run(insert)
            assert await database.read(count) == 0
        finally:
            leave.set()
            await holder


async def test_a_read_only_database_is_named_with_the_fix(tmp_path: Path) -> None:
    def forbid(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = ON")

    async with Database(tmp_path / "naila.db") as database:
        await database.run(forbid)
        with pytest.raises(StorageError, match=r"naila\.db: .*readonly.*writable for the user that NAILA runs as"):
            await database.run(insert)


async def test_a_full_disk_is_named_with_the_fix(tmp_path: Path) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO facts (device_id, key, value) VALUES ('r2', 'x', zeroblob(0) || ?)", ("x" * 9**6,)
        )

    async with Database(tmp_path / "naila.db") as database:
        await database.run(lambda connection: pragma("max_page_count = 40", connection))
        with pytest.raises(StorageError, match=r"naila\.db: .*full.*free some space"):
            await database.run(fill)
        await database.run(insert)
        assert await database.read(count) == 1


async def test_a_folder_that_cannot_be_made_is_named_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StorageError, match=r"state/naila\.db: the database cannot be opened .*set MEMORY_PATH"):
        async with Database(tmp_path / "state" / "naila.db"):
            pass


async def test_a_folder_in_its_place_is_named_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"the database cannot be opened \(Is a directory\)"):
        async with Database(tmp_path):
            pass


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (id)")
    connection.close()
    with pytest.raises(StorageError, match=r"photos\.db: it is another program's database \(its tables: photos\)"):
        async with Database(path):
            pass


async def test_failing_and_working_again_is_told_once_each(tmp_path: Path) -> None:
    """Reading heals no writing: a full disk can still be read."""
    told: list[StorageError | None] = []
    path = tmp_path / "naila.db"
    async with Database(path, busy_timeout_s=0.01, on_health=told.append) as database:
        await database.read(lambda connection: connection.execute("SELECT 1").fetchone())
        assert (told, database.error) == ([], None)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                with pytest.raises(StorageError):
                    await database.run(lambda connection: connection.execute("DELETE FROM facts"))
                await database.read(lambda connection: connection.execute("SELECT 1").fetchone())
            assert [str(error) for error in told] == [str(database.error)]
            other.execute("ROLLBACK")
        await database.run(lambda connection: connection.execute("DELETE FROM facts"))
    assert told[1:] == [None]
    assert database.error is None


async def test_who_reads_does_not_wait_for_who_writes(tmp_path: Path) -> None:
    may_go = threading.Event()
    async with Database(tmp_path / "naila.db") as database:
        await database.run(insert)
        writing = asyncio.create_task(database.run(lambda _: may_go.wait(30)))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            assert await database.read(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
        assert not writing.done()
        may_go.set()
        await writing


async def test_reading_cannot_write(tmp_path: Path) -> None:
    async with Database(tmp_path / "naila.db") as database:
        with pytest.raises(StorageError, match="readonly"):
            await database.read(insert)
