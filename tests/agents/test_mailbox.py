from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naila.agents import mailbox, outbox, transcripts
from naila.agents.mailbox import Mailbox
from naila.errors import ContractError
from naila.events import Cancel, ErrorNotice, FinishReason, Intent, Reply
from naila.fleet import Outcome, Proposal
from naila.kept import Begun, KeptRequest
from naila.orchestration.wanted import Wish
from naila.ports import Cancellation
from support.fakes import FakeClock, FakeInbox, FakePublisher, an_intent


def a_reply(intent: Intent, text: str = "done", finish_reason: FinishReason = "stop") -> Reply:
    return Reply(
        device_id=intent.device_id,
        id=intent.id,
        text=text,
        intent="unknown",
        source="llm",
        degraded=False,
        conversation_id=intent.conversation_id,
        finish_reason=finish_reason,
    )


@dataclass
class FakeTurns:
    """Answers at once, or holds what is said to be held until let go or cancelled."""

    held: set[str] = field(default_factory=set)
    suspends: set[str] = field(default_factory=set)
    deaf: bool = False
    begun: list[str] = field(default_factory=list)
    refuse: dict[str, ContractError] = field(default_factory=dict)
    received: list[float] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    old: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    concluded: list[Wish] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    _gates: dict[str, asyncio.Event] = field(default_factory=dict)

    async def handle(
        self, intent: Intent, *, cancellation: Cancellation, received_at: float, is_old: bool = False
    ) -> Reply | None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._handle(intent, cancellation, received_at, is_old=is_old)
        except asyncio.CancelledError:
            self.cut.append(intent.id)
            raise
        finally:
            self.at_once -= 1

    async def conclude(self, wish: Wish, *, cancellation: Cancellation, received_at: float) -> Reply:  # noqa: ARG002 - the port's
        self.concluded.append(wish)
        return a_reply(wish.request, "told")

    async def _handle(
        self, intent: Intent, cancellation: Cancellation, received_at: float, *, is_old: bool
    ) -> Reply | None:
        self.begun.append(intent.id)
        self.received.append(received_at)
        if is_old:
            self.old.append(intent.id)
        if intent.id in self.refuse:
            raise self.refuse[intent.id]
        if intent.id in self.suspends:
            return None
        if intent.id in self.held:
            gate = self._gates.setdefault(intent.id, asyncio.Event())
            if not self.deaf:
                cancellation.subscribe(lambda _: gate.set())
            await gate.wait()
        if cancellation.cause is not None:
            return a_reply(intent, "so far", "cancelled")
        return a_reply(intent)

    async def read_in(self, intent: Intent) -> None:
        self.read.append(intent.text)
        if intent.text in self.held:
            try:
                await self._gates.setdefault(intent.text, asyncio.Event()).wait()
            except asyncio.CancelledError:
                self.given_up.append(intent.text)
                raise

    def let_go(self, request_id: str) -> None:
        self._gates.setdefault(request_id, asyncio.Event()).set()


@dataclass
class Post:
    """A mailbox among fakes."""

    turns: FakeTurns = field(default_factory=FakeTurns)
    inbox: FakeInbox = field(default_factory=FakeInbox)
    publisher: FakePublisher = field(default_factory=FakePublisher)
    clock: FakeClock = field(default_factory=FakeClock)
    max_per_device: int = 3
    max_waiting: int = 100
    max_running: int = 100
    give_up: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mailbox = Mailbox(
            turns=self.turns,
            inbox=self.inbox,
            publisher=self.publisher,
            clock=self.clock,
            max_per_device=self.max_per_device,
            max_waiting=self.max_waiting,
            max_running=self.max_running,
            give_up=lambda *key: self.give_up.append(key),
            suspended=lambda _device_id, request_id: request_id in self.turns.suspends & set(self.turns.begun),
        )

    async def send(self, request_id: str, device_id: str = "r2", **changes: object) -> asyncio.Future[object] | None:
        return await self.mailbox.accept(an_intent("Hello", id=request_id, device_id=device_id, **changes))

    def arrive(self) -> None:
        """The broker has all that was published."""
        for event in self.publisher.published:
            if isinstance(event, Reply | ErrorNotice):
                self.mailbox.ended(event, is_delivered=True)

    async def hear(self, text: str, device_id: str = "r2", **changes: object) -> None:
        """Take in a transcript that still grows."""
        await self.mailbox.accept(an_intent(text, id="t1", device_id=device_id, partial=True, **changes))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(2):
            while not condition():  # noqa: ASYNC110 - conditions are of all kinds
                await asyncio.sleep(0)

    @property
    def answered(self) -> list[tuple[str, str]]:
        return [(reply.id, reply.text) for reply in self.publisher.replies]

    @property
    def refused(self) -> list[tuple[str | None, str]]:
        return [(notice.id, notice.code) for notice in self.publisher.notices]


