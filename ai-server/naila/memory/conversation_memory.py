"""What was said and learned, by device.

Every statement names the device, so that no device sees another's conversation, facts or replies.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from naila.events import Reply
from naila.memory.database import Database, storable
from naila.memory.overview import DeviceMemory, Forgotten, PersonalFact, RememberedDevice
from naila.memory.stored_reply import dump_reply, keep_reply, reply_to
from naila.ports import Fact, Recollection, Turn

_log = logging.getLogger(__name__)

_TURN: Final = "device_id, conversation_id, request_id, user_id, user_text, note, reply_text, intent, source, said_at"


class SqliteConversationMemory:
    """`naila.ports.ConversationMemory` in SQLite.

    Args:
        database: an open database.
        max_turns: most turns of a conversation that `recall` returns.
        max_replies: replies kept for each device, for requests that are repeated.
        max_reply_age: a reply older than this is not kept, and its request's id is free again.
        max_turn_age: how long turns are kept.
        on_answered: told by device and id of each request whose reply was kept.
        now: the time.
    """

    def __init__(
        self,
        database: Database,
        max_turns: int,
        *,
        max_replies: int = 1000,
        max_reply_age: timedelta = timedelta(days=7),
        max_turn_age: timedelta = timedelta(days=90),
        on_answered: Callable[[str, str], None] = lambda _device_id, _request_id: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database: Final = database
        self._max_turns: Final = max_turns
        self._max_replies: Final = max_replies
        self._max_reply_age: Final = max_reply_age
        self._max_turn_age: Final = max_turn_age
        self._on_answered: Final = on_answered
        self._now: Final = now

    async def recall(self, device_id: str, conversation_id: str, user_id: str | None) -> Recollection:
        """Return the conversation's last turns, oldest first, and what is known of the person.

        Raises:
            StorageError: the database cannot be read.
        """
        device, conversation, user = storable(device_id), storable(conversation_id), _person(user_id)

        def work(connection: sqlite3.Connection) -> Recollection:
            total = _next_position(connection, device, conversation)
            turns = connection.execute(
                f"SELECT {_TURN} FROM turns WHERE device_id = ? AND conversation_id = ? AND position >= ? "  # noqa: S608 - a constant
                "ORDER BY position",
                (device, conversation, window_start(total, self._max_turns)),
            )
            facts = connection.execute(
                "SELECT key, value FROM facts WHERE device_id = ? AND user_id IS ? ORDER BY id", (device, user)
            )
            return Recollection(tuple(_turn(row) for row in turns), tuple(Fact(*row) for row in facts))

        return await self._database.read(work)

    async def remember(self, turn: Turn, facts: Sequence[Fact], reply: Reply) -> None:
        """Keep a turn, its facts and its reply, all or nothing; a request that was kept before changes nothing.

        Raises:
            StorageError: the database cannot be written.
        """
        device, conversation = storable(turn.device_id), storable(turn.conversation_id)
        request, user = storable(turn.request_id), _person(turn.user_id)
        words = [storable(part) for part in (turn.user_text, turn.note, turn.reply_text, turn.intent, turn.source)]
        said_at = turn.said_at.astimezone(UTC).isoformat()
        document = dump_reply(reply)
        now = self._now()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM replies WHERE answered_at < ?", (self._oldest(now),))
            if not keep_reply(connection, (device, conversation, request), document, now.timestamp()):
                return
            connection.execute(
                "DELETE FROM replies WHERE device_id = ?1 AND id <= "
                "(SELECT id FROM replies WHERE device_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                (device, self._max_replies),
            )
            position = _next_position(connection, device, conversation)
            connection.execute(
                f"INSERT INTO turns (position, {_TURN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
                (position, device, conversation, request, user, *words, said_at),
            )
            for fact in facts:
                _keep(connection, device, user, fact)

        await self._database.run(work)
        self._on_answered(reply.device_id, reply.id)

    async def answered(self, device_id: str, request_id: str) -> Reply | None:
        """Return the reply that this request was given before, if it was and is still kept.

        Raises:
            StorageError: the database cannot be read.
        """
        key, oldest = (storable(device_id), storable(request_id)), self._oldest(self._now())
        return await self._database.read(lambda connection: reply_to(connection, key, oldest))

    async def devices(self) -> tuple[RememberedDevice, ...]:
        """List the devices of which anything is remembered, by name.

        Raises:
            StorageError: the database cannot be read.
        """

        def work(connection: sqlite3.Connection) -> tuple[RememberedDevice, ...]:
            rows = connection.execute("""
                SELECT device_id, count(DISTINCT conversation_id), count(conversation_id), sum(fact), max(said_at)
                FROM (SELECT device_id, conversation_id, 0 AS fact, said_at FROM turns
                      UNION ALL SELECT device_id, NULL, 1, NULL FROM facts)
                GROUP BY device_id ORDER BY device_id
            """)
            return tuple(
                RememberedDevice(
                    device_id=device,
                    conversations=conversations,
                    turns=turns,
                    facts=facts,
                    last_said_at=None if last is None else datetime.fromisoformat(last),
                )
                for device, conversations, turns, facts, last in rows
            )

        return await self._database.read(work)

    async def show(self, device_id: str, *, last: int | None = None) -> DeviceMemory:
        """Return what is remembered of a device: its last turns (all where `last` is None) and its facts.

        Raises:
            StorageError: the database cannot be read.
        """
        device = storable(device_id)

        def work(connection: sqlite3.Connection) -> DeviceMemory:
            turns = connection.execute(
                f"SELECT {_TURN} FROM turns WHERE device_id = ? ORDER BY id DESC LIMIT ?",  # noqa: S608 - a constant
                (device, -1 if last is None else max(0, last)),
            ).fetchall()
            facts = connection.execute(
                "SELECT user_id, key, value FROM facts WHERE device_id = ? ORDER BY user_id, id", (device,)
            )
            return DeviceMemory(
                device_id=device_id,
                turns=tuple(_turn(row) for row in reversed(turns)),
                facts=tuple(PersonalFact(user_id=user, fact=Fact(key, value)) for user, key, value in facts),
            )

        return await self._database.read(work)

    async def forget(self, device_id: str, conversation_id: str | None = None) -> Forgotten:
        """Remove a device's turns, facts and replies for good, or one conversation's turns and replies.

        Facts belong to a person, not to a conversation, and go only with the device. No byte of what was removed
        stays in the file; the file is written anew for that, which takes a moment with a large one.

        Raises:
            StorageError: the database cannot be written, or traces could not be removed yet.
        """
        device = storable(device_id)
        conversation = None if conversation_id is None else storable(conversation_id)

        def work(connection: sqlite3.Connection) -> Forgotten:
            chosen = "WHERE device_id = ?1 AND (?2 IS NULL OR conversation_id = ?2)"
            key = (device, conversation)
            connection.execute("INSERT INTO forgotten (session) VALUES (?)", (f"{device}/{conversation or ''}",))
            connection.execute("DELETE FROM journal WHERE device_id = ?1 AND ?2 IS NULL", key)
            # What waits is forgotten with the device; of a conversation it is still to be answered.
            connection.execute("DELETE FROM inbox WHERE device_id = ?1 AND ?2 IS NULL", key)
            return Forgotten(
                turns=connection.execute(f"DELETE FROM turns {chosen}", key).rowcount,  # noqa: S608 - a constant
                replies=connection.execute(f"DELETE FROM replies {chosen}", key).rowcount,  # noqa: S608 - a constant
                facts=connection.execute("DELETE FROM facts WHERE device_id = ?1 AND ?2 IS NULL", key).rowcount,
            )

        forgotten = await self._database.run(work)
        await self._database.purge()
        return forgotten

    async def prune(self) -> int:
        """Forget turns that are older than they are kept, and return how many that were.

        Raises:
            StorageError: the database cannot be written.
        """
        oldest = (self._now() - self._max_turn_age).astimezone(UTC).isoformat()
        return await self._database.run(
            lambda connection: connection.execute("DELETE FROM turns WHERE said_at < ?", (oldest,)).rowcount
        )

    async def forgotten(self) -> tuple[tuple[int, str], ...]:
        """Return what was forgotten and may have left traces elsewhere: number and session.

        A session is `device/conversation`, or `device/` for all of a device's.

        Raises:
            StorageError: the database cannot be read.
        """
        rows = await self._database.read(
            lambda connection: connection.execute("SELECT id, session FROM forgotten ORDER BY id").fetchall()
        )
        return tuple((int(number), str(session)) for number, session in rows)

    async def traces_gone(self, number: int) -> None:
        """Note that nothing of a forgotten session is left up to this number.

        Raises:
            StorageError: the database cannot be written.
        """
        await self._database.run(
            lambda connection: connection.execute("DELETE FROM forgotten WHERE id <= ?", (number,))
        )

    def _oldest(self, now: datetime) -> float:
        return (now - self._max_reply_age).timestamp()


def window_start(total: int, max_turns: int) -> int:
    """Return the position of the first turn to recall, of `total`.

    A window that slid by one turn at every turn would change the prompt right after its fixed part, and the model
    would have to read the whole conversation again each time: minutes on a small computer. So the window drops a
    quarter at once and then only grows at its end for a while, and nearly every turn finds its prefix in the KV cache.
    """
    excess = total - max_turns
    if excess <= 0:
        return 0
    step = max(1, max_turns // 4)
    return -(-excess // step) * step


def _next_position(connection: sqlite3.Connection, device: str, conversation: str) -> int:
    (position,) = connection.execute(
        "SELECT coalesce(max(position) + 1, 0) FROM turns WHERE device_id = ? AND conversation_id = ?",
        (device, conversation),
    ).fetchone()
    return int(position)


def _keep(connection: sqlite3.Connection, device: str, user: str | None, fact: Fact) -> None:
    """Replace a fact where it stands, so that what is known of a person keeps its order."""
    key, value = storable(fact.key), storable(fact.value)
    replaced = connection.execute(
        "UPDATE facts SET value = ? WHERE device_id = ? AND user_id IS ? AND key = ?", (value, device, user, key)
    )
    if not replaced.rowcount:
        connection.execute(
            "INSERT INTO facts (device_id, user_id, key, value) VALUES (?, ?, ?, ?)", (device, user, key, value)
        )


def _turn(row: Sequence[Any]) -> Turn:
    device, conversation, request, user, user_text, note, reply_text, intent, source, said_at = row
    return Turn(
        device_id=device,
        conversation_id=conversation,
        request_id=request,
        user_id=user,
        user_text=user_text,
        note=note,
        reply_text=reply_text,
        intent=intent,
        source=source,
        said_at=datetime.fromisoformat(said_at),
    )


def _person(user_id: str | None) -> str | None:
    return None if user_id is None else storable(user_id)
