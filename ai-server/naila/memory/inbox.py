"""Requests from their receipt until the broker has their answer, and the actions of those that are not answered.

A request that has a reply waits for the broker only: the inbox is the outbox, too. One that has actions and no reply
was being carried out: it is never carried out again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from naila.errors import StorageError
from naila.events import Action, Intent, Reply
from naila.fleet import Outcome, Proposal
from naila.kept import (
    NOT_KNOWN,
    Begun,
    KeptRequest,
    from_json,
    outcome_fields,
    outcome_from,
    proposal_fields,
    proposal_from,
    request_fields,
    request_from,
    to_json,
)
from naila.memory.database import Database, storable
from naila.memory.stored_reply import dump_reply, keep_reply, reply_to

_log = logging.getLogger(__name__)

_MAX_ANSWERED: Final = 1024

State = Literal["waiting", "acting", "answered"]
Wanted = Literal["drop", "retry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxLine:
    """A request in the inbox, as an operator sees it.

    Attributes:
        device_id: whose.
        id: which.
        received_at: when it came.
        state: `waiting` for its turn or in it; `acting`: it has moved something; `answered`: the broker does not have
            its reply yet.
        text: what was said.
    """

    device_id: str
    id: str
    received_at: datetime
    state: State
    text: str


class SqliteInbox:
    """`naila.ports.Inbox` and `naila.ports.Journal` in SQLite.

    Args:
        database: an open database.
        max_reply_age: a reply older than this counts for nothing, nor do actions of a request that was never answered.
        now: the time.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_reply_age: timedelta = timedelta(days=7),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database: Final = database
        self._max_reply_age: Final = max_reply_age
        self._now: Final = now
        self._answered: Final[OrderedDict[tuple[str, str], None]] = OrderedDict()

    def note_answered(self, device_id: str, request_id: str) -> None:
        """Learn that an answer was kept with its turn, which saves a look."""
        self._answered[device_id, request_id] = None
        if len(self._answered) > _MAX_ANSWERED:
            self._answered.popitem(last=False)

    async def keep(self, request: Intent, *, is_old: bool = False) -> KeptRequest:
        """Keep a request, and return what is known of its id; one that was answered is not kept. Durable on return.

        Raises:
            StorageError: the database cannot be written.
        """
        key, text = (request.device_id, request.id), to_json(request_fields(request))
        now, oldest = self._now().timestamp(), self._oldest()

        def work(connection: sqlite3.Connection) -> KeptRequest:
            reply = reply_to(connection, key, oldest)
            if reply is None:
                connection.execute(
                    "INSERT INTO inbox (device_id, request_id, request, received_at, is_old) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT DO NOTHING",
                    (*key, text, now, is_old),
                )
            begun = None if reply is not None else _begun(connection, key, oldest)
            return KeptRequest(request=request, age_s=None if is_old else 0.0, reply=reply, begun=begun)

        return await self._database.run(work, durable=True)

    async def undone(self) -> Sequence[KeptRequest]:
        """Return what was kept and is not done, in the order of its coming. What cannot be read is left out.

        Raises:
            StorageError: the database cannot be read.
        """
        now, oldest = self._now().timestamp(), self._oldest()

        def work(connection: sqlite3.Connection) -> Sequence[KeptRequest]:
            rows = connection.execute("SELECT request, received_at, is_old FROM inbox ORDER BY number").fetchall()
            return tuple(
                KeptRequest(
                    request=request,
                    # A clock that was set back tells nothing.
                    age_s=None if is_old or now < received_at else now - received_at,
                    reply=reply_to(connection, (request.device_id, request.id), oldest),
                    begun=_begun(connection, (request.device_id, request.id), oldest),
                )
                for text, received_at, is_old in rows
                if (request := _request(text)) is not None
            )

        return await self._database.read(work)

    async def answer(self, reply: Reply) -> None:
        """Keep the answer to a request; one that was kept before stays.

        Raises:
            StorageError: the database cannot be written.
        """
        if (reply.device_id, reply.id) in self._answered:
            return
        key, document = (reply.device_id, reply.conversation_id, reply.id), dump_reply(reply)
        now = self._now().timestamp()
        await self._database.run(lambda connection: keep_reply(connection, key, document, now))

    async def done(self, requests: Sequence[tuple[str, str]]) -> None:
        """Forget requests: the broker has their answers. A power cut may undo this: then they are sent once more.

        Raises:
            StorageError: the database cannot be written.
        """

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM inbox WHERE device_id = ? AND request_id = ?", requests)

        await self._database.run(work)

    def outdate(self) -> None:
        """Take every request that is kept now for old: an emergency stop came after it. Never waits, nor raises."""
        self._database.post(lambda connection: connection.execute("UPDATE inbox SET is_old = 1"))

    async def begin(self, action: Action, proposal: Proposal) -> None:
        """Note that an action is about to be sent. Durable on return.

        Raises:
            StorageError: the database cannot be written: the action must not be sent.
        """
        key = (storable(proposal.speaker), storable(proposal.request_id))
        document = proposal_fields(proposal) | {"later": [proposal_fields(each) for each in proposal.later]}
        row = (*key, action.id, to_json(document), self._now().timestamp())
        oldest = self._oldest()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM journal WHERE sent_at < ?", (oldest,))
            connection.execute(
                "INSERT INTO journal (device_id, request_id, action_id, proposal, sent_at) VALUES (?, ?, ?, ?, ?)", row
            )

        await self._database.run(work, durable=True)

    def end(self, outcome: Outcome) -> None:
        """Note what became of an action, soon. Never waits, nor raises."""
        if outcome.proposal.by == "alert":  # no answer will ever take it along
            self._database.post(
                lambda connection: connection.execute("DELETE FROM journal WHERE action_id = ?", (outcome.id,))
            )
            return
        row = (to_json(outcome_fields(outcome)), outcome.id)
        self._database.post(
            lambda connection: connection.execute("UPDATE journal SET outcome = ? WHERE action_id = ?", row)
        )

    async def orders(self) -> Sequence[tuple[int, str, str, str]]:
        """Return what an operator wants done: number, device, id, and `drop` or `retry`.

        Raises:
            StorageError: the database cannot be read.
        """
        return await self._database.read(
            lambda connection: connection.execute(
                "SELECT number, device_id, request_id, wanted FROM inbox_orders ORDER BY number"
            ).fetchall()
        )

    async def carried_out(self, number: int) -> None:
        """Forget the orders up to this number.

        Raises:
            StorageError: the database cannot be written.
        """
        await self._database.run(
            lambda connection: connection.execute("DELETE FROM inbox_orders WHERE number <= ?", (number,))
        )

    async def order(self, device_id: str, request_id: str, wanted: Wanted) -> int:
        """Ask the daemon to drop a request, or to send its answer again; return the order's number.

        Raises:
            StorageError: the database cannot be written, or there is no such request.
        """

        def work(connection: sqlite3.Connection) -> int:
            key = (device_id, request_id)
            if not connection.execute("SELECT 1 FROM inbox WHERE device_id = ? AND request_id = ?", key).fetchone():
                raise StorageError(f"the inbox has no request {request_id!r} of {device_id!r}: see `naila inbox list`")
            placed = connection.execute(
                "INSERT INTO inbox_orders (device_id, request_id, wanted) VALUES (?, ?, ?)", (*key, wanted)
            )
            return int(placed.lastrowid or 0)

        return await self._database.run(work)

    async def lines(self) -> Sequence[InboxLine]:
        """Return the inbox as an operator sees it, oldest first.

        Raises:
            StorageError: the database cannot be read.
        """
        rows = await self._database.read(
            lambda connection: connection.execute("""
                SELECT request, received_at,
                       EXISTS (SELECT 1 FROM replies WHERE replies.device_id = inbox.device_id
                               AND replies.request_id = inbox.request_id),
                       EXISTS (SELECT 1 FROM journal WHERE journal.device_id = inbox.device_id
                               AND journal.request_id = inbox.request_id)
                FROM inbox ORDER BY number
            """).fetchall()
        )
        return tuple(
            InboxLine(
                device_id=request.device_id,
                id=request.id,
                received_at=datetime.fromtimestamp(received_at, UTC),
                state="answered" if answered else "acting" if acting else "waiting",
                text=request.text,
            )
            for text, received_at, answered, acting in rows
            if (request := _request(text)) is not None
        )

    def _oldest(self) -> float:
        return (self._now() - self._max_reply_age).timestamp()


def _request(text: str) -> Intent | None:
    try:
        return request_from(from_json(text))
    except ValueError as exc:
        _log.warning("a request in the inbox cannot be read: %s", exc)
        return None


def _begun(connection: sqlite3.Connection, key: tuple[str, str], oldest: float) -> Begun | None:
    rows = connection.execute(
        "SELECT action_id, proposal, outcome FROM journal WHERE device_id = ? AND request_id = ? AND sent_at >= ? "
        "ORDER BY number",
        (*key, oldest),
    ).fetchall()
    if not rows:
        return None
    try:
        actions = [(action_id, proposal_from(from_json(proposal)), outcome) for action_id, proposal, outcome in rows]
        outcomes = tuple(
            Outcome(proposal=proposal, id=action_id, status="unanswered", message=NOT_KNOWN)
            if outcome is None
            else outcome_from(from_json(outcome), proposal)
            for action_id, proposal, outcome in actions
        )
    except ValueError as exc:
        _log.warning("the actions of %s of %s cannot be read: %s", key[1], key[0], exc)
        return Begun(outcomes=())
    return Begun(outcomes=outcomes, left=actions[-1][1].later)