@asynccontextmanager
async def running(post: Post) -> AsyncIterator[Post]:
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(post.mailbox.run())
        await asyncio.sleep(0)
        try:
            yield post
        finally:
            for request_id in post.turns.held:
                post.turns.let_go(request_id)
            await post.mailbox.drain(1)


async def test_a_devices_requests_are_answered_in_order_one_at_a_time() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        for request_id in "abc":
            await post.send(request_id)
        await post.until(lambda: post.turns.begun == ["a"])
        await asyncio.sleep(0.01)
        assert post.turns.begun == ["a"]
        post.turns.let_go("a")
        await post.publisher.until(3)
        assert post.turns.begun == ["a", "b", "c"]


async def test_devices_do_not_wait_for_each_other() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a", "one")
        await post.send("b", "two")
        await post.publisher.until(1)
        assert post.answered == [("b", "done")]


async def test_requests_wait_until_workers_run() -> None:
    post = Post()
    await post.send("a")
    assert post.mailbox.waiting == 1
    async with running(post):
        await post.publisher.until(1)
        assert post.turns.received == [1000.0]


async def test_an_idle_mailbox_holds_nothing() -> None:
    async with running(Post()) as post:
        for device in range(50):
            await post.send("a", f"d{device}")
        await post.publisher.until(50)
        await asyncio.sleep(0)
        box = post.mailbox
        assert (box.waiting, box.running) == (0, 0)
        await post.until(lambda: not box._errands)
        post.arrive()
        await post.until(lambda: not post.inbox.rows)
        books = box._outbox
        assert [len(kept) for kept in (box._queues, box._workers, box._open, books._owed, books._delivered)] == [0] * 5


async def test_a_full_queue_is_busy_and_says_when_to_come_back() -> None:
    post = Post(max_per_device=2)
    await post.send("a")
    await post.send("b")
    with pytest.raises(ContractError, match="2 requests of this device are waiting: come back in about 10 s") as caught:
        await post.send("c")
    assert (caught.value.code, caught.value.request_id) == ("busy", "c")


async def test_too_many_requests_in_all_are_busy() -> None:
    post = Post(max_waiting=2)
    await post.send("a", "one")
    await post.send("a", "two")
    with pytest.raises(ContractError, match="2 requests are waiting in all"):
        await post.send("a", "three")


async def test_a_refused_request_may_come_again() -> None:
    post = Post(max_per_device=1)
    await post.send("a")
    with pytest.raises(ContractError):
        await post.send("b")
    async with running(post):
        await post.publisher.until(1)
        await post.send("b")
        await post.publisher.until(2)


async def test_a_repeat_of_a_request_in_progress_starts_nothing() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.send("a")
        await post.until(lambda: post.mailbox.running == 1)
        await post.send("a")
        post.turns.let_go("a")
        await post.publisher.until(1)
        assert post.turns.begun == ["a"]


async def test_a_repeat_of_an_answered_request_gets_the_same_reply() -> None:
    async with running(Post()) as post:
        await post.send("a")
        await post.publisher.until(1)
        await post.send("a")
        await post.publisher.until(2)
        assert post.publisher.replies[0] == post.publisher.replies[1]
        assert post.turns.begun == ["a"]


async def test_a_repeat_of_a_request_answered_before_a_restart_gets_the_stored_reply() -> None:
    inbox = FakeInbox(replies={("r2", "a"): a_reply(an_intent(id="a"), "long ago")})
    async with running(Post(inbox=inbox)) as post:
        await post.send("a")
        await post.publisher.until(1)
        assert (post.answered, post.turns.begun) == ([("a", "long ago")], [])


async def test_the_same_id_of_another_device_is_another_request() -> None:
    async with running(Post()) as post:
        await post.send("a", "one")
        await post.send("a", "two")
        await post.publisher.until(2)
        assert post.turns.begun == ["a", "a"]


