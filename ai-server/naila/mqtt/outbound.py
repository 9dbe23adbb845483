"""The wire form of what the brain sends: replies, streams, actions, errors, and what it says about itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Literal

from naila.errors import ContractError, ErrorCode
from naila.events import (
    Action,
    ActionOutcome,
    ActionPending,
    Alert,
    BrainState,
    BrainStatus,
    ComponentHealth,
    ComponentState,
    ErrorNotice,
    FinishReason,
    Health,
    Metrics,
    Outbound,
    Reply,
    ReplySource,
    Severity,
    StreamItem,
    Timing,
    Usage,
)
from naila.mqtt import wire
from naila.mqtt.fields import Fields
from naila.mqtt.publication import Publication
from naila.mqtt.topics import ACTION, ERROR, PENDING, REPLY, STREAM, Topics

JSON = "application/json"
METRIC_NAMES = tuple(field.name for field in dataclass_fields(Metrics) if field.name != "extra")


class OutboundCodec:
    """Turns what the brain sends into messages and, for devices, back.

    Args:
        topics: the topics of this installation.
        max_payload_bytes: larger messages are refused on the way in.
    """

    def __init__(self, topics: Topics, max_payload_bytes: int) -> None:
        self._topics = topics
        self._max_bytes = max_payload_bytes
        self._about_brain: dict[str, Callable[[Fields], Outbound]] = {
            topics.health: _read_health,
            topics.metrics: _read_metrics,
            topics.alerts: _read_alert,
        }
        self._to_device: dict[str, Callable[[Fields, str], Outbound]] = {
            REPLY: _read_reply,
            STREAM: _read_stream_item,
            ERROR: _read_error,
            ACTION: _read_action,
            PENDING: _read_pending,
        }

    def encode(self, event: Outbound) -> Publication:
        """Return the message for an event.

        Raises:
            ValueError: the event holds a number that is not finite.
        """
        if isinstance(event, BrainStatus):
            return Publication(topic=self._topics.brain_status, payload=event.status.encode(), qos=1, retain=True)
        topic, fields, qos, retain = self._shape(event)
        return Publication(
            topic=topic,
            payload=wire.dumps(fields),
            qos=qos,
            retain=retain,
            content_type=JSON,
            message_expiry=_expiry_s(event.ttl_ms) if isinstance(event, Action) else None,
        )

    def decode(self, message: Publication) -> Outbound:
        """Return the event that a message of the brain is.

        Raises:
            ContractError: the message is not of the contract.
        """
        text = wire.decode_text(message.payload, max_bytes=self._max_bytes)
        if message.topic == self._topics.brain_status:
            return BrainStatus(status=Fields({"status": text}).choice("status", BrainState))
        if reader := self._about_brain.get(message.topic):
            return reader(Fields(wire.loads(text)))
        device_id, leaf = self._topics.parse(message.topic)
        if device_reader := self._to_device.get(leaf):
            event = device_reader(Fields(wire.loads(text)), device_id)
            left_s = message.message_expiry
            return replace(event, ttl_ms=left_s * 1000) if isinstance(event, Action) and left_s is not None else event
        raise ContractError("bad_topic", f"{message.topic!r} is no topic of the brain", device_id=device_id)

    def _shape(
        self, event: Reply | StreamItem | Action | ActionPending | ErrorNotice | Health | Metrics | Alert
    ) -> tuple[str, dict[str, object], int, bool]:
        """Topic, fields, QoS and retain flag."""
        qos = 1
        match event:
            case Reply():
                leaf, fields = REPLY, _reply(event)
            case StreamItem():
                leaf, fields, qos = STREAM, _stream_item(event), 0
            case Action():
                leaf, fields = ACTION, _action(event)
            case ActionPending():
                leaf, fields = PENDING, _pending(event)
            case ErrorNotice():
                leaf, fields = ERROR, _error(event)
            case Health():
                return self._topics.health, _health(event), 1, True
            case Metrics():
                return self._topics.metrics, _metrics(event), 0, False
            case Alert():
                return self._topics.alerts, _alert(event), 1, False
        return self._topics.device(event.device_id, leaf), fields, qos, False


def _expiry_s(ttl_ms: int | None) -> int | None:
    """Return MQTT's expiry, whole seconds: never before the action's own."""
    return None if ttl_ms is None else max(1, math.ceil(ttl_ms / 1000))


def _present(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _slots(value: Usage | Timing) -> dict[str, object]:
    """The fields of a flat dataclass of numbers, fractions rounded to thousandths."""
    return {field.name: _thousandths(getattr(value, field.name)) for field in dataclass_fields(value)}


def _thousandths(value: float) -> float:
    return round(value, 3) if isinstance(value, float) else value


def _reply(event: Reply) -> dict[str, object]:
    fields: dict[str, object] = {
        "id": event.id,
        "text": event.text,
        "intent": event.intent,
        "source": event.source,
        "degraded": event.degraded,
        "conversation_id": event.conversation_id,
        "finish_reason": event.finish_reason,
        "actions": [_outcome(action) for action in event.actions],
        "model": event.model,
        "usage": _slots(event.usage),
        "timing": _slots(event.timing),
        "dropped_turns": event.dropped_turns or None,
    }
    return _present(fields)


def _read_reply(fields: Fields, device_id: str) -> Reply:
    usage, timing = fields.fields("usage"), fields.fields("timing")
    return Reply(
        device_id=device_id,
        id=fields.string("id"),
        text=fields.string("text"),
        intent=fields.string("intent"),
        source=fields.choice("source", ReplySource),
        degraded=fields.flag("degraded"),
        conversation_id=fields.string("conversation_id"),
        finish_reason=fields.choice("finish_reason", FinishReason),
        actions=tuple(_read_outcome(action) for action in fields.each("actions")),
        model=fields.optional_string("model"),
        usage=Usage(**{field.name: usage.integer(field.name) for field in dataclass_fields(Usage)}),
        timing=Timing(**{field.name: timing.number(field.name) for field in dataclass_fields(Timing)}),
        dropped_turns=fields.optional_integer("dropped_turns", 0, 2**31) or 0,
    )


def _outcome(action: ActionOutcome) -> dict[str, object]:
    fields = {
        "id": action.id,
        "device_id": action.device_id,
        "name": action.name,
        "arguments": action.arguments,
        "ok": action.ok,
        "result": action.result,
        "error": action.error,
    }
    return _present(fields)


def _read_outcome(fields: Fields) -> ActionOutcome:
    return ActionOutcome(
        id=fields.string("id"),
        name=fields.string("name"),
        arguments=fields.object("arguments"),
        ok=fields.optional_flag("ok"),
        result=fields.values.get("result"),
        error=fields.optional_string("error"),
        device_id=fields.optional_string("device_id"),
    )


def _action(event: Action) -> dict[str, object]:
    return {
        "id": event.id,
        "request_id": event.request_id,
        "name": event.name,
        "arguments": event.arguments,
        "expires_at": event.expires_at,
        "seq": event.seq,
    }


def _read_action(fields: Fields, device_id: str) -> Action:
    return Action(
        device_id=device_id,
        id=fields.string("id"),
        request_id=fields.string("request_id"),
        name=fields.string("name"),
        arguments=fields.object("arguments"),
        expires_at=fields.string("expires_at"),
        seq=fields.integer("seq"),
    )


def _pending(event: ActionPending) -> dict[str, object]:
    return {
        "id": event.id,
        "request_id": event.request_id,
        "name": event.name,
        "arguments": event.arguments,
        "question": event.question,
        "expires_at": event.expires_at,
    }


def _read_pending(fields: Fields, device_id: str) -> ActionPending:
    return ActionPending(
        device_id=device_id,
        id=fields.string("id"),
        request_id=fields.string("request_id"),
        name=fields.string("name"),
        arguments=fields.object("arguments"),
        question=fields.string("question"),
        expires_at=fields.string("expires_at"),
    )


def _stream_item(event: StreamItem) -> dict[str, object]:
    fields = {
        "id": event.id,
        "seq": event.seq,
        "text": event.text,
        "sentence_end": event.sentence_end or None,
        "done": event.done,
    }
    return _present(fields)


def _read_stream_item(fields: Fields, device_id: str) -> StreamItem:
    return StreamItem(
        device_id=device_id,
        id=fields.string("id"),
        seq=fields.integer("seq"),
        text=fields.string("text"),
        done=fields.flag("done"),
        sentence_end=fields.optional_flag("sentence_end") or False,
    )


def _error(event: ErrorNotice) -> dict[str, object]:
    return _present({"id": event.id, "code": event.code, "message": event.message})


def _read_error(fields: Fields, device_id: str) -> ErrorNotice:
    return ErrorNotice(
        device_id=device_id,
        code=fields.choice("code", ErrorCode),
        message=fields.string("message"),
        id=fields.optional_string("id"),
    )


def _health(event: Health) -> dict[str, object]:
    return {
        "status": event.status,
        "version": event.version,
        "uptime_s": _thousandths(event.uptime_s),
        "phase": event.phase,
        "components": {
            name: _present({"status": component.status, "detail": component.detail})
            for name, component in event.components.items()
        },
    }


def _read_health(fields: Fields) -> Health:
    components = fields.fields("components")
    return Health(
        status=fields.choice("status", BrainState),
        version=fields.string("version"),
        uptime_s=fields.number("uptime_s"),
        phase=fields.string("phase"),
        components={name: _read_component(components.fields(name)) for name in components.values},
    )


def _read_component(fields: Fields) -> ComponentHealth:
    return ComponentHealth(status=fields.choice("status", ComponentState), detail=fields.optional_string("detail"))


def _metrics(event: Metrics) -> dict[str, object]:
    fixed = {name: _thousandths(getattr(event, name)) for name in METRIC_NAMES if name != "temperature"}
    return {**event.extra, **fixed, "temperature": event.temperature}


def _read_metrics(fields: Fields) -> Metrics:
    return Metrics(
        llm_status=fields.choice("llm_status", Literal["loaded", "unloaded", "error"]),
        model_name=fields.optional_string("model_name"),
        inference_time_ms=fields.number("inference_time_ms"),
        tokens_generated=fields.integer("tokens_generated"),
        tokens_per_second=fields.number("tokens_per_second"),
        context_length=fields.integer("context_length"),
        temperature=fields.number("temperature"),
        hardware_acceleration=fields.choice("hardware_acceleration", Literal["cpu", "cuda", "metal", "vulkan"]),
        extra=fields.without(*METRIC_NAMES),
    )


def _alert(event: Alert) -> dict[str, object]:
    fields = {
        "code": event.code,
        "severity": event.severity,
        "message": event.message,
        "device_id": event.device_id,
        "value": event.value,
        "threshold": event.threshold,
    }
    return _present(fields)


def _read_alert(fields: Fields) -> Alert:
    return Alert(
        code=fields.string("code"),
        severity=fields.choice("severity", Severity),
        message=fields.string("message"),
        device_id=fields.optional_string("device_id"),
        value=fields.optional_number("value"),
        threshold=fields.optional_number("threshold"),
    )
