"""The database's tables, as numbered steps that are recorded in the database.

A step that has been released is never changed: what follows is a new step at the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from naila.errors import StorageError

Migration: TypeAlias = Callable[[sqlite3.Connection], None]


def conversations(connection: sqlite3.Connection) -> None:
    """Turns by conversation, facts by person, and the replies that were given."""
    # `position` counts from 0 in each conversation: the window that recall returns is cut by it.
    connection.execute("""
        CREATE TABLE turns (
            id INTEGER PRIMARY KEY,
            device_id TEXT NOT NULL,
            conversation_id TEXT NOT NULL,
            position INTEGER NOT NULL,
            request_id TEXT NOT NULL,
            user_id TEXT,
            user_text TEXT NOT NULL,
            note TEXT NOT NULL,
            reply_text TEXT NOT NULL,
            intent TEXT NOT NULL,
            source TEXT NOT NULL,
            said_at TEXT NOT NULL
        ) STRICT
    """)
    connection.execute("CREATE UNIQUE INDEX turns_in_order ON turns (device_id, conversation_id, position)")
    # The person is NULL where the device did not say who spoke; uniqueness is kept by the one statement that writes.
    connection.execute("""
        CREATE TABLE facts (
            id INTEGER PRIMARY KEY,
            device_id TEXT NOT NULL,
            user_id TEXT,
            key TEXT NOT NULL,
            value TEXT NOT NULL
        ) STRICT
    """)
    connection.execute("CREATE INDEX facts_of_person ON facts (device_id, user_id, key)")
    connection.execute("""
        CREATE TABLE replies (
            id INTEGER PRIMARY KEY,
            device_id TEXT NOT NULL,
            conversation_id TEXT NOT NULL,
            request_id TEXT NOT NULL,
            reply TEXT NOT NULL,
            answered_at REAL NOT NULL
        ) STRICT
    """)
    connection.execute("CREATE UNIQUE INDEX replies_by_request ON replies (device_id, request_id)")
    connection.execute("CREATE INDEX replies_by_device ON replies (device_id, id)")
    connection.execute("CREATE INDEX replies_by_age ON replies (answered_at)")


def forgotten(connection: sqlite3.Connection) -> None:
    """What was forgotten, until whoever holds traces of it elsewhere (the engine's KV) has dropped them."""
    connection.execute("CREATE TABLE forgotten (id INTEGER PRIMARY KEY, session TEXT NOT NULL) STRICT")


def devices(connection: sqlite3.Connection) -> None:
    """What devices declared, and when each was last heard."""
    connection.execute("""
        CREATE TABLE devices (
            device_id TEXT PRIMARY KEY,
            document TEXT NOT NULL,
            declared_at TEXT NOT NULL
        ) STRICT
    """)
    connection.execute("""
        CREATE TABLE sightings (
            device_id TEXT PRIMARY KEY,
            online INTEGER,
            heard_at TEXT NOT NULL
        ) STRICT
    """)
    connection.execute("CREATE INDEX sightings_by_age ON sightings (heard_at)")


def pending_actions(connection: sqlite3.Connection) -> None:
    """Actions that wait for a person; a settled one leaves its id, so that it is never used again."""
    connection.execute("""
        CREATE TABLE pending_actions (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            pending TEXT,
            expires_at TEXT NOT NULL
        ) STRICT
    """)


def begun_requests(connection: sqlite3.Connection) -> None:
    """Requests that have begun to move something and are not answered: never begun again, whatever happens."""
    connection.execute("""
        CREATE TABLE begun_requests (
            device_id TEXT NOT NULL,
            request_id TEXT NOT NULL,
            begun_at REAL NOT NULL,
            PRIMARY KEY (device_id, request_id)
        ) STRICT, WITHOUT ROWID
    """)


def inbox(connection: sqlite3.Connection) -> None:
    """Requests that are not done, the actions of those that are not answered, and what an operator wants of them."""
    connection.execute("""
        CREATE TABLE inbox (
            number INTEGER PRIMARY KEY,
            device_id TEXT NOT NULL,
            request_id TEXT NOT NULL,
            request TEXT NOT NULL,
            received_at REAL NOT NULL,
            is_old INTEGER NOT NULL
        ) STRICT
    """)
    connection.execute("CREATE UNIQUE INDEX inbox_by_request ON inbox (device_id, request_id)")
    connection.execute("""
        CREATE TABLE journal (
            number INTEGER PRIMARY KEY,
            device_id TEXT NOT NULL,
            request_id TEXT NOT NULL,
            action_id TEXT NOT NULL UNIQUE,
            proposal TEXT NOT NULL,
            sent_at REAL NOT NULL,
            outcome TEXT
        ) STRICT
    """)
    connection.execute("CREATE INDEX journal_by_request ON journal (device_id, request_id, number)")
    connection.execute("""
        CREATE TABLE inbox_orders (
            number INTEGER PRIMARY KEY,
            device_id TEXT NOT NULL,
            request_id TEXT NOT NULL,
            wanted TEXT NOT NULL
        ) STRICT
    """)
    connection.execute("CREATE INDEX turns_by_age ON turns (said_at)")
    connection.execute("DROP TABLE begun_requests")


MIGRATIONS: tuple[Migration, ...] = (conversations, forgotten, devices, pending_actions, begun_requests, inbox)


def migrate(connection: sqlite3.Connection, steps: Sequence[Migration] = MIGRATIONS) -> None:
    """Apply the steps that the database has not seen, each in a transaction with its record.

    Args:
        connection: in autocommit mode.
        steps: all of them, oldest first.

    Raises:
        StorageError: the database was written by a newer NAILA, or is another program's.
    """
    number = 0
    while number < len(steps):
        # The lock comes before the look: another process may be migrating the same file at this moment.
        connection.execute("BEGIN IMMEDIATE")
        try:
            number = _applied(connection, len(steps))
            if number < len(steps):
                steps[number](connection)
                number += 1
                connection.execute(
                    "INSERT INTO migrations (number, name, applied_at) VALUES (?, ?, ?)",
                    (number, steps[number - 1].__name__, datetime.now(UTC).isoformat(timespec="seconds")),
                )
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise


def _applied(connection: sqlite3.Connection, known: int) -> int:
    """Return how many steps the database has seen, having made sure that it is ours."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if tables and "migrations" not in tables:
        raise StorageError(f"it is another program's database (its tables: {', '.join(sorted(tables)[:5])})")
    connection.execute("""
        CREATE TABLE IF NOT EXISTS migrations (
            number INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            applied_at TEXT NOT NULL
        ) STRICT
    """)
    (applied,) = connection.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchone()
    if applied > known:
        raise StorageError(f"it was written by a newer NAILA (it has step {applied}, this NAILA knows {known})")
    return int(applied)