async def test_a_refusal_in_the_turn_becomes_an_error_and_the_next_is_answered() -> None:
    turns = FakeTurns(refuse={"a": ContractError("expired", "too late")})
    async with running(Post(turns)) as post:
        await post.send("a")
        await post.send("b")
        await post.publisher.until(2)
        assert (post.refused, post.answered) == ([("a", "expired")], [("b", "done")])


async def test_a_growing_transcript_is_answered_by_nothing() -> None:
    async with running(Post()) as post:
        await post.send("a", partial=True)
        await post.send("a")
        await post.publisher.until(1)
        assert len(post.publisher.published) == 1


async def test_a_growing_transcript_is_read_in() -> None:
    async with running(Post()) as post:
        await post.hear("Why")
        await post.until(lambda: post.turns.read == ["Why"])
        await post.hear("Why is the")
        await post.until(lambda: post.turns.read == ["Why", "Why is the"])
        assert post.publisher.published == []
        await post.until(lambda: not post.mailbox._transcripts._readers)
        assert not post.mailbox._transcripts._newest


async def test_only_the_newest_of_a_growing_transcript_is_read_in() -> None:
    async with running(Post(FakeTurns(held={"Why"}))) as post:
        await post.hear("Why")
        await post.until(lambda: post.turns.read == ["Why"])
        for text in ("Why is", "Why is the", "Why is the sky"):
            await post.hear(text)
        post.turns.let_go("Why")
        await post.until(lambda: post.turns.read == ["Why", "Why is the sky"])


async def test_transcripts_of_devices_do_not_wait_for_each_other() -> None:
    async with running(Post(FakeTurns(held={"Why"}))) as post:
        await post.hear("Why", "one")
        await post.hear("Where", "two")
        await post.until(lambda: sorted(post.turns.read) == ["Where", "Why"])


async def test_the_whole_of_a_transcript_overtakes_its_beginnings() -> None:
    async with running(Post(FakeTurns(held={"Why"}))) as post:
        await post.hear("Why")
        await post.until(lambda: post.turns.read == ["Why"])
        await post.hear("Why is the")
        await post.hear("Where", "other")
        await post.send("t1")
        await post.publisher.until(1)
        assert (post.turns.read, post.turns.given_up, post.turns.begun) == (["Why", "Where"], ["Why"], ["t1"])


async def test_what_is_heard_while_its_device_is_answered_is_not_read_in() -> None:
    # The prompt would lack the answer that is being written.
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.until(lambda: post.turns.begun == ["a"])
        await post.hear("And what")
        post.turns.let_go("a")
        await post.publisher.until(1)
        assert post.turns.read == []


async def test_a_beginning_that_comes_after_its_whole_is_not_read_in() -> None:
    async with running(Post()) as post:
        await post.send("t1")
        await post.publisher.until(1)
        await post.hear("Why")
        await asyncio.sleep(0.01)
        assert post.turns.read == []


async def test_what_is_read_in_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "MAX_READERS", 2)
    async with running(Post(FakeTurns(held={"Why"}))) as post:
        for device in ("one", "two", "three"):
            await post.hear("Why", device)
        await asyncio.sleep(0.01)
        assert post.turns.read == ["Why", "Why"]
        post.turns.let_go("Why")
        await post.until(lambda: not post.mailbox._transcripts._readers)
        await post.hear("Why not", "three")
        await post.until(lambda: len(post.turns.read) == 3)


async def test_nothing_is_read_in_before_running_or_after_draining() -> None:
    post = Post(FakeTurns(held={"Why"}))
    await post.hear("Who")
    async with running(post):
        await post.hear("Why")
        await post.until(lambda: post.turns.read == ["Why"])
        await post.mailbox.drain(1)
        await post.hear("Where")
        assert post.turns.read == ["Why"]
    assert post.turns.given_up == ["Why"]


async def test_the_running_request_can_be_cancelled() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.until(lambda: post.turns.begun == ["a"])
        await post.mailbox.accept(Cancel(device_id="r2", id="a"))
        await post.publisher.until(1)
        assert post.answered == [("a", "so far")]


async def test_a_waiting_request_can_be_cancelled() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.send("b")
        await post.until(lambda: post.turns.begun == ["a"])
        await post.mailbox.accept(Cancel(device_id="r2", id="b"))
        post.turns.let_go("a")
        await post.publisher.until(2)
        assert [(reply.id, reply.finish_reason) for reply in post.publisher.replies] == [
            ("b", "cancelled"),
            ("a", "stop"),
        ]


