"""What travels through the graph of one turn, and what every node of it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from naila.config.patterns import Phrasebook
from naila.config.personas import Persona
from naila.events import FinishReason, Intent, JsonValue, Reply, ReplySource, Usage
from naila.orchestration.clock import ClockQuestion, WorldClock
from naila.orchestration.speech import Speech
from naila.ports import Cancellation, Clock, ConversationMemory, Fact, LanguageModel, Recollection


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


class TurnState(TypedDict, total=False):
    """The graph's state: each node adds what it found out."""

    request: Intent
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
