from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.errors import StorageError
from naila.events import Intent
from naila.fleet import Outcome, OutcomeStatus, Proposal
from naila.memory.checkpoints import Checkpoints
from naila.orchestration.kept_wish import read_wish, write_wish
from naila.orchestration.wanted import Wish
from naila.orchestration.wish import (
    Answer,
    Performer,
    SuspendedWishes,
    carry_out,
    interrupted,
    not_approved,
)
from naila.ports import Cancellation
from naila.understanding.reading import Doubtful
from support.fakes import FakeFleet, an_intent


def step(name: str, **changes: object) -> Proposal:
    proposal = Proposal(device_id="r2", name=name, request_id="q1", speaker="r2")
    return replace(proposal, **changes)  # type: ignore[arg-type]


def a_wish(*names: str, **changes: object) -> Wish:
    wish = Wish(request=an_intent("do it"), left=tuple(map(step, names)))
    return replace(wish, **changes)  # type: ignore[arg-type]


async def nothing_more(_wish: Wish) -> tuple[Proposal, ...]:
    return ()


def performer(fleet: FakeFleet, **changes: object) -> Performer:
    made = Performer(
        fleet=fleet,
        cancellation=Cancellation(),
        stopped=lambda _: False,
        expires_at_monotonic=None,
        more=nothing_more,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class Room:
    """Suspended wishes in a real file, and a process that can die."""

    path: Path
    fleet: FakeFleet = field(default_factory=FakeFleet)

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[SuspendedWishes]:
        async with Checkpoints(self.path) as checkpoints:
            yield SuspendedWishes(checkpoints, checkpoints.threads)

    async def begin(self, *names: str) -> Wish:
        return await carry_out(a_wish(*names), performer(self.fleet))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "state" / "waiting.db", FakeFleet(script=["pending"]))


def statuses(wish: Wish) -> list[str]:
    return [outcome.status for outcome in wish.outcomes]


async def test_steps_are_taken_one_after_another() -> None:
    fleet = FakeFleet()
    wish = await carry_out(a_wish("a", "b", "c"), performer(fleet))
    assert [proposal.name for proposal in fleet.proposed] == ["a", "b", "c"]
    assert (wish.is_over, wish.left, statuses(wish)) == (True, (), ["done"] * 3)


@pytest.mark.parametrize("status", ["failed", "refused", "unanswered", "stopped"])
async def test_what_is_not_done_ends_the_wish(status: OutcomeStatus) -> None:
    wish = await carry_out(a_wish("a", "b"), performer(FakeFleet(script=[status])))
    assert (wish.is_over, statuses(wish), [proposal.name for proposal in wish.left]) == (True, [status], ["b"])


async def test_every_step_is_wanted_no_longer_than_the_request() -> None:
    fleet = FakeFleet()
    await carry_out(a_wish("a"), performer(fleet, expires_at_monotonic=7.0))
    assert fleet.proposed[0].expires_at_monotonic == 7.0


async def test_a_stop_ends_the_wish_before_its_next_step() -> None:
    fleet = FakeFleet()
    wish = await carry_out(a_wish("a"), performer(fleet, stopped=lambda device_id: device_id == "r2"))
    assert (fleet.proposed, statuses(wish)) == ([], ["stopped"])


async def test_a_model_is_asked_for_more_as_often_as_the_words_allow() -> None:
    seen: list[int] = []

    async def more(wish: Wish) -> tuple[Proposal, ...]:
        seen.append(len(wish.outcomes))
        return (step("more"),)

    fleet = FakeFleet()
    wish = await carry_out(a_wish("a", doubtful=Doubtful(clauses=3)), performer(fleet, more=more))
    assert (seen, len(wish.outcomes), wish.is_over) == ([1, 2], 3, True)


async def test_a_model_that_wants_no_more_ends_the_wish() -> None:
    wish = await carry_out(a_wish("a", doubtful=Doubtful(clauses=3)), performer(FakeFleet()))
    assert (len(wish.outcomes), wish.is_over) == (1, True)


async def test_a_model_is_not_asked_after_a_failure() -> None:
    async def more(_wish: Wish) -> tuple[Proposal, ...]:
        raise AssertionError

    wish = await carry_out(
        a_wish("a", doubtful=Doubtful(clauses=3)), performer(FakeFleet(script=["failed"]), more=more)
    )
    assert statuses(wish) == ["failed"]


