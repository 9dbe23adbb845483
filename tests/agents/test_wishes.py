from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from naila.agents.wishes import Wishes
from naila.errors import ContractError
from naila.events import Confirmation, Intent, Reply
from naila.fleet import Pending, Proposal
from naila.memory.checkpoints import Checkpoints
from naila.orchestration.wanted import Wish
from naila.orchestration.wish import Performer, SuspendedWishes, carry_out
from naila.ports import Cancellation
from support.fakes import FakeClock, FakeFleet, FakeMemory, an_intent


@dataclass
class FakeEndings:
    """Tells what became of each step."""

    fleet: FakeFleet
    told: list[str] = field(default_factory=list)
    calls: list[tuple[str, float]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def performer(self, intent: Intent, *, cancellation: Cancellation, received_at: float) -> Performer:
        self.calls.append((intent.id, received_at))

        async def nothing_more(_wish: Wish) -> tuple[Proposal, ...]:
            return ()

        return Performer(
            fleet=self.fleet,
            cancellation=cancellation,
            stopped=lambda _: False,
            expires_at_monotonic=None,
            more=nothing_more,
        )

    async def conclude(self, wish: Wish, *, cancellation: Cancellation, received_at: float) -> Reply:
        text = ", ".join(f"{outcome.proposal.name} {outcome.status}" for outcome in wish.outcomes)
        self.told.append(text)
        self.reasons += [outcome.message for outcome in wish.outcomes]
        self.calls.append((wish.request.id, received_at))
        return Reply(
            device_id=wish.request.device_id,
            id=wish.request.id,
            text=text,
            intent="command",
            source="action",
            degraded=False,
            conversation_id=wish.request.conversation_id,
            finish_reason=cancellation.cause or "stop",
        )


@dataclass
class Room:
    """Wishes that wait, in a real file, and processes that come and go."""

    path: Path
    fleet: FakeFleet = field(default_factory=FakeFleet)
    memory: FakeMemory = field(default_factory=FakeMemory)
    clock: FakeClock = field(default_factory=FakeClock)
    delivered: list[tuple[str, str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Wishes]:
        """Live until the end of the block, in good order."""
        endings = FakeEndings(self.fleet, reasons=self.reasons)
        async with Checkpoints(self.path) as checkpoints, asyncio.TaskGroup() as group:
            wishes = Wishes(
                fleet=self.fleet,
                suspended=SuspendedWishes(checkpoints, checkpoints.threads),
                endings=lambda: endings,
                memory=self.memory,
                deliver=lambda intent, reply: self.delivered.append((intent.id, reply.text)),
                clock=self.clock,
            )
            await wishes.restore()
            wishes.give_up_lost()
            group.create_task(wishes.run())
            await asyncio.sleep(0)
            yield wishes
            await wishes.drain(0.05)

    async def wish(self, wishes: Wishes, request_id: str = "q1", *names: str, **changes: object) -> str:
        """Suspend a wish whose first step must be approved; return the pending action's id."""
        request = an_intent("do it", id=request_id, **changes)
        left = tuple(
            Proposal(device_id=request.device_id, name=name, request_id=request_id, speaker=request.device_id)
            for name in names or ("clear",)
        )
        self.fleet.script = ["pending"]
        wish = await carry_out(
            Wish(request=request, left=left),
            FakeEndings(self.fleet).performer(request, cancellation=Cancellation(), received_at=0.0),
        )
        await wishes.suspend(wish)
        assert wish.pending is not None
        return wish.pending.id


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - conditions are of all kinds
            await asyncio.sleep(0.005)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "waiting.db")


async def test_a_yes_lets_the_request_go_on_and_answers_it_once(room: Room) -> None:
    async with room.process() as wishes:
        pending_id = await room.wish(wishes, "q1", "clear", "beep")
        assert wishes.is_open("r2", "q1")
        await wishes.confirm(Confirmation(device_id="r2", id=pending_id, approve=True))
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear done, beep done")]


async def test_a_no_ends_it(room: Room) -> None:
    async with room.process() as wishes:
        pending_id = await room.wish(wishes, "q1", "clear", "beep")
        await wishes.confirm(Confirmation(device_id="r2", id=pending_id, approve=False))
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear refused")]
    assert len(room.fleet.proposed) == 1


async def test_an_answer_to_nothing_is_refused_and_changes_nothing(room: Room) -> None:
    async with room.process() as wishes:
        pending_id = await room.wish(wishes)
        for device_id, name in (("r2", "a99"), ("arm", pending_id)):
            with pytest.raises(ContractError) as caught:
                await wishes.confirm(Confirmation(device_id=device_id, id=name, approve=True))
            assert caught.value.code == "not_confirmed"
        assert wishes.is_open("r2", "q1")
    assert room.delivered == []


async def test_an_approval_is_good_once(room: Room) -> None:
    async with room.process() as wishes:
        pending_id = await room.wish(wishes)
        answers = [wishes.confirm(Confirmation(device_id="r2", id=pending_id, approve=True)) for _ in range(2)]
        results = await asyncio.gather(*answers, return_exceptions=True)
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert [type(result) for result in results] == [type(None), ContractError]
    assert [proposal.confirmation for proposal in room.fleet.proposed] == [None, pending_id]


async def test_what_nobody_approved_in_time_is_told(room: Room) -> None:
    async with room.process() as wishes:
        await room.wish(wishes)
        wishes.expired(room.fleet.waits.pop())
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear refused")]


async def test_what_a_stop_took_away_is_told(room: Room) -> None:
    async with room.process() as wishes:
        await room.wish(wishes)
        wishes.withdrawn(room.fleet.waits.pop())
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear stopped")]


@pytest.mark.parametrize("request_id", ["q1", None])
async def test_a_cancelled_request_waits_no_longer_and_cannot_be_approved(room: Room, request_id: str | None) -> None:
    async with room.process() as wishes:
        pending_id = await room.wish(wishes)
        wishes.cancel("r2", request_id)
        await until(lambda: not wishes.is_open("r2", "q1"))
        with pytest.raises(ContractError):
            await wishes.confirm(Confirmation(device_id="r2", id=pending_id, approve=True))
    assert room.delivered == [("q1", "clear refused")]


async def test_cancelling_another_request_changes_nothing(room: Room) -> None:
    async with room.process() as wishes:
        await room.wish(wishes)
        wishes.cancel("r2", "q7")
        wishes.cancel("arm", None)
        await asyncio.sleep(0)
        assert wishes.is_open("r2", "q1")


async def test_requests_wait_side_by_side(room: Room) -> None:
    async with room.process() as wishes:
        first = await room.wish(wishes, "q1", "first")
        second = await room.wish(wishes, "q2", "second")
        await wishes.settle("r2", second, approve=True)
        await until(lambda: not wishes.is_open("r2", "q2"))
        await wishes.settle("r2", first, approve=False)
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q2", "second done"), ("q1", "first refused")]


async def test_only_its_own_conversation_awaits_an_answer(room: Room) -> None:
    async with room.process() as wishes:
        pending_id = await room.wish(wishes, "q1", conversation_id="kitchen")
        here, there = an_intent("yes", conversation_id="kitchen"), an_intent("yes")
        assert [pending.id for pending in wishes.awaited(here)] == [pending_id]
        assert wishes.awaited(there) == ()
        assert wishes.awaited(replace(here, device_id="arm")) == ()


@dataclass
class SlowFleet(FakeFleet):
    """Settles only when let go, as a slow disk does."""

    settling: asyncio.Event = field(default_factory=asyncio.Event)

    async def settle(self, speaker: str, pending_id: str, *, approve: bool) -> Pending:
        found = await super().settle(speaker, pending_id, approve=approve)
        await self.settling.wait()
        return found


async def test_a_second_answer_does_not_disturb_the_first(tmp_path: Path) -> None:
    fleet = SlowFleet()
    room = Room(tmp_path / "waiting.db", fleet)
    async with room.process() as wishes:
        pending_id = await room.wish(wishes)
        first = asyncio.ensure_future(wishes.settle("r2", pending_id, approve=True))
        await asyncio.sleep(0)
        with pytest.raises(ContractError):
            await wishes.settle("r2", pending_id, approve=False)
        fleet.settling.set()
        await first
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear done")]


@dataclass
class ForgetfulFleet(FakeFleet):
    """Takes no answer, as when it came too late or the disk is full."""

    async def settle(self, speaker: str, pending_id: str, *, approve: bool) -> Pending:
        await super().settle(speaker, pending_id, approve=approve)
        raise ContractError("not_confirmed", "the answer could not be kept", device_id=speaker)


async def test_a_yes_that_cannot_be_taken_is_not_put_down_to_a_restart(tmp_path: Path) -> None:
    room = Room(tmp_path / "waiting.db", ForgetfulFleet())
    async with room.process() as wishes:
        pending_id = await room.wish(wishes)
        with pytest.raises(ContractError):
            await wishes.settle("r2", pending_id, approve=True)
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear refused")]
    assert "restarted" not in room.reasons[0]


async def test_what_happens_after_the_end_is_left_to_the_next_process(room: Room) -> None:
    async with room.process() as wishes:
        await room.wish(wishes)
    wishes.expired(room.fleet.waits.pop())
    wishes.cancel("r2", None)
    async with room.process() as wishes:
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear refused")]


async def test_an_answer_that_comes_before_the_wish_is_kept_counts(room: Room) -> None:
    """A device hears the question before the brain has its wish on disk."""
    async with room.process() as wishes:
        room.fleet.script = ["pending"]
        request = an_intent("do it")
        wish = await carry_out(
            Wish(request=request, left=(Proposal(device_id="r2", name="clear", request_id="q1", speaker="r2"),)),
            FakeEndings(room.fleet).performer(request, cancellation=Cancellation(), received_at=0.0),
        )
        await wishes.settle("r2", "a1", approve=True)
        await wishes.suspend(wish)
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear done")]


async def test_a_request_waits_across_a_restart(room: Room) -> None:
    async with room.process() as wishes:
        pending_id = await room.wish(wishes)
    assert room.delivered == []
    async with room.process() as wishes:
        assert wishes.is_open("r2", "q1")
        await wishes.settle("r2", pending_id, approve=True)
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear done")]
    async with room.process() as wishes:
        assert not wishes.is_open("r2", "q1")


async def test_an_answer_that_was_lost_with_the_process_counts_as_none(room: Room) -> None:
    async with room.process() as wishes:
        await room.wish(wishes)
    room.fleet.waits.clear()
    async with room.process() as wishes:
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear refused")]
    assert len(room.fleet.proposed) == 1


async def test_a_process_that_ends_in_mid_action_does_not_know_and_does_not_do_it_again(room: Room) -> None:
    async with room.process() as wishes:
        pending_id = await room.wish(wishes, "q1", "clear", "beep")
        room.fleet.hold = frozenset({"clear"})
        await wishes.settle("r2", pending_id, approve=True)
        await room.fleet.holding.wait()
        for task in asyncio.all_tasks():
            if task.get_name() == "wish q1 of r2":
                task.cancel()
        await asyncio.sleep(0.01)
    room.delivered.clear()
    async with room.process() as wishes:
        await until(lambda: not wishes.is_open("r2", "q1"))
    assert room.delivered == [("q1", "clear unanswered")]
    assert len(room.fleet.proposed) == 2


async def test_a_reply_that_was_remembered_and_not_sent_is_sent_after_a_restart(room: Room) -> None:
    async with room.process() as wishes:
        await room.wish(wishes)
    reply = await FakeEndings(room.fleet).conclude(
        Wish(request=an_intent("do it")), cancellation=Cancellation(), received_at=0.0
    )
    room.memory.replies["r2", "q1"] = replace(reply, text="already")
    async with room.process() as wishes:
        assert not wishes.is_open("r2", "q1")
    assert room.delivered == [("q1", "already")]
