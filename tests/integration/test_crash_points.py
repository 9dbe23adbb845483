"""A process that dies at an exact point, and the next one over the same database: real parts, but for the wire.

Where a process "dies", it sends nothing more, and what its tasks wait for never comes, until they are cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from naila.agents.attention import Attention
from naila.agents.mailbox import Mailbox
from naila.agents.orchestrator import Orchestrator
from naila.agents.stops import Stops
from naila.config.patterns import load_patterns
from naila.config.permissions import PermissionRules
from naila.config.personas import load_personas
from naila.devices.audit import Audit
from naila.devices.dispatcher import Dispatcher
from naila.devices.permissions import Permissions
from naila.devices.registry import Registry
from naila.events import Action, Capabilities, ErrorNotice, Intent, Outbound, Reply
from naila.fleet import Outcome
from naila.memory.conversation_memory import SqliteConversationMemory
from naila.memory.database import Database
from naila.memory.inbox import SqliteInbox
from naila.understanding.reading import Commands, Step
from support.fakes import FakeApprovals, FakeClock, FakeLanguageModel, FakePublisher, FakeReader, an_intent
from support.fleets import Devices, FakeDeviceStore, example, silent
from support.robots import until

CONFIG = Path(__file__).parents[2] / "config"
BOOK = load_patterns(CONFIG / "patterns.yaml")
PERSONAS = load_personas(CONFIG / "personas")
DRIVE = Step(device_id="rover", name="drive", arguments={"distance": 1})
BEEP = Step(device_id="rover", name="beep")
WORDS = {"drive": Commands((DRIVE,)), "drive and beep": Commands((DRIVE, BEEP))}
TALK = an_intent("Tell me something", device_id="rover")
DO = an_intent("drive and beep", device_id="rover")


@dataclass
class Wire(Devices):
    """The way out of a process; `dies_at` says when the process dies, before what it is asked about goes out."""

    dies_at: Callable[[Outbound], bool] = lambda _: False
    died: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, event: Any, *, to: Any = None) -> None:
        if self.died.is_set():
            return
        if self.dies_at(event):
            self.died.set()
            return
        super().publish(event, to=to)


class DyingInbox(SqliteInbox):
    """An inbox whose process may die when it has noted something."""

    def __init__(self, database: Database, *, dies_after: str, died: asyncio.Event) -> None:
        super().__init__(database)
        self._dies_after = dies_after
        self._died = died

    async def begin(self, action: Action, proposal: Any) -> None:
        await super().begin(action, proposal)
        await self._maybe_die("begin")

    async def answer(self, reply: Reply) -> None:
        await super().answer(reply)
        await self._maybe_die("answer")

    def end(self, outcome: Outcome) -> None:
        if not self._died.is_set():
            super().end(outcome)

    async def _maybe_die(self, after: str) -> None:
        if self._dies_after == after:
            self._died.set()
            await asyncio.Event().wait()


@dataclass
class Life:
    """One process: from its start to its end."""

    wire: Wire
    mailbox: Mailbox
    model: FakeLanguageModel
    inbox: SqliteInbox

    async def send(self, request: Intent) -> asyncio.Future[Any] | None:
        return await self.mailbox.accept(request)

    @property
    def moves(self) -> list[str]:
        return [action.name for action in self.wire.actions]

    def arrive(self) -> None:
        for event in self.wire.published:
            if isinstance(event, Reply | ErrorNotice):
                self.mailbox.ended(event, is_delivered=True)

    async def replies(self, count: int = 1) -> list[Reply]:
        await until(lambda: len(self.wire.replies) >= count)
        return self.wire.replies


@contextlib.asynccontextmanager
async def a_life(
    folder: Path,
    *,
    dies_at: Callable[[Outbound], bool] = lambda _: False,
    dies_after: str = "",
    answer: Callable[[Action], Any] | None = None,
) -> AsyncIterator[Life]:
    wire, clock, model = Wire(dies_at=dies_at), FakeClock(), FakeLanguageModel()
    if answer is not None:
        wire.answer = answer
    async with Database(folder / "naila.db") as database, Audit(folder / "audit") as audit:
        inbox = DyingInbox(database, dies_after=dies_after, died=wire.died)
        memory = SqliteConversationMemory(database, 8)
        store = FakeDeviceStore()
        registry = Registry(store, clock)
        await registry.declare(Capabilities(device_id="rover", document=example("rover")))
        dispatcher = Dispatcher(
            registry=registry,
            store=store,
            journal=inbox,
            publisher=wire,
            clock=clock,
            permissions=Permissions(PermissionRules()),
            audit=audit,
        )
        wire.dispatcher = dispatcher
        turns = Orchestrator(
            personas=PERSONAS,
            persona="naila",
            phrasebook=BOOK,
            model=model,
            memory=memory,
            publisher=FakePublisher(),
            clock=clock,
            timeout_s=60,
            max_tokens=100,
            fleet=dispatcher,
            reader=FakeReader(dict(WORDS)),
            approvals=FakeApprovals(),
            stops=Stops(dispatcher, clock, on_stop=lambda _device_id, _request: None),
            attention=Attention(clock),
            max_actions=8,
        )
        mailbox = Mailbox(turns=turns, inbox=inbox, publisher=wire, clock=clock, max_per_device=8)
        await mailbox.restore()
        running = asyncio.create_task(mailbox.run())
        try:
            yield Life(wire, mailbox, model, inbox)
        finally:
            wire.died.set()
            await mailbox.drain(0)
            await asyncio.wait({running})


async def dead(life: Life) -> None:
    async with asyncio.timeout(5):
        await life.wire.died.wait()
    await asyncio.sleep(0.02)


def is_action(event: Outbound) -> bool:
    return isinstance(event, Action)


def is_reply(event: Outbound) -> bool:
    return isinstance(event, Reply)


async def test_between_commit_and_acknowledgement(tmp_path: Path) -> None:
    """The broker brings it again, since it was not acknowledged; it is the same request."""
    async with a_life(tmp_path) as first:
        first.wire.died.set()
        first.model.hold_after = 0
        kept = await first.send(TALK)
        assert kept is not None
        await kept
    async with a_life(tmp_path) as second:
        again = await second.send(TALK)
        assert again is not None
        await again
        await second.replies()
        await asyncio.sleep(0.02)
        assert (len(second.wire.replies), len(second.model.asked)) == (1, 1)


@pytest.mark.parametrize("death", [{"dies_after": "begin"}, {"dies_at": is_action}])
async def test_between_the_journal_and_the_sending(tmp_path: Path, death: dict[str, Any]) -> None:
    async with a_life(tmp_path, **death) as first:
        await first.send(DO)
        await dead(first)
        assert first.moves == []
    async with a_life(tmp_path) as second:
        (reply,) = await second.replies()
        assert second.moves == []
        assert [(action.name, action.ok) for action in reply.actions] == [("drive", None)]


async def test_between_the_sending_and_the_result(tmp_path: Path) -> None:
    async with a_life(tmp_path, answer=silent) as first:
        await first.send(DO)
        await until(lambda: bool(first.moves))
        assert first.moves == ["drive"]
    async with a_life(tmp_path) as second:
        (reply,) = await second.replies()
        await second.send(DO)
        await second.replies(2)
        assert second.moves == []
        assert second.wire.replies[1] == reply
        assert [(action.name, action.ok) for action in reply.actions] == [("drive", None)]
        assert "beep" in reply.text.lower()  # what was to follow was not begun, and that is said


async def test_between_one_step_and_the_next(tmp_path: Path) -> None:
    """The first is known to be done; that nothing is known of the second is said."""
    async with a_life(tmp_path, dies_at=lambda event: isinstance(event, Action) and event.name == "beep") as first:
        await first.send(DO)
        await dead(first)
        assert first.moves == ["drive"]
    async with a_life(tmp_path) as second:
        (reply,) = await second.replies()
        assert second.moves == []
        assert [(action.name, action.ok) for action in reply.actions] == [("drive", True), ("beep", None)]


@pytest.mark.parametrize("request_", [TALK, DO])
@pytest.mark.parametrize("death", [{"dies_after": "answer"}, {"dies_at": is_reply}])
async def test_between_keeping_the_answer_and_sending_it(
    tmp_path: Path, death: dict[str, Any], request_: Intent
) -> None:
    async with a_life(tmp_path, **death) as first:
        await first.send(request_)
        await dead(first)
        assert first.wire.replies == []
        moved = first.moves
    async with a_life(tmp_path) as second:
        (reply,) = await second.replies()
        assert (second.moves, second.model.asked, reply.finish_reason) == ([], [], "stop")
        assert [action.name for action in reply.actions] == moved


async def test_between_sending_the_answer_and_its_acknowledgement(tmp_path: Path) -> None:
    async with a_life(tmp_path) as first:
        await first.send(TALK)
        (before,) = await first.replies()
    async with a_life(tmp_path) as second:
        (reply,) = await second.replies()
        assert (reply, second.model.asked) == (before, [])
        second.arrive()
        await asyncio.sleep(0.1)
        assert await second.inbox.undone() == ()
    async with a_life(tmp_path) as third:
        await asyncio.sleep(0.02)
        assert third.wire.published == []
        await third.send(TALK)
        assert await third.replies() == [before]


async def test_a_stop_before_the_end_keeps_the_next_process_from_moving(tmp_path: Path) -> None:
    async with a_life(tmp_path, answer=silent) as first:
        await first.send(DO)
        await until(lambda: bool(first.moves))
        waits = await first.send(an_intent("drive", id="q2", device_id="rover"))
        assert waits is not None
        await waits
        first.mailbox.stop("rover", ("rover", "s1"))
    async with a_life(tmp_path) as second:
        await second.replies(2)
        assert second.moves == []
