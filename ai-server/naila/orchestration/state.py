"""What travels through the graph of one turn, and what every node of it may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

from naila.config.patterns import Phrasebook
from naila.config.personas import Persona
from naila.events import ActionOutcome, FinishReason, Intent, JsonValue, Reply, ReplySource, Usage
from naila.fleet import FleetView, Pending, ProposedBy
from naila.orchestration.clock import ClockQuestion, WorldClock
from naila.orchestration.speech import Speech
from naila.orchestration.wanted import Wish
from naila.ports import Cancellation, Clock, ConversationMemory, Fact, Fleet, LanguageModel, Publisher, Recollection
from naila.understanding.reading import Doubtful, OpenQuestion, Reading, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Understanding:
    """What a text was understood as.

    Attributes:
        intent: its name.
        entities: what was named, the device's own word first.
        facts: what it says about the speaker.
        follow_up: it goes on from the turn before.
        clock: what is asked of the clock, if it is.
    """

    intent: str
    entities: Mapping[str, JsonValue] = field(default_factory=dict)
    facts: tuple[Fact, ...] = ()
    follow_up: bool = False
    clock: ClockQuestion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An answer before it becomes the reply.

    Attributes:
        text: the words; of a streamed answer exactly those that were streamed.
        source: who wrote them.
        degraded: no model could be asked, or it failed on the way.
        finish_reason: why it ended.
        note: what the prompt told the model beside the words.
        model: name of the model that wrote it.
        usage: tokens.
        tokens_per_second: decode speed.
        dropped_turns: remembered turns that did not fit the context.
        actions: what was moved.
    """

    text: str
    source: ReplySource
    degraded: bool
    finish_reason: FinishReason = "stop"
    note: str = ""
    model: str | None = None
    usage: Usage = field(default_factory=Usage)
    tokens_per_second: float = 0.0
    dropped_turns: int = 0
    actions: tuple[ActionOutcome, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attended:
    """What a conversation is about at the moment.

    Attributes:
        question: what was asked back and not answered yet.
        steps: the last command, for "again".
        about: the device that was last spoken of, for "it".
        asked: id of the pending action that a person was asked about last, with nothing said since.
    """

    question: OpenQuestion | None = None
    steps: tuple[Step, ...] = ()
    about: str | None = None
    asked: str | None = None


class Reader(Protocol):
    """Whoever reads commands: `naila.understanding.reader`."""

    def read(
        self,
        text: str,
        view: FleetView,
        *,
        question: OpenQuestion | None = None,
        about: str | None = None,
        last: Sequence[Step] = (),
    ) -> Reading:
        """Return what a text was read as."""
        ...


class Approvals(Protocol):
    """The requests that wait for a person's yes or no."""

    def awaited(self, request: Intent) -> tuple[Pending, ...]:
        """Return what waits for a person in the conversation of a request, oldest first."""
        ...

    async def settle(self, device_id: str, pending_id: str, *, approve: bool) -> None:
        """Take a person's answer; what waits goes on by itself.

        Raises:
            ContractError: `not_confirmed`: nothing of that id waits for this device.
        """
        ...

    async def suspend(self, wish: Wish) -> None:
        """Keep a wish that waits for a person, also across a restart; its reply follows by itself."""
        ...


class TurnState(TypedDict, total=False):
    """The graph's state: each node adds what it found out.

    Without `reply` at its end, the turn waits for a person: the wish was suspended.
    """

    request: Intent
    view: FleetView
    reading: Reading
    by: ProposedBy | None
    doubtful: Doubtful
    attended: Attended
    wish: Wish
    understanding: Understanding
    recollection: Recollection
    draft: Draft
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnContext:
    """What the nodes of one turn work with.

    Attributes:
        persona: who answers.
        phrasebook: how texts are understood, and what is said without a model.
        world: time zones by place.
        model: who is asked.
        memory: what was said before.
        clock: what time it is.
        cancellation: tells the turn to end.
        speech: where the answer is said.
        max_tokens: bound on an answer, whatever the request asks.
        started_at: when the turn began.
        received_at: when the request came in.
        fleet: the devices, and the only way to move them.
        reader: reads commands.
        reading_thread: where it does: the only one, and not the event loop's.
        attended: what the conversation is about.
        approvals: what waits for a person.
        publisher: the way out, for refusals.
        max_actions: most actions of one request.
        stop: sends the emergency stop to a device, or to all, and returns whom it was sent to.
        already_stopped: the devices that were stopped as the words of this request came in.
        stopped: whether an emergency stop of a device came after this request did.
        just_stopped: whether an emergency stop of a device came so shortly before this request that it may be older.
        is_old: the request waited elsewhere before it came, nobody knows for how long.
        unhurried: to be called when devices are waited for, whose own limits hold then.
    """

    persona: Persona
    phrasebook: Phrasebook
    world: WorldClock
    model: LanguageModel
    memory: ConversationMemory
    clock: Clock
    cancellation: Cancellation
    speech: Speech
    max_tokens: int
    started_at: float
    received_at: float
    fleet: Fleet
    reader: Reader
    reading_thread: Executor
    attended: Attended
    approvals: Approvals
    publisher: Publisher
    max_actions: int
    stop: Callable[[str | None], tuple[str, ...]]
    already_stopped: tuple[str, ...]
    stopped: Callable[[str], bool]
    just_stopped: Callable[[str], bool]
    is_old: bool
    unhurried: Callable[[], None]
