"""The inbox and the journal in the real database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from naila.errors import StorageError
from naila.events import Action, Intent, Reply
from naila.fleet import Outcome, Proposal
from naila.kept import NOT_KNOWN, Begun
from naila.memory.conversation_memory import SqliteConversationMemory
from naila.memory.database import Database
from naila.memory.inbox import SqliteInbox
from naila.ports import Turn
from support.fakes import an_intent


class Watch:
    """A clock that stands still until told otherwise."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def now() -> Watch:
    return Watch()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(tmp_path / "naila.db") as opened:
        yield opened


@pytest.fixture
def inbox(database: Database, now: Watch) -> SqliteInbox:
    return SqliteInbox(database, now=now)


def a_reply(request: Intent, text: str = "done") -> Reply:
    return Reply(
        device_id=request.device_id,
        id=request.id,
        text=text,
        intent="chat",
        source="llm",
        degraded=False,
        conversation_id=request.conversation_id,
        finish_reason="stop",
    )


def a_turn(request: Intent) -> Turn:
    return Turn(
        device_id=request.device_id,
        conversation_id=request.conversation_id,
        request_id=request.id,
        user_id=None,
        user_text=request.text,
        note="",
        reply_text="done",
        intent="chat",
        source="llm",
        said_at=datetime(2026, 11, 20, 12, tzinfo=UTC),
    )


def drive(**changes: object) -> Proposal:
    proposal = Proposal(device_id="arm", name="drive", arguments={"distance": 1}, request_id="q1", speaker="r2")
    return replace(proposal, **changes)  # type: ignore[arg-type]


def an_action(action_id: str) -> Action:
    return Action(device_id="arm", id=action_id, request_id="q1", name="drive", arguments={}, expires_at="2099", seq=1)


FULL = an_intent(
    "Grüße \N{ROBOT FACE}",
    entities={"a": [1, {"b": None}]},
    user_id="ada",
    persona="naila",
    stream=True,
    max_tokens=7,
    temperature=0.5,
    expires_in_ms=1000,
    context={"battery": 0.5},
    response_topic="answers/r2",
    correlation_data=b"\x00\xff",
)


async def test_a_request_comes_back_as_it_was_with_its_age(inbox: SqliteInbox, now: Watch) -> None:
    assert (await inbox.keep(FULL)).reply is None
    now.at += timedelta(seconds=90)
    (found,) = await inbox.undone()
    assert (found.request, found.age_s, found.reply, found.begun) == (FULL, 90.0, None, None)


async def test_what_is_undone_comes_in_the_order_of_its_coming(inbox: SqliteInbox) -> None:
    for number in (3, 1, 2):
        await inbox.keep(an_intent(id=f"q{number}", device_id=f"d{number}"))
    await inbox.keep(an_intent(id="q3", device_id="d3"))
    assert [found.request.id for found in await inbox.undone()] == ["q3", "q1", "q2"]


async def test_the_same_id_of_another_device_is_another_request(inbox: SqliteInbox) -> None:
    await inbox.keep(an_intent())
    await inbox.keep(an_intent(device_id="other"))
    await inbox.done([("r2", "q1")])
    assert [found.request.device_id for found in await inbox.undone()] == ["other"]


async def test_what_was_answered_is_known_and_not_kept_again(inbox: SqliteInbox) -> None:
    await inbox.keep(an_intent())
    await inbox.answer(a_reply(an_intent(), "first"))
    await inbox.answer(a_reply(an_intent(), "second"))
    (found,) = await inbox.undone()
    assert found.reply == a_reply(an_intent(), "first")
    await inbox.done([("r2", "q1")])
    assert (await inbox.keep(an_intent())).reply == a_reply(an_intent(), "first")
    assert await inbox.undone() == ()


async def test_a_remembered_turn_is_an_answer(inbox: SqliteInbox, database: Database, now: Watch) -> None:
    await inbox.keep(an_intent())
    await SqliteConversationMemory(database, 8, now=now).remember(a_turn(an_intent()), [], a_reply(an_intent()))
    assert (await inbox.keep(an_intent())).reply == a_reply(an_intent())


async def test_an_answer_too_old_counts_for_nothing(inbox: SqliteInbox, now: Watch) -> None:
    await inbox.answer(a_reply(an_intent()))
    now.at += timedelta(days=8)
    assert (await inbox.keep(an_intent())).reply is None


async def test_the_age_of_what_waited_elsewhere_or_under_another_clock_is_not_known(
    inbox: SqliteInbox, now: Watch
) -> None:
    assert (await inbox.keep(an_intent(id="a"), is_old=True)).age_s is None
    await inbox.keep(an_intent(id="b"))
    now.at -= timedelta(hours=1)
    assert [found.age_s for found in await inbox.undone()] == [None, None]


async def test_a_stop_makes_everything_old_that_is_there_and_nothing_that_comes(inbox: SqliteInbox) -> None:
    await inbox.keep(an_intent(id="a"))
    inbox.outdate()
    await inbox.keep(an_intent(id="b"))
    assert [found.age_s for found in await inbox.undone()] == [None, 0.0]


async def test_what_was_about_to_be_sent_is_known_with_its_end_and_what_was_to_follow(inbox: SqliteInbox) -> None:
    await inbox.keep(an_intent())
    later = (drive(name="beep", arguments={}), drive(name="park", arguments={}))
    await inbox.begin(an_action("a1"), drive(later=later))
    inbox.end(Outcome(proposal=drive(), id="a1", status="done", result={"moved": 1.0}))
    await inbox.begin(an_action("a2"), replace(later[0], later=later[1:]))
    begun = Begun(
        outcomes=(
            Outcome(proposal=drive(later=later), id="a1", status="done", result={"moved": 1.0}),
            Outcome(proposal=replace(later[0], later=later[1:]), id="a2", status="unanswered", message=NOT_KNOWN),
        ),
        left=later[1:],
    )
    assert (await inbox.keep(an_intent())).begun == begun
    (found,) = await inbox.undone()
    assert found.begun == begun