async def test_every_request_of_a_device_can_be_cancelled_and_no_other() -> None:
    async with running(Post(FakeTurns(held={"a", "x"}))) as post:
        for request_id in "abc":
            await post.send(request_id)
        await post.send("x", "other")
        await post.until(lambda: set(post.turns.begun) == {"a", "x"})
        await post.mailbox.accept(Cancel(device_id="r2"))
        await post.publisher.until(3)
        assert {reply.id: reply.finish_reason for reply in post.publisher.replies} == dict.fromkeys("abc", "cancelled")


async def test_cancelling_what_is_not_there_does_nothing() -> None:
    post = Post()
    await post.mailbox.accept(Cancel(device_id="r2", id="never"))
    assert post.publisher.published == []


async def test_a_request_that_says_stop_waits_for_nobody() -> None:
    async with running(Post(FakeTurns(held={"a"}, deaf=True))) as post:
        await post.send("a")
        await post.send("b")
        await post.until(lambda: post.turns.begun == ["a"])
        post.mailbox.stop("r2", ("r2", "halt"))
        await post.send("halt")
        await post.publisher.until(1)
        assert post.answered == [("halt", "done")]


async def test_a_stop_ends_what_is_being_answered_to_its_device_only() -> None:
    async with running(Post(FakeTurns(held={"a", "b"}))) as post:
        await post.send("a")
        await post.send("b", "arm")
        await post.until(lambda: len(post.turns.begun) == 2)
        post.mailbox.stop("r2", ("r2", "halt"))
        await post.publisher.until(1)
        assert post.answered == [("a", "so far")]


async def test_a_stop_of_all_ends_all_but_its_own_request() -> None:
    async with running(Post(FakeTurns(held={"a", "b"}))) as post:
        await post.send("a")
        await post.send("b", "arm")
        await post.until(lambda: len(post.turns.begun) == 2)
        post.mailbox.stop(None, ("arm", "b"))
        await post.publisher.until(1)
        assert post.answered == [("a", "so far")]


async def test_a_request_of_another_device_with_the_id_of_a_stop_is_no_stop() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a", "arm")
        await post.until(lambda: post.turns.begun == ["a"])
        post.mailbox.stop("r2", ("r2", "b"))
        await post.send("b", "arm")
        await post.send("b")
        await post.publisher.until(1)
        assert [(reply.device_id, reply.id) for reply in post.publisher.replies] == [("r2", "b")]
        post.mailbox.stop(None, ("r2", "a"))
        await post.publisher.until(2)
        assert post.answered[1] == ("a", "so far")


async def test_a_request_that_waits_for_a_person_holds_nobody_up_and_is_not_begun_again() -> None:
    async with running(Post(FakeTurns(suspends={"a"}))) as post:
        await post.send("a")
        await post.send("b")
        await post.publisher.until(1)
        await post.send("a")
        await post.send("c")
        await post.publisher.until(2)
        assert post.turns.begun == ["a", "b", "c"]
        assert [request_id for request_id, _ in post.answered] == ["b", "c"]
        post.mailbox.deliver(an_intent("Hello", id="a"), a_reply(an_intent("Hello", id="a")))
        await post.publisher.until(3)
        assert post.answered[-1] == ("a", "done")


async def test_when_a_request_came_is_told_where_it_is_known() -> None:
    async with running(Post()) as post:
        await post.mailbox.accept(an_intent("Hello", id="a"), received_at=7.5)
        await post.publisher.until(1)
        assert post.turns.received == [7.5]


# --- kept, answered, done ---


async def test_nothing_is_done_for_a_request_before_it_is_kept() -> None:
    async with running(Post(inbox=FakeInbox(gate=asyncio.Event()))) as post:
        kept = await post.send("a")
        await asyncio.sleep(0.01)
        assert kept is not None
        assert (kept.done(), post.turns.begun) == (False, [])
        assert post.inbox.gate is not None
        post.inbox.gate.set()
        await post.publisher.until(1)
        assert (kept.done(), post.answered) == (True, [("a", "done")])