async def test_an_approved_step_is_proposed_again_with_its_approval(room: Room) -> None:
    wish = await room.begin("a", "b")
    async with room.alive() as suspended:
        await suspended.suspend(wish)
        wish = await suspended.resume(wish.request, "approved", performer(room.fleet))
    assert [(proposal.name, proposal.confirmation) for proposal in room.fleet.proposed] == [
        ("a", None),
        ("a", "a1"),
        ("b", None),
    ]
    assert (statuses(wish), wish.is_over) == (["done", "done"], True)


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ("denied", "refused", "not_confirmed"),
        ("expired", "refused", "not_confirmed"),
        ("cancelled", "refused", "not_confirmed"),
        ("lost", "refused", "not_confirmed"),
        ("stopped", "stopped", None),
    ],
)
async def test_what_is_not_approved_is_not_done(room: Room, answer: Answer, status: str, code: str | None) -> None:
    wish = await room.begin("a", "b")
    async with room.alive() as suspended:
        await suspended.suspend(wish)
        wish = await suspended.resume(wish.request, answer, performer(room.fleet))
    assert len(room.fleet.proposed) == 1
    assert (wish.outcomes[0].status, wish.outcomes[0].code) == (status, code)
    assert (wish.is_over, [proposal.name for proposal in wish.left]) == (True, ["b"])


async def test_two_steps_may_need_approval(room: Room) -> None:
    wish = await room.begin("a", "b")
    room.fleet.script = ["done", "pending"]
    async with room.alive() as suspended:
        await suspended.suspend(wish)
        wish = await suspended.resume(wish.request, "approved", performer(room.fleet))
        assert wish.pending is not None
        wish = await suspended.resume(wish.request, "approved", performer(room.fleet))
    assert statuses(wish) == ["done", "done"]
    assert [proposal.confirmation for proposal in room.fleet.proposed] == [None, "a1", None, "a3"]


async def test_a_wish_waits_across_a_restart(room: Room) -> None:
    wish = await room.begin("a", "b")
    async with room.alive() as suspended:
        await suspended.suspend(wish)
    async with room.alive() as suspended:
        assert [found async for found in suspended.found()] == [(wish, True)]
        wish = await suspended.resume(wish.request, "approved", performer(room.fleet))
        assert statuses(wish) == ["done", "done"]


async def test_a_restart_in_the_middle_of_a_step_knows_which_step(room: Room) -> None:
    wish = await room.begin("a", "b", "c")
    room.fleet.hold = frozenset({"b"})
    async with room.alive() as suspended:
        await suspended.suspend(wish)
        going_on = asyncio.ensure_future(suspended.resume(wish.request, "approved", performer(room.fleet)))
        await room.fleet.holding.wait()
        going_on.cancel()
        await asyncio.wait({going_on})
    async with room.alive() as suspended:
        ((wish, waits),) = [found async for found in suspended.found()]
    assert not waits
    wish = interrupted(wish)
    assert statuses(wish) == ["done", "unanswered"]
    assert (wish.outcomes[1].proposal.name, [proposal.name for proposal in wish.left]) == ("b", ["c"])


async def test_a_restart_in_the_middle_of_the_approved_step_does_not_know(room: Room) -> None:
    wish = await room.begin("a", "b")
    room.fleet.hold = frozenset({"a"})
    async with room.alive() as suspended:
        await suspended.suspend(wish)
        going_on = asyncio.ensure_future(suspended.resume(wish.request, "approved", performer(room.fleet)))
        await room.fleet.holding.wait()
        going_on.cancel()
        await asyncio.wait({going_on})
    async with room.alive() as suspended:
        ((wish, waits),) = [found async for found in suspended.found()]
    wish = interrupted(wish)
    assert (waits, statuses(wish), wish.left[0].name) == (False, ["unanswered"], "b")


async def test_an_ended_wish_leaves_nothing(room: Room) -> None:
    wish = await room.begin("a")
    async with room.alive() as suspended:
        await suspended.suspend(wish)
        await suspended.end(wish.request)
        assert [found async for found in suspended.found()] == []


def spoilt(column: str, table: str, spoil: Callable[[bytes], bytes]) -> Callable[[sqlite3.Connection], None]:
    def work(connection: sqlite3.Connection) -> None:
        rows = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE thread_id = 'r2/q1'").fetchall()  # noqa: S608 - constants
        assert rows
        for row, value in rows:
            data = spoil(value.encode() if isinstance(value, str) else value)
            stored = data if isinstance(value, bytes) else data.decode("latin-1")
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (stored, row))  # noqa: S608 - constants

    return work


