from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naila.agents import mailbox, transcripts
from naila.agents.mailbox import Mailbox
from naila.errors import ContractError
from naila.events import Cancel, FinishReason, Intent, Reply
from naila.ports import Cancellation
from support.fakes import FakeClock, FakeMemory, FakePublisher, an_intent


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
    _gates: dict[str, asyncio.Event] = field(default_factory=dict)

    async def handle(self, intent: Intent, *, cancellation: Cancellation, received_at: float) -> Reply | None:
        self.begun.append(intent.id)
        self.received.append(received_at)
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
    memory: FakeMemory = field(default_factory=FakeMemory)
    publisher: FakePublisher = field(default_factory=FakePublisher)
    clock: FakeClock = field(default_factory=FakeClock)
    max_per_device: int = 3
    max_waiting: int = 100

    def __post_init__(self) -> None:
        self.mailbox = Mailbox(
            turns=self.turns,
            memory=self.memory,
            publisher=self.publisher,
            clock=self.clock,
            max_per_device=self.max_per_device,
            max_waiting=self.max_waiting,
            suspended=lambda _device_id, request_id: request_id in self.turns.suspends & set(self.turns.begun),
        )

    async def send(self, request_id: str, device_id: str = "r2", **changes: object) -> None:
        await self.mailbox.accept(an_intent("Hello", id=request_id, device_id=device_id, **changes))

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
        assert [len(kept) for kept in (box._queues, box._workers, box._open)] == [0, 0, 0]


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
    memory = FakeMemory(replies={("r2", "a"): a_reply(an_intent(id="a"), "long ago")})
    async with running(Post(memory=memory)) as post:
        await post.send("a")
        await post.publisher.until(1)
        assert (post.answered, post.turns.begun) == ([("a", "long ago")], [])


async def test_the_same_id_of_another_device_is_another_request() -> None:
    async with running(Post()) as post:
        await post.send("a", "one")
        await post.send("a", "two")
        await post.publisher.until(2)
        assert post.turns.begun == ["a", "a"]


async def test_a_broken_memory_stops_nobody() -> None:
    async with running(Post(memory=FakeMemory(broken=True))) as post:
        await post.send("a")
        await post.publisher.until(1)
        assert post.answered == [("a", "done")]


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
        post.mailbox.stop("r2", "halt")
        await post.send("halt")
        await post.publisher.until(1)
        assert post.answered == [("halt", "done")]


async def test_a_stop_ends_what_is_being_answered_to_its_device_only() -> None:
    async with running(Post(FakeTurns(held={"a", "b"}))) as post:
        await post.send("a")
        await post.send("b", "arm")
        await post.until(lambda: len(post.turns.begun) == 2)
        post.mailbox.stop("r2", "halt")
        await post.publisher.until(1)
        assert post.answered == [("a", "so far")]


async def test_a_stop_of_all_ends_all_but_its_own_request() -> None:
    async with running(Post(FakeTurns(held={"a", "b"}))) as post:
        await post.send("a")
        await post.send("b", "arm")
        await post.until(lambda: len(post.turns.begun) == 2)
        post.mailbox.stop(None, "b")
        await post.publisher.until(1)
        assert post.answered == [("a", "so far")]


async def test_draining_waits_for_the_answer_to_a_stop() -> None:
    async with running(Post(FakeTurns(held={"halt"}))) as post:
        post.mailbox.stop("r2", "halt")
        await post.send("halt")
        await post.until(lambda: post.turns.begun == ["halt"])
        await post.mailbox.drain(0.01)
        assert post.answered == [("halt", "so far")]


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
        assert post.answered[-1] == ("a", "done")


async def test_when_a_request_came_is_told_where_it_is_known() -> None:
    async with running(Post()) as post:
        await post.mailbox.accept(an_intent("Hello", id="a"), received_at=7.5)
        await post.publisher.until(1)
        assert post.turns.received == [7.5]


async def test_draining_lets_the_running_request_finish_and_refuses_the_waiting() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.send("b")
        await post.until(lambda: post.turns.begun == ["a"])
        drained = asyncio.create_task(post.mailbox.drain(2))
        await asyncio.sleep(0)
        assert post.refused == [("b", "busy")]
        with pytest.raises(ContractError, match="stopping"):
            await post.send("c")
        post.turns.let_go("a")
        await drained
        assert post.answered == [("a", "done")]


async def test_draining_cuts_short_what_takes_too_long() -> None:
    async with running(Post(FakeTurns(held={"a"}))) as post:
        await post.send("a")
        await post.until(lambda: post.turns.begun == ["a"])
        await post.mailbox.drain(0.01)
        assert post.answered == [("a", "so far")]


async def test_what_will_not_stop_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "CANCEL_GRACE_S", 0.01)
    async with running(Post(FakeTurns(held={"a"}, deaf=True))) as post:
        await post.send("a")
        await post.until(lambda: post.turns.begun == ["a"])
        await post.mailbox.drain(0.01)
        assert (post.refused, post.answered) == ([("a", "internal")], [])


async def test_draining_before_running_ends_the_run() -> None:
    post = Post()
    await post.send("a")
    await post.mailbox.drain(0)
    async with asyncio.timeout(1):
        await post.mailbox.run()
    assert post.refused == [("a", "busy")]


STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "cancel", "cancel all", "pause"]), st.sampled_from("xyz"), st.integers(0, 5)),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_every_accepted_request_is_answered_once(steps: list[tuple[str, str, int]]) -> None:
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
        assert sorted(replied + refused) == sorted(accepted)

    asyncio.run(play())