async def test_a_repeat_of_what_is_being_kept_is_acknowledged_with_it() -> None:
    async with running(Post(inbox=FakeInbox(gate=asyncio.Event()))) as post:
        assert await post.send("a") is await post.send("a")
        assert post.inbox.gate is not None
        post.inbox.gate.set()
        await post.publisher.until(1)


async def test_a_request_is_in_the_inbox_until_the_broker_has_its_answer() -> None:
    async with running(Post()) as post:
        await post.send("a")
        await post.publisher.until(1)
        await asyncio.sleep(0.01)
        assert list(post.inbox.rows) == [("r2", "a")]
        post.arrive()
        await post.until(lambda: not post.inbox.rows)
        assert ("r2", "a") in post.inbox.replies


async def test_the_answer_is_kept_before_it_is_sent() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.until(lambda: post.turns.begun == ["a"])
        post.inbox.gate = asyncio.Event()
        post.turns.let_go("a")
        await asyncio.sleep(0.01)
        assert post.answered == []
        post.inbox.gate.set()
        await post.publisher.until(1)


async def test_what_was_refused_is_in_the_inbox_until_the_broker_has_the_error() -> None:
    async with running(Post(FakeTurns(refuse={"a": ContractError("expired", "too late")}))) as post:
        await post.send("a")
        await post.publisher.until(1)
        assert list(post.inbox.rows) == [("r2", "a")]
        post.arrive()
        await post.until(lambda: not post.inbox.rows)


async def test_an_answer_that_was_given_up_for_want_of_room_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_S", 0.01)
    async with running(Post()) as post:
        await post.send("a")
        await post.publisher.until(1)
        post.mailbox.ended(post.publisher.replies[0], is_delivered=False)
        await post.publisher.until(2)
        assert (post.answered, post.turns.begun) == ([("a", "done")] * 2, ["a"])


async def test_without_a_disk_nothing_is_acknowledged_and_each_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "RETRY_S", 0.01)
    async with running(Post(inbox=FakeInbox(broken=True))) as post:
        kept = [await post.send("a"), await post.send("b"), await post.send("a")]
        await asyncio.sleep(0.1)
        assert not any(future is None or future.done() for future in kept)
        assert (sorted(post.refused), post.turns.begun) == ([("a", "busy"), ("b", "busy")], [])
        assert post.mailbox.unkept == 2
        post.inbox.broken = False
        await post.until(lambda: len(post.answered) == 2)
        assert post.turns.begun == ["a", "b"]


async def test_an_answer_that_the_disk_refuses_goes_out_and_is_kept_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_S", 0.01)
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.until(lambda: post.turns.begun == ["a"])
        post.inbox.broken = True
        post.turns.let_go("a")
        await post.publisher.until(1)
        post.arrive()
        await asyncio.sleep(0.05)
        assert (list(post.inbox.rows), post.inbox.replies) == ([("r2", "a")], {})
        post.inbox.broken = False
        await post.until(lambda: not post.inbox.rows)
        assert ("r2", "a") in post.inbox.replies


async def test_a_stop_and_what_was_answered_before_need_no_disk() -> None:
    async with running(Post()) as post:
        await post.send("a")
        await post.publisher.until(1)
        post.inbox.gate = asyncio.Event()
        await post.send("a")
        assert len(post.answered) == 2
        post.mailbox.stop("r2", ("r2", "halt"))
        await post.send("halt")
        await post.until(lambda: post.turns.begun == ["a", "halt"])
        post.inbox.gate.set()


async def test_a_stop_makes_what_is_kept_old_for_the_next_process() -> None:
    post = Post()
    post.mailbox.stop("r2", ("r2", "halt"))
    assert post.inbox.outdated == 1


async def test_what_waited_elsewhere_is_known_to_be_old() -> None:
    async with running(Post()) as post:
        await post.mailbox.accept(an_intent(id="a"), is_old=True)
        await post.publisher.until(1)
        assert post.turns.old == ["a"]


async def test_only_so_many_turns_run_at_once_and_devices_take_turns() -> None:
    async with running(Post(FakeTurns(held={"a1"}), max_running=1)) as post:
        for request_id in ("a1", "a2", "a3"):
            await post.send(request_id, "a")
        await post.until(lambda: post.turns.begun == ["a1"])
        await post.send("b1", "b")
        await post.send("c1", "c")
        await asyncio.sleep(0.01)
        post.turns.let_go("a1")
        await post.publisher.until(5)
        assert post.turns.begun == ["a1", "b1", "c1", "a2", "a3"]
        assert post.turns.most_at_once == 1