@pytest.mark.parametrize(
    "damage",
    [
        spoilt("checkpoint", "checkpoints", lambda data: data[:-20]),
        spoilt("checkpoint", "checkpoints", lambda data: data.replace(b'"left"', b'"lift"')),
        spoilt("metadata", "checkpoints", lambda _: b"{"),
        spoilt("type", "checkpoints", lambda _: b"pickle of another age"),
        spoilt("value", "writes", lambda _: b"\xc1"),
    ],
    ids=["cut", "another version", "metadata", "type", "writes"],
)
async def test_a_wish_that_cannot_be_read_is_left_out_alone(
    room: Room, damage: Callable[[sqlite3.Connection], None], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await room.begin("a"), await room.begin("b")
    second = replace(second, request=an_intent("do it", id="q2"))
    async with room.alive() as suspended:
        await suspended.suspend(first)
        await suspended.suspend(second)
    with sqlite3.connect(room.path) as connection:
        damage(connection)
    connection.close()
    async with room.alive() as suspended:
        assert [wish async for wish, _ in suspended.found()] == [second]
        assert "r2/q1" in caplog.text
        # Its request may be asked again.
        await suspended.suspend(first)
        assert [wish async for wish, _ in suspended.found()] == [first, second]


async def test_wishes_that_cannot_be_read_at_all_are_a_storage_error(room: Room) -> None:
    async with room.alive() as suspended:
        pass
    with pytest.raises(StorageError):
        assert [found async for found in suspended.found()]


async def test_the_file_is_its_owners_only(room: Room) -> None:
    async with room.alive():
        assert room.path.stat().st_mode & 0o777 == 0o600


async def test_a_damaged_file_is_moved_aside(room: Room) -> None:
    room.path.parent.mkdir()
    room.path.write_bytes(b"this is no database" * 100)
    wish = await room.begin("a")
    async with room.alive() as suspended:
        await suspended.suspend(wish)
    assert len(list(room.path.parent.glob("*.corrupt-*"))) == 1


async def test_a_file_that_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "waiting.db").mkdir()
    with pytest.raises(StorageError):
        async with Checkpoints(tmp_path / "waiting.db"):
            pass


async def test_a_closed_file_is_a_storage_error(room: Room) -> None:
    wish = await room.begin("a")
    async with room.alive() as suspended:
        pass
    with pytest.raises(StorageError):
        await suspended.suspend(wish)


TEXT = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
PROPOSALS = st.builds(
    Proposal,
    device_id=TEXT,
    name=TEXT,
    arguments=st.dictionaries(TEXT, VALUES, max_size=3),
    request_id=TEXT,
    speaker=TEXT,
    user_id=st.none() | TEXT,
    confirmation=st.none() | TEXT,
    expires_at_monotonic=st.none(),
)
OUTCOMES = st.builds(Outcome, proposal=PROPOSALS, id=TEXT, message=TEXT, result=VALUES, question=TEXT)
WISHES = st.builds(
    Wish,
    request=st.builds(
        Intent,
        device_id=TEXT,
        id=TEXT,
        text=TEXT,
        entities=st.dictionaries(TEXT, VALUES, max_size=3),
        context=st.dictionaries(TEXT, VALUES, max_size=3),
        correlation_data=st.none() | st.binary(max_size=9),
    ),
    left=st.lists(PROPOSALS, max_size=3).map(tuple),
    outcomes=st.lists(OUTCOMES, max_size=3).map(tuple),
    pending=st.none() | OUTCOMES,
    doubtful=st.none()
    | st.builds(
        Doubtful,
        candidates=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
        numbers=st.dictionaries(TEXT, st.lists(st.floats(allow_nan=False), max_size=3).map(tuple), max_size=2),
    ),
)


@given(WISHES)
def test_a_wish_comes_back_as_it_was(wish: Wish) -> None:
    assert read_wish(write_wish(wish)) == wish


def test_what_is_only_of_this_process_is_left_out() -> None:
    wish = a_wish("a")
    late = replace(wish, left=(step("a", expires_at_monotonic=5.0),))
    assert read_wish(write_wish(late)) == wish


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"request": {"id": 1}}', "null", "nonsense"])
def test_what_is_no_wish_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"wish|object|Expecting"):
        read_wish(text)


def test_a_wish_without_a_question_just_ends() -> None:
    assert not_approved(a_wish("a"), "denied").is_over
    assert interrupted(a_wish()).is_over