async def test_an_answer_ends_the_journal_of_its_request_only(inbox: SqliteInbox) -> None:
    await inbox.begin(an_action("a1"), drive())
    await inbox.begin(an_action("a2"), drive(request_id="q2"))
    await inbox.answer(a_reply(an_intent()))
    assert (await inbox.keep(an_intent(id="q2"))).begun is not None
    assert (await inbox.keep(an_intent(id="q1"))).begun is None


async def test_whatever_is_proposed_can_be_journalled(inbox: SqliteInbox) -> None:
    await inbox.begin(an_action("a1"), drive(request_id="\ud800", speaker="\x00"))


async def test_a_forgotten_device_leaves_nothing_in_the_inbox(inbox: SqliteInbox, database: Database) -> None:
    await inbox.keep(an_intent("a secret"))
    await inbox.begin(an_action("a1"), drive())
    await SqliteConversationMemory(database, 8).forget("r2")
    assert await inbox.undone() == ()
    assert (await inbox.keep(an_intent())).begun is None


async def test_a_row_that_cannot_be_read_hides_no_other(inbox: SqliteInbox, database: Database) -> None:
    await inbox.keep(an_intent(id="a"))
    await inbox.keep(an_intent(id="b"))
    for text in ("{", "[]", '{"id":"a"}'):
        statement = f"UPDATE inbox SET request = '{text}' WHERE request_id = 'a'"  # noqa: S608 - a constant
        await database.run(partial(lambda connection, statement: connection.execute(statement), statement=statement))
        assert [found.request.id for found in await inbox.undone()] == ["b"]


async def test_a_journal_that_cannot_be_read_still_keeps_its_request_from_beginning(
    inbox: SqliteInbox, database: Database
) -> None:
    await inbox.begin(an_action("a1"), drive())
    await database.run(lambda connection: connection.execute("UPDATE journal SET proposal = '{}'"))
    assert (await inbox.keep(an_intent())).begun == Begun(outcomes=())


async def test_an_operator_sees_what_is_there_and_leaves_orders(inbox: SqliteInbox) -> None:
    for request_id in ("waits", "moves", "sent"):
        await inbox.keep(an_intent(id=request_id))
    await inbox.begin(an_action("a1"), drive(request_id="moves"))
    await inbox.answer(a_reply(an_intent(id="sent")))
    assert {line.id: line.state for line in await inbox.lines()} == {
        "waits": "waiting",
        "moves": "acting",
        "sent": "answered",
    }
    number = await inbox.order("r2", "waits", "drop")
    assert list(await inbox.orders()) == [(number, "r2", "waits", "drop")]
    await inbox.carried_out(number)
    assert list(await inbox.orders()) == []
    with pytest.raises(StorageError, match="the inbox has no request 'nothing' of 'r2'"):
        await inbox.order("r2", "nothing", "drop")


async def test_what_comes_while_the_disk_is_busy_shares_one_commit(inbox: SqliteInbox, database: Database) -> None:
    commits: list[str] = []
    await database.run(
        lambda connection: connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    )
    await asyncio.gather(*(inbox.keep(an_intent(id=f"q{number}")) for number in range(200)))
    assert len(await inbox.undone()) == 200
    assert len(commits) < 20


async def test_of_those_that_share_a_commit_one_that_fails_undoes_itself_only(database: Database) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO forgotten (session) VALUES ('half')")
        connection.execute("INSERT INTO nowhere VALUES (1)")

    def works(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO forgotten (session) VALUES ('whole')")

    results = await asyncio.gather(
        *(database.run(work, durable=True) for work in (works, fails, works)), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), StorageError, type(None)]
    rows = await database.read(lambda connection: connection.execute("SELECT session FROM forgotten").fetchall())
    assert rows == [("whole",), ("whole",)]


async def test_a_lock_held_by_another_fails_all_and_later_works(tmp_path: Path) -> None:
    async with Database(tmp_path / "naila.db", busy_timeout_s=0.05) as database:
        inbox = SqliteInbox(database)
        other = sqlite3.connect(tmp_path / "naila.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        requests = [an_intent(id=f"q{number}") for number in range(5)]
        results = await asyncio.gather(*map(inbox.keep, requests), return_exceptions=True)
        assert {type(result) for result in results} == {StorageError}
        other.execute("COMMIT")
        other.close()
        await asyncio.gather(*map(inbox.keep, requests))
        assert len(await inbox.undone()) == 5
        assert database.error is None


async def test_a_cancelled_caller_takes_nobody_along(inbox: SqliteInbox) -> None:
    tasks = [asyncio.create_task(inbox.keep(an_intent(id=f"q{number}"))) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(not isinstance(result, BaseException) for result in results[1::2])
    assert {found.request.id for found in await inbox.undone()} >= {f"q{number}" for number in range(1, 20, 2)}


async def test_the_actions_of_an_alert_are_not_kept_for_an_answer_that_never_comes(
    inbox: SqliteInbox, database: Database
) -> None:
    proposal = drive(by="alert")
    await inbox.begin(an_action("a1"), proposal)
    inbox.end(Outcome(proposal=proposal, id="a1", status="done"))
    rows = await database.run(lambda connection: connection.execute("SELECT count(*) FROM journal").fetchone())
    assert rows == (0,)