async def test_answers_that_the_broker_does_not_take_count_as_waiting() -> None:
    async with running(Post(max_waiting=2)) as post:
        await post.send("a")
        await post.send("b", "other")
        await post.publisher.until(2)
        with pytest.raises(ContractError, match="2 requests are waiting in all"):
            await post.send("c")


# --- from one process to the next ---


def kept(request_id: str, device_id: str = "r2", **known: object) -> KeptRequest:
    return KeptRequest(request=an_intent(id=request_id, device_id=device_id), **known)  # type: ignore[arg-type]


def an_inbox(*rows: KeptRequest, **known: object) -> FakeInbox:
    return FakeInbox(rows={(row.request.device_id, row.request.id): row for row in rows}, **known)  # type: ignore[arg-type]


async def test_what_was_not_done_is_taken_up_in_its_order_with_its_age() -> None:
    post = Post(inbox=an_inbox(kept("a", age_s=30.0), kept("b", age_s=None), kept("c", age_s=1.0)))
    await post.mailbox.restore()
    async with running(post):
        await post.publisher.until(3)
        assert (post.turns.begun, post.turns.received) == (["a", "b", "c"], [970.0, 1000.0, 999.0])
        assert post.turns.old == ["b"]


async def test_an_answer_that_did_not_arrive_is_sent_and_nothing_is_begun() -> None:
    inbox = an_inbox(kept("a"), replies={("r2", "a"): a_reply(an_intent(id="a"), "before")})
    post = Post(inbox=inbox)
    await post.mailbox.restore()
    async with running(post):
        assert (post.answered, post.turns.begun) == ([("a", "before")], [])
        post.arrive()
        await post.until(lambda: not inbox.rows)


async def test_a_request_that_moved_something_is_told_and_not_begun_again() -> None:
    drive = Proposal(device_id="r2", name="drive", request_id="a", speaker="r2")
    begun = Begun(outcomes=(Outcome(proposal=drive, id="a1", status="unanswered"),), left=(drive,))
    post = Post(inbox=an_inbox(kept("a"), begun={("r2", "a"): begun}))
    await post.mailbox.restore()
    async with running(post):
        await post.publisher.until(1)
        assert (post.turns.begun, post.answered) == ([], [("a", "told")])
        (wish,) = post.turns.concluded
        assert (wish.outcomes, wish.left, wish.ended) == (begun.outcomes, begun.left, True)


async def test_a_repeat_of_what_moved_something_in_another_life_is_told_too() -> None:
    drive = Proposal(device_id="r2", name="drive", request_id="a", speaker="r2")
    begun = Begun(outcomes=(Outcome(proposal=drive, id="a1", status="done"),))
    async with running(Post(inbox=FakeInbox(begun={("r2", "a"): begun}))) as post:
        await post.send("a")
        await post.publisher.until(1)
        assert post.turns.begun == []


async def test_a_cancelled_request_that_moved_something_before_is_told_not_just_cancelled() -> None:
    drive = Proposal(device_id="r2", name="drive", request_id="b", speaker="r2")
    begun = Begun(outcomes=(Outcome(proposal=drive, id="a1", status="done"),))
    before = a_reply(an_intent(id="c"), "before")
    inbox = FakeInbox(begun={("r2", "b"): begun}, replies={("r2", "c"): before})
    async with running(Post(FakeTurns(held={"a"}), inbox=inbox)) as post:
        for request_id in "abc":
            await post.send(request_id)
        await post.until(lambda: post.turns.begun == ["a"])
        await post.mailbox.accept(Cancel(device_id="r2"))
        await post.publisher.until(3)
        assert sorted(post.answered) == [("a", "so far"), ("b", "told"), ("c", "before")]


async def test_what_waits_for_a_person_is_left_to_those_who_keep_it() -> None:
    post = Post(FakeTurns(suspends={"a"}, begun=["a"]), inbox=an_inbox(kept("a")))
    await post.mailbox.restore()
    assert post.mailbox.waiting == 0


async def test_a_repeat_of_what_was_taken_up_starts_nothing() -> None:
    post = Post(inbox=an_inbox(kept("a")))
    await post.mailbox.restore()
    again = await post.send("a")
    assert again is not None
    assert again.done()
    async with running(post):
        await post.publisher.until(1)
        assert post.turns.begun == ["a"]


