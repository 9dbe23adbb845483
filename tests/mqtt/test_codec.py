"""Every event class goes over the wire and back: a new one is found by itself."""

import dataclasses
import json
import typing
from types import UnionType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila import events
from naila.errors import ContractError
from naila.events import (
    Action,
    ActionOutcome,
    ActionPending,
    BrainStatus,
    Capabilities,
    ErrorNotice,
    Intent,
    Metrics,
    Reply,
    StreamItem,
    Telemetry,
)
from naila.fleet import is_id
from naila.mqtt.codec import Codec, random_id
from naila.mqtt.inbound import MAX_EXPIRY_MS, MAX_TOKENS
from naila.mqtt.publication import Publication
from naila.mqtt.topics import Topics

CODEC = Codec(Topics("naila"), 10**6)
INBOUND = typing.get_args(events.Inbound)
OUTBOUND = typing.get_args(events.Outbound)

IDS = st.text("abcXYZ019_-", min_size=1, max_size=64)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
JSON_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
NAMES = WORDS.filter(lambda name: name.isprintable() and len(name) <= 64)
READINGS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | NAMES


def _is_not_its_id(name: str) -> bool:
    return name != "device_id"


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "conversation_id": IDS,
    "user_id": st.none() | IDS,
    "persona": st.none() | IDS,
    "max_tokens": st.none() | st.integers(1, MAX_TOKENS),
    "temperature": st.floats(0, 2),
    "expires_in_ms": st.none() | st.integers(1, MAX_EXPIRY_MS),
    "response_topic": st.none() | IDS.map(lambda name: f"answers/{name}"),
    "correlation_data": st.none() | st.binary(max_size=64),
    "result": st.none() | JSON_VALUES,
    # A device's own id may stand beside what it says, and is then no part of it.
    "document": st.none() | st.dictionaries(WORDS.filter(_is_not_its_id), JSON_VALUES, min_size=1, max_size=3),
    "values": st.dictionaries(NAMES.filter(_is_not_its_id), READINGS, max_size=3),
    "ttl_ms": st.none() | st.integers(1, 86_400).map(lambda seconds: seconds * 1000),
    "detail": st.dictionaries(IDS.map(lambda name: f"d_{name}"), JSON_VALUES, max_size=3),
    "extra": st.dictionaries(IDS.map(lambda name: f"m_{name}"), JSON_VALUES, max_size=3),
}
INTENT_FIELD = {"intent": IDS}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation, as far as events use them."""
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return built(typing.cast("type", kind))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (UnionType, typing.Union):
        return st.one_of(*(values(argument) for argument in arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is not None:  # a mapping
        inner = values(arguments[1]) if dataclasses.is_dataclass(arguments[1]) else JSON_VALUES
        return st.dictionaries(WORDS, inner, max_size=3)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: WORDS,
        bool: st.booleans(),
        int: st.integers(0, 2**31),
        float: st.integers(0, 10**9).map(lambda thousandths: thousandths / 1000),
        type(None): st.none(),
    }
    return plain[kind]


def built(cls: type) -> st.SearchStrategy[Any]:
    """Events of a class."""
    hints = typing.get_type_hints(cls)
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for name, hint in hints.items():
        if name in ("id", "device_id"):
            fields[name] = st.none() | IDS if type(None) in typing.get_args(hint) else IDS
        elif name in ("intent", "status") and (hint is str or cls is Intent):
            fields[name] = IDS
        elif name == "detail" and cls is events.ComponentHealth:
            fields[name] = st.none() | WORDS
        else:
            fields[name] = FIELDS[name] if name in FIELDS else values(hint)
    return st.builds(cls, **fields)


@pytest.mark.parametrize("cls", INBOUND, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_what_devices_send_survives_the_wire(cls: type, data: st.DataObject) -> None:
    event = data.draw(built(cls))
    sent = CODEC.encode(event)
    arrived = dataclasses.replace(sent, retain=False)
    assert CODEC.decode(arrived) == event


@pytest.mark.parametrize("cls", OUTBOUND, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_what_the_brain_sends_survives_the_wire(cls: type, data: st.DataObject) -> None:
    event = data.draw(built(cls))
    assert CODEC.decode_outbound(CODEC.encode(event)) == event


def reply(**changes: Any) -> Reply:
    fields: dict[str, Any] = {
        "device_id": "r1",
        "id": "a1",
        "text": "hü",
        "intent": "greeting",
        "source": "llm",
        "degraded": False,
        "conversation_id": "default",
        "finish_reason": "stop",
    }
    return Reply(**fields | changes)


def test_the_reply_on_the_wire() -> None:
    timing = events.Timing(queue_ms=0.12345, ttft_ms=1, total_ms=2.5, tokens_per_second=1 / 3)
    action = ActionOutcome(id="m1", name="drive", arguments={"m": 1})
    message = CODEC.encode(reply(timing=timing, actions=(action,)))
    assert (message.topic, message.qos, message.retain) == ("naila/devices/r1/reply", 1, False)
    assert message.content_type == "application/json"
    assert json.loads(message.payload) == {
        "id": "a1",
        "text": "hü",
        "intent": "greeting",
        "source": "llm",
        "degraded": False,
        "conversation_id": "default",
        "finish_reason": "stop",
        "actions": [{"id": "m1", "name": "drive", "arguments": {"m": 1}}],
        "usage": {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0},
        "timing": {"queue_ms": 0.123, "ttft_ms": 1, "total_ms": 2.5, "tokens_per_second": 0.333},
    }


def test_optional_keys_of_a_reply_are_there_when_they_say_something() -> None:
    fields = json.loads(CODEC.encode(reply(model="m", dropped_turns=2)).payload)
    assert (fields["model"], fields["dropped_turns"]) == ("m", 2)


def test_the_other_messages_on_the_wire() -> None:
    piece = CODEC.encode(StreamItem(device_id="r1", id="a1", seq=0, text="Hi", done=False))
    assert (piece.topic, piece.qos) == ("naila/devices/r1/reply/stream", 0)
    assert json.loads(piece.payload) == {"id": "a1", "seq": 0, "text": "Hi", "done": False}
    error = CODEC.encode(ErrorNotice(device_id="a b", code="bad_topic", message="no"))
    assert (error.topic, error.qos) == ("naila/devices/a b/error", 1)
    status = CODEC.encode(BrainStatus(status="online"))
    assert (status.topic, status.payload, status.qos, status.retain) == ("naila/ai/status", b"online", 1, True)


def action(**changes: Any) -> Action:
    fields: dict[str, Any] = {
        "device_id": "r1",
        "id": "m1",
        "request_id": "a1",
        "name": "drive",
        "arguments": {"metres": 1.5},
        "expires_at": "2030-01-01T00:00:00Z",
        "seq": 7,
    }
    return Action(**fields | changes)


def test_an_action_on_the_wire() -> None:
    message = CODEC.encode(action(ttl_ms=2100))
    assert (message.topic, message.qos, message.retain) == ("naila/devices/r1/action", 1, False)
    assert (message.content_type, message.message_expiry) == ("application/json", 3)
    assert json.loads(message.payload) == {
        "id": "m1",
        "request_id": "a1",
        "name": "drive",
        "arguments": {"metres": 1.5},
        "expires_at": "2030-01-01T00:00:00Z",
        "seq": 7,
    }


@pytest.mark.parametrize(
    ("ttl_ms", "expiry_s"), [(None, None), (0, 1), (1, 1), (1000, 1), (1001, 2), (86_400_000, 86_400)]
)
def test_an_action_never_expires_at_the_broker_before_its_time(ttl_ms: int | None, expiry_s: int | None) -> None:
    assert CODEC.encode(action(ttl_ms=ttl_ms)).message_expiry == expiry_s


def test_a_device_hears_what_is_left_of_an_actions_time() -> None:
    heard = CODEC.decode_outbound(dataclasses.replace(CODEC.encode(action(ttl_ms=5000)), message_expiry=2))
    assert heard == action(ttl_ms=2000)


def test_a_pending_action_on_the_wire() -> None:
    pending = ActionPending(
        device_id="r1",
        id="p1",
        request_id="a1",
        name="open",
        arguments={},
        question="Really open?",
        expires_at="2030-01-01T00:00:00Z",
    )
    message = CODEC.encode(pending)
    assert (message.topic, message.qos, message.retain) == ("naila/devices/r1/action/pending", 1, False)
    assert json.loads(message.payload) == {
        "id": "p1",
        "request_id": "a1",
        "name": "open",
        "arguments": {},
        "question": "Really open?",
        "expires_at": "2030-01-01T00:00:00Z",
    }


def test_an_action_of_another_device_is_named_in_the_reply() -> None:
    message = CODEC.encode(reply(actions=(ActionOutcome(id="m1", name="drive", device_id="rover"),)))
    assert json.loads(message.payload)["actions"] == [
        {"id": "m1", "device_id": "rover", "name": "drive", "arguments": {}}
    ]


def test_what_devices_keep_at_the_broker_and_what_they_only_say() -> None:
    kept = CODEC.encode(Capabilities(device_id="r1", document={"name": "R"}))
    gone = CODEC.encode(Capabilities(device_id="r1", document=None))
    measured = CODEC.encode(Telemetry(device_id="r1", values={"t": 1.5}))
    assert [(message.qos, message.retain) for message in (kept, gone, measured)] == [(1, True), (1, True), (0, False)]
    assert gone.payload == b""


def test_a_fixed_metric_cannot_be_shadowed() -> None:
    metrics = Metrics(
        llm_status="loaded",
        model_name=None,
        inference_time_ms=1.0004,
        tokens_generated=3,
        tokens_per_second=2.0,
        context_length=4096,
        temperature=0.7,
        hardware_acceleration="cpu",
        extra={"tokens_generated": 99, "queue_depth": 1},
    )
    fields = json.loads(CODEC.encode(metrics).payload)
    assert (fields["tokens_generated"], fields["queue_depth"], fields["model_name"]) == (3, 1, None)


@pytest.mark.parametrize(
    ("topic", "payload", "says"),
    [
        ("naila/ai/status", b"asleep", "status must be one of starting, online"),
        ("naila/devices/r1/intent", b"{}", "is no topic of the brain"),
        ("naila/ai/nothing", b"{}", "is not naila/devices/"),
        ("naila/devices/r1/reply", b'{"id": "a", "text": "", "intent": "x", "source": "me"}', "source must be one of"),
        ("naila/devices/r1/reply/stream", b'{"id": "a", "seq": -1}', "seq must be a whole number"),
        ("naila/devices/r1/error", b'{"code": "oops", "message": "x"}', "code must be one of"),
    ],
)
def test_a_device_refuses_what_no_brain_sends(topic: str, payload: bytes, says: str) -> None:
    with pytest.raises(ContractError, match=says):
        CODEC.decode_outbound(Publication(topic=topic, payload=payload))


def test_made_ids_are_ids() -> None:
    assert all(is_id(random_id()) for _ in range(100))
