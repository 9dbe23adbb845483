"""Fakes of the ports: small, scripted, and telling what they were asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from naila.errors import (
    ContractError,
    DeadlineExceededError,
    GenerationCancelledError,
    ModelNotLoadedError,
    NailaError,
    StorageError,
)
from naila.events import ErrorNotice, FinishReason, Intent, Outbound, Reply, StreamItem, Usage
from naila.fleet import DeviceView, FleetView, Outcome, OutcomeStatus, Pending, Proposal
from naila.kept import Begun, KeptRequest
from naila.orchestration.wanted import Wish
from naila.ports import (
    Cancellation,
    ChatMessage,
    Fact,
    Fleet,
    Generation,
    Recollection,
    SamplingOptions,
    TextPiece,
    Turn,
)
from naila.understanding.reading import NotACommand, OpenQuestion, Reading, Step

# A Friday in winter, in a zone that is not UTC.
NOON = datetime(2026, 11, 20, 12, 34, tzinfo=UTC)


@dataclass
class FakeLanguageModel:
    """Says its script, one piece a token; the last answer is repeated when the script is at its end.

    Attributes:
        answers: what it says, answer by answer.
        finish_reason: how its answers end.
        fails_after: after so many pieces `failure` is raised.
        hold_after: after so many pieces it waits until `go` is set, or it is cancelled.
        deaf: it doesn't listen to cancellation.
        read: the prompts that it only read in.
    """

    answers: Sequence[Sequence[str]] = (("All ", "is ", "well."),)
    finish_reason: FinishReason = "stop"
    fails_after: int | None = None
    failure: NailaError = field(default_factory=lambda: ModelNotLoadedError("no model"))
    hold_after: int | None = None
    deaf: bool = False
    is_loaded: bool = True
    model_name: str | None = "fake"
    may_act: bool = False
    go: asyncio.Event = field(default_factory=asyncio.Event)
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[list[ChatMessage]] = field(default_factory=list)
    read: list[list[ChatMessage]] = field(default_factory=list)
    options: list[SamplingOptions | None] = field(default_factory=list)
    sessions: list[str | None] = field(default_factory=list)

    async def generate_streaming(
        self,
        messages: Sequence[ChatMessage],
        options: SamplingOptions | None = None,
        *,
        session: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> AsyncGenerator[TextPiece | Generation]:
        self.asked.append(list(messages))
        self.sessions.append(session)
        self.options.append(options)
        stopped = Cancellation() if cancellation is None or self.deaf else cancellation
        stopped.subscribe(lambda _: self.go.set())
        pieces = self.answers[min(len(self.asked), len(self.answers)) - 1]
        said: list[str] = []
        for piece in [*pieces, ""]:
            if len(said) == self.fails_after:
                raise self.failure
            if len(said) == self.hold_after:
                self.holding.set()
                await self.go.wait()
            if stopped.cause is not None:
                error = DeadlineExceededError if stopped.cause == "deadline" else GenerationCancelledError
                raise error("stopped", partial=self._generation(said))
            if piece:
                said.append(piece)
                yield TextPiece(piece)
            await asyncio.sleep(0)
        yield self._generation(said)

    async def read_in(self, messages: Sequence[ChatMessage], *, session: str | None = None) -> None:
        self.read.append(list(messages))
        self.sessions.append(session)
        if self.fails_after == 0:
            raise self.failure
        if self.hold_after == 0:
            self.holding.set()
            await self.go.wait()

    def _generation(self, said: list[str]) -> Generation:
        usage = Usage(prompt_tokens=10, completion_tokens=len(said))
        text = "".join(said)
        return Generation(text=text, finish_reason=self.finish_reason, usage=usage, model="fake", tokens_per_second=9.0)


@dataclass
class FakePublisher:
    """Keeps what was published, and to which request."""

    published: list[Outbound] = field(default_factory=list)
    requests: list[Intent | None] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, event: Outbound, *, to: Intent | None = None) -> None:
        self.published.append(event)
        self.requests.append(to)
        self._news.set()

    @property
    def replies(self) -> list[Reply]:
        return [event for event in self.published if isinstance(event, Reply)]

    @property
    def notices(self) -> list[ErrorNotice]:
        return [event for event in self.published if isinstance(event, ErrorNotice)]

    @property
    def stream(self) -> list[StreamItem]:
        return [event for event in self.published if isinstance(event, StreamItem)]

    async def until(self, count: int) -> None:
        """Wait until so many replies and notices were published."""
        while len(self.replies) + len(self.notices) < count:
            self._news.clear()
            await self._news.wait()


@dataclass
class FakeMemory:
    """Remembers in lists; `broken` makes it fail like a database."""

    turns: list[Turn] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    replies: dict[tuple[str, str], Reply] = field(default_factory=dict)
    asked_for: list[str | None] = field(default_factory=list)
    broken: bool = False

    async def recall(self, device_id: str, conversation_id: str, user_id: str | None) -> Recollection:
        self._check()
        self.asked_for.append(user_id)
        mine = [t for t in self.turns if (t.device_id, t.conversation_id) == (device_id, conversation_id)]
        return Recollection(tuple(mine), tuple(Fact(key, value) for key, value in self.facts.items()))

    async def remember(self, turn: Turn, facts: Sequence[Fact], reply: Reply) -> None:
        self._check()
        self.turns.append(turn)
        self.facts |= {fact.key: fact.value for fact in facts}
        self.replies[reply.device_id, reply.id] = reply

    async def answered(self, device_id: str, request_id: str) -> Reply | None:
        self._check()
        return self.replies.get((device_id, request_id))

    def _check(self) -> None:
        if self.broken:
            raise StorageError("disk full")


@dataclass
class FakeInbox:
    """An inbox in memory; `broken` makes it fail like a disk, and `gate` makes it wait.

    Attributes:
        rows: what is not done.
        replies: what was answered.
        begun: what was moved, by request.
        outdated: how often everything was taken for old.
        wanted: an operator's orders.
    """

    rows: dict[tuple[str, str], KeptRequest] = field(default_factory=dict)
    replies: dict[tuple[str, str], Reply] = field(default_factory=dict)
    begun: dict[tuple[str, str], Begun] = field(default_factory=dict)
    outdated: int = 0
    wanted: list[tuple[int, str, str, str]] = field(default_factory=list)
    broken: bool = False
    gate: asyncio.Event | None = None

    async def keep(self, request: Intent, *, is_old: bool = False) -> KeptRequest:
        await self._disk()
        key = request.device_id, request.id
        known = KeptRequest(
            request=request,
            age_s=None if is_old else 0.0,
            reply=self.replies.get(key),
            begun=self.begun.get(key),
        )
        if known.reply is None:
            self.rows.setdefault(key, known)
        return known

    async def undone(self) -> Sequence[KeptRequest]:
        return [replace(row, reply=self.replies.get(key), begun=self.begun.get(key)) for key, row in self.rows.items()]

    async def answer(self, reply: Reply) -> None:
        await self._disk()
        self.replies.setdefault((reply.device_id, reply.id), reply)

    async def done(self, requests: Sequence[tuple[str, str]]) -> None:
        await self._disk()
        for key in requests:
            self.rows.pop(key, None)

    def outdate(self) -> None:
        self.outdated += 1

    async def orders(self) -> Sequence[tuple[int, str, str, str]]:
        return list(self.wanted)

    async def carried_out(self, number: int) -> None:
        self.wanted = [order for order in self.wanted if order[0] > number]

    async def _disk(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise StorageError("disk full")


@dataclass
class FakeFleet(Fleet):
    """Says of each proposal what its script says, in turn; done where the script is at its end.

    Attributes:
        devices: what is seen.
        script: what becomes of proposals.
        proposed: all proposals.
        waits: what waits for a person.
        settled: pending actions that were answered, and how.
        asked_to_stop: the requests that said stop, and through whom.
        stops: whom the emergency stop was sent to.
        hold: proposals of these actions are not answered until `go` is set or the turn is cancelled.
    """

    devices: tuple[DeviceView, ...] = ()
    script: list[OutcomeStatus] = field(default_factory=list)
    proposed: list[Proposal] = field(default_factory=list)
    waits: list[Pending] = field(default_factory=list)
    settled: list[tuple[str, bool]] = field(default_factory=list)
    stops: list[str | None] = field(default_factory=list)
    asked_to_stop: list[tuple[str, str]] = field(default_factory=list)
    hold: frozenset[str] = frozenset()
    go: asyncio.Event = field(default_factory=asyncio.Event)
    holding: asyncio.Event = field(default_factory=asyncio.Event)

    def view(self, speaker: str) -> FleetView:
        return FleetView(speaker, self.devices)

    async def perform(self, proposal: Proposal, *, cancellation: Cancellation | None = None) -> Outcome:
        self.proposed.append(proposal)
        if proposal.name in self.hold:
            self.holding.set()
            if cancellation is not None:
                cancellation.subscribe(lambda _: self.go.set())
            await self.go.wait()
        status = self.script.pop(0) if self.script else "done"
        outcome = Outcome(proposal=proposal, id=f"a{len(self.proposed)}", status=status, message=f"it was {status}")
        if status == "pending":
            self.waits.append(Pending(id=outcome.id, proposal=proposal, question="Sure?", expires_at="2099"))
            return replace(outcome, question="Sure?")
        return replace(outcome, message="") if status == "done" else outcome

    def pending(self, speaker: str) -> tuple[Pending, ...]:
        return tuple(pending for pending in self.waits if pending.proposal.speaker == speaker)

    async def settle(self, speaker: str, pending_id: str, *, approve: bool) -> Pending:
        found = next((pending for pending in self.pending(speaker) if pending.id == pending_id), None)
        if found is None:
            raise ContractError("not_confirmed", f"id: {pending_id!r} waits for nothing", device_id=speaker)
        self.waits.remove(found)
        self.settled.append((pending_id, approve))
        return found

    def stop(self, device_id: str | None, *, request_id: str, speaker: str) -> tuple[str, ...]:
        self.stops.append(device_id)
        self.asked_to_stop.append((request_id, speaker))
        return (device_id,) if device_id else tuple(view.profile.device_id for view in self.devices)


@dataclass
class FakeReader:
    """Reads texts as its script says, and everything else as conversation."""

    script: dict[str, Reading] = field(default_factory=dict)
    questions: list[OpenQuestion | None] = field(default_factory=list)
    contexts: list[tuple[FleetView, str | None]] = field(default_factory=list)
    lasts: list[Sequence[Step]] = field(default_factory=list)

    def read(
        self,
        text: str,
        view: FleetView,
        *,
        question: OpenQuestion | None = None,
        about: str | None = None,
        last: Sequence[Step] = (),
    ) -> Reading:
        self.questions.append(question)
        self.contexts.append((view, about))
        self.lasts.append(last)
        return self.script.get(text, NotACommand())


@dataclass
class FakeApprovals:
    """Keeps what is suspended and settled in lists; `broken` makes it fail like a disk."""

    waits: tuple[Pending, ...] = ()
    suspended: list[Wish] = field(default_factory=list)
    settled: list[tuple[str, str, bool]] = field(default_factory=list)
    broken: bool = False

    def awaited(self, request: Intent) -> tuple[Pending, ...]:
        return tuple(pending for pending in self.waits if pending.proposal.speaker == request.device_id)

    async def settle(self, device_id: str, pending_id: str, *, approve: bool) -> None:
        self.settled.append((device_id, pending_id, approve))

    async def suspend(self, wish: Wish) -> None:
        if self.broken:
            raise StorageError("disk full")
        self.suspended.append(wish)


@dataclass
class FakeClock:
    """Stands still until told otherwise."""

    at: datetime = NOON
    seconds: float = 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.seconds += seconds


def an_intent(text: str = "Hello", **changes: object) -> Intent:
    """A request, as simple as can be."""
    return replace(Intent(device_id="r2", id="q1", text=text), **changes)  # type: ignore[arg-type]
