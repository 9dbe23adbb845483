"""What comes in and what goes out: every message of the contract as a frozen dataclass.

The wire form of each is `naila.mqtt.codec`; nothing else in the house knows topics or JSON.
Times are seconds on the monotonic clock unless a name ends in `_ms` (durations) or `_at` (RFC 3339 UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from naila.errors import ErrorCode

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"

FinishReason = Literal["stop", "length", "cancelled", "deadline"]
ReplySource = Literal["llm", "pattern", "cache", "remote", "action"]
BrainState = Literal["starting", "online", "degraded", "stopping", "offline"]
ComponentState = Literal["ok", "degraded", "down"]
Severity = Literal["info", "warning", "critical"]

DEFAULT_CONVERSATION = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What somebody said to a device, or wants of it.

    Attributes:
        device_id: who speaks, taken from the topic.
        id: idempotency key; made by the brain where the device sent none.
        text: the words, never blank.
        intent: the intent, where the device already knows it.
        entities: named values that the device already extracted.
        conversation_id: which of the device's conversations this belongs to.
        user_id: which person speaks, where the device knows.
        persona: who should answer, else the brain's default.
        stream: also publish the answer piece by piece.
        partial: a transcript that still grows: read into the KV cache, answered by nothing.
        max_tokens: bound on the answer, in tokens.
        temperature: sampling temperature, 0 to 2.
        expires_in_ms: after this the answer is no longer wanted.
        context: readings of the moment that the answer may need.
        response_topic: MQTT 5 response topic: the reply goes there too.
        correlation_data: MQTT 5 correlation data, echoed with the reply.
    """

    device_id: str
    id: str
    text: str
    intent: str | None = None
    entities: Mapping[str, JsonValue] = field(default_factory=dict)
    conversation_id: str = DEFAULT_CONVERSATION
    user_id: str | None = None
    persona: str | None = None
    stream: bool = False
    partial: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    expires_in_ms: int | None = None
    context: Mapping[str, JsonValue] = field(default_factory=dict)
    response_topic: str | None = None
    correlation_data: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Stop one request of a device, or all of them.

    Attributes:
        device_id: whose requests, taken from the topic.
        id: the request to stop; None stops every request of the device.
    """

    device_id: str
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """A device came or went.

    Attributes:
        device_id: which device, taken from the topic.
        status: `online`, `offline`, or a word of the device's own.
        detail: the rest of the JSON object, where the device sent one.
    """

    device_id: str
    status: str
    detail: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a device says that it can do and measures, retained. Its content is checked by `naila.devices`.

    Attributes:
        device_id: whose, taken from the topic.
        document: the JSON object; None where the device removed it.
    """

    device_id: str
    document: Mapping[str, JsonValue] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What a device measured.

    Attributes:
        device_id: who, taken from the topic.
        values: flat: numbers, booleans and short strings by field.
    """

    device_id: str
    values: Mapping[str, float | int | bool | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """What a device says became of an action.

    Attributes:
        device_id: who, taken from the topic.
        id: the action's id.
        ok: whether it was done.
        result: what it returned.
        error: why it failed.
    """

    device_id: str
    id: str
    ok: bool
    result: JsonValue = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyStop:
    """Stop moving, now.

    Attributes:
        device_id: who, taken from the topic; None: everybody.
    """

    device_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A person's answer to a pending action.

    Attributes:
        device_id: through which device, taken from the topic.
        id: the pending action's id.
        approve: yes or no.
    """

    device_id: str
    id: str
    approve: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one answer.

    Attributes:
        prompt_tokens: tokens of the whole prompt.
        cached_tokens: how many of them were already in the KV cache and not read again.
        completion_tokens: tokens sampled, the end token included.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time of one answer went.

    Attributes:
        queue_ms: from receipt to the start of the turn.
        ttft_ms: from the start of the turn to its first text.
        total_ms: from receipt to the finished answer.
        tokens_per_second: decode speed, 0 where no model was asked.
    """

    queue_ms: float = 0.0
    ttft_ms: float = 0.0
    total_ms: float = 0.0
    tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOutcome:
    """An action that a reply speaks of.

    Attributes:
        id: the action's id.
        name: as declared by the device.
        arguments: as sent.
        ok: what the device said; None while it has not.
        result: what the device returned.
        error: why it failed, or was not sent.
        device_id: which device, where it is not the one that is answered.
    """

    id: str
    name: str
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    ok: bool | None = None
    result: JsonValue = None
    error: str | None = None
    device_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The whole answer to one request; exactly one for each accepted request.

    Attributes:
        device_id: whom it is for.
        id: the request's id.
        text: the words.
        intent: what the request was understood as.
        source: who wrote the words.
        degraded: true when no model could be asked.
        conversation_id: the conversation that it belongs to.
        finish_reason: why the answer ended.
        actions: what was moved.
        model: name of the model that wrote it.
        usage: tokens.
        timing: times.
        dropped_turns: remembered turns that were left out because the context was full.
    """

    device_id: str
    id: str
    text: str
    intent: str
    source: ReplySource
    degraded: bool
    conversation_id: str
    finish_reason: FinishReason
    actions: tuple[ActionOutcome, ...] = ()
    model: str | None = None
    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)
    dropped_turns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamItem:
    """A piece of an answer while it is written; the pieces together equal the reply's text.

    Attributes:
        device_id: whom it is for.
        id: the request's id.
        seq: 0, 1, 2, … without gaps.
        text: the words since the last item.
        done: true on the last item, which carries no text.
        sentence_end: the text so far ends a sentence: speech may start.
    """

    device_id: str
    id: str
    seq: int
    text: str
    done: bool
    sentence_end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a device is to do. Only `naila.devices.dispatcher` makes one.

    Attributes:
        device_id: who.
        id: the action's id, which its result names.
        request_id: the request that it comes from.
        name: as declared, or `stop`.
        arguments: checked against the declared schema.
        expires_at: RFC 3339 UTC; not to be begun after that.
        seq: counts up for each device; what comes with a lower one is a duplicate or late.
        ttl_ms: time to live, which is also the message's expiry at the broker; not on the wire.
    """

    device_id: str
    id: str
    request_id: str
    name: str
    arguments: Mapping[str, JsonValue]
    expires_at: str
    seq: int
    ttl_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionPending:
    """An action that waits for a person's `confirm`.

    Attributes:
        device_id: who asks the person.
        id: what `confirm` must name.
        request_id: the request that it comes from.
        name: of the action.
        arguments: exactly what would be done.
        question: to be said to the person.
        expires_at: RFC 3339 UTC; an approval after that counts for nothing.
    """

    device_id: str
    id: str
    request_id: str
    name: str
    arguments: Mapping[str, JsonValue]
    question: str
    expires_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorNotice:
    """What was refused, and why.

    Attributes:
        device_id: whom it is for, as its topic names it.
        code: one of the contract's codes.
        message: what was wrong and where.
        id: the request's id, where one could be read.
    """

    device_id: str
    code: ErrorCode
    message: str
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrainStatus:
    """The brain's state in one word, retained.

    Attributes:
        status: the word.
    """

    status: BrainState


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentHealth:
    """How one part of the brain is.

    Attributes:
        status: `ok`, `degraded` or `down`.
        detail: what a person should know, with the fix where there is one.
    """

    status: ComponentState
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the brain is, retained.

    Attributes:
        status: as on the status topic.
        version: NAILA's version.
        uptime_s: since the process started.
        phase: the phase of life that the daemon is in.
        components: by name: mqtt, llm, memory, ….
    """

    status: BrainState
    version: str
    uptime_s: float
    phase: str
    components: Mapping[str, ComponentHealth]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Figures about the brain since it started.

    Attributes:
        llm_status: `loaded`, `unloaded` or `error`.
        model_name: the loaded model.
        inference_time_ms: of the last answer.
        tokens_generated: in all.
        tokens_per_second: decode speed of the last answer.
        context_length: tokens of context.
        temperature: default sampling temperature.
        hardware_acceleration: where the model runs.
        extra: percentiles, queue depth, memory and counters, by name.
    """

    llm_status: Literal["loaded", "unloaded", "error"]
    model_name: str | None
    inference_time_ms: float
    tokens_generated: int
    tokens_per_second: float
    context_length: int
    temperature: float
    hardware_acceleration: Literal["cpu", "cuda", "metal", "vulkan"]
    extra: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that a person should know now.

    Attributes:
        code: what kind, stable.
        severity: how bad.
        message: what it means and what to do.
        device_id: the device concerned, if one.
        value: the figure that was seen.
        threshold: the figure that it crossed.
    """

    code: str
    severity: Severity
    message: str
    device_id: str | None = None
    value: float | None = None
    threshold: float | None = None


Inbound = Intent | Cancel | DeviceStatus | Capabilities | Telemetry | ActionResult | EmergencyStop | Confirmation
Outbound = Reply | StreamItem | Action | ActionPending | ErrorNotice | BrainStatus | Health | Metrics | Alert