# --- an operator ---


async def test_an_operator_drops_a_waiting_request_and_its_device_is_told() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.send("b")
        await post.until(lambda: post.turns.begun == ["a"])
        post.inbox.wanted = [(1, "r2", "b", "drop"), (2, "r2", "a", "drop"), (3, "r2", "gone", "drop")]
        await post.mailbox.obey()
        await post.publisher.until(2)
        assert (post.refused, post.answered, post.inbox.wanted) == ([("b", "expired")], [("a", "so far")], [])
        post.arrive()
        await post.until(lambda: not post.inbox.rows)


async def test_an_operator_has_an_answer_sent_again() -> None:
    async with running(Post()) as post:
        await post.send("a")
        await post.publisher.until(1)
        post.inbox.wanted = [(1, "r2", "a", "retry"), (2, "r2", "unknown", "retry")]
        await post.mailbox.obey()
        assert post.answered == [("a", "done")] * 2


async def test_an_operator_drops_what_waits_for_a_person() -> None:
    async with running(Post(FakeTurns(suspends={"a"}))) as post:
        await post.send("a")
        await post.until(lambda: post.turns.begun == ["a"] and not post.mailbox.running)
        post.inbox.wanted = [(1, "r2", "a", "drop")]
        await post.mailbox.obey()
        assert post.give_up == [("r2", "a")]


# --- the end ---


async def test_draining_lets_the_running_request_finish_and_leaves_the_waiting() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.send("b")
        await post.until(lambda: post.turns.begun == ["a"])
        drained = asyncio.create_task(post.mailbox.drain(2))
        await asyncio.sleep(0)
        late = await post.send("c")
        post.turns.let_go("a")
        await drained
        assert (post.answered, post.refused, post.turns.begun) == ([("a", "done")], [], ["a"])
        assert late is not None
        assert (late.done(), late.cancelled()) == (True, False)
        assert list(post.inbox.rows) == [("r2", "a"), ("r2", "b"), ("r2", "c")]


async def test_draining_cuts_what_takes_too_long_and_says_nothing() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.until(lambda: post.turns.begun == ["a"])
        await post.mailbox.drain(0.01)
        assert (post.turns.cut, post.publisher.published, post.inbox.replies) == (["a"], [], {})
        assert list(post.inbox.rows) == [("r2", "a")]


async def test_what_could_not_be_kept_is_never_acknowledged() -> None:
    post = Post(inbox=FakeInbox(gate=asyncio.Event()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mailbox, "CANCEL_GRACE_S", 0.01)
        async with running(post):
            future = await post.send("a")
            await post.mailbox.drain(0.01)
            assert future is not None
            assert future.cancelled()
            after = await post.send("b")
            assert after is not None
            assert after.cancelled()


async def test_draining_before_running_ends_the_run() -> None:
    post = Post()
    await post.send("a")
    await post.mailbox.drain(0)
    async with asyncio.timeout(1):
        await post.mailbox.run()
    assert post.publisher.published == []
    assert list(post.inbox.rows) == [("r2", "a")]


STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "cancel", "cancel all", "pause"]), st.sampled_from("xyz"), st.integers(0, 5)),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_every_accepted_request_is_answered_once_or_left_to_the_next_process(steps: list[tuple[str, str, int]]) -> None:
    async def play() -> None:
        post = Post(FakeTurns(held={"r1", "r4"}))
        accepted: set[tuple[str, str]] = set()
        async with running(post):
            for step, device, number in steps:
                if step == "send" and (device, f"r{number}") not in accepted:
                    try:
                        await post.send(f"r{number}", device)
                    except ContractError:
                        continue
                    accepted.add((device, f"r{number}"))
                elif step == "cancel":
                    await post.mailbox.accept(Cancel(device_id=device, id=f"r{number}"))
                elif step == "cancel all":
                    await post.mailbox.accept(Cancel(device_id=device))
                else:
                    await asyncio.sleep(0)
        replied = [(reply.device_id, reply.id) for reply in post.publisher.replies]
        refused = [(notice.device_id, notice.id or "") for notice in post.publisher.notices]
        left = [key for key in post.inbox.rows if key not in post.inbox.replies]
        assert sorted(replied + refused + left) == sorted(accepted)

    asyncio.run(play())
