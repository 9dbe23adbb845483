"""What devices send: what is taken, and every way to be refused, with its code and message."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.errors import ContractError
from naila.events import (
    ActionResult,
    Cancel,
    Capabilities,
    Confirmation,
    DeviceStatus,
    EmergencyStop,
    Inbound,
    Intent,
    Telemetry,
)
from naila.mqtt.codec import Codec
from naila.mqtt.publication import Publication
from naila.mqtt.topics import BRAIN_LEAVES, DEVICE_LEAVES, Topics

CODEC = Codec(Topics("naila"), 65_536, make_id=lambda: "made")


def decode(payload: bytes | str | dict[str, Any], leaf: str = "intent", **properties: Any) -> Inbound:
    if isinstance(payload, dict):
        payload = json.dumps(payload)
    if isinstance(payload, str):
        payload = payload.encode()
    event = CODEC.decode(Publication(topic=f"naila/devices/r1/{leaf}", payload=payload, qos=1, **properties))
    assert event is not None
    return event


def refusal(payload: bytes | str | dict[str, Any], leaf: str = "intent", **properties: Any) -> ContractError:
    with pytest.raises(ContractError) as caught:
        decode(payload, leaf, **properties)
    assert caught.value.device_id == "r1"
    return caught.value


def test_a_full_intent() -> None:
    fields = {
        "id": "a1",
        "text": "drive",
        "intent": "move",
        "entities": {"distance": 2},
        "conversation_id": "c",
        "user_id": "ann",
        "persona": "pirate",
        "stream": True,
        "partial": True,
        "max_tokens": 7,
        "temperature": 1,
        "expires_in_ms": 500,
        "context": {"battery": 0.5},
        "from_the_future": [1],
    }
    fields_known = {name: value for name, value in fields.items() if name != "from_the_future"}
    assert decode(fields) == Intent(device_id="r1", **fields_known)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["hello", " 5", '"x"', "grüß {dich}", "null", "tab\tand\nline"])
def test_bare_text_is_what_was_said(text: str) -> None:
    assert decode(text) == Intent(device_id="r1", id="made", text=text)


def test_null_is_absent_and_device_id_may_repeat_the_topic() -> None:
    nulls = dict.fromkeys(["id", "intent", "entities", "stream", "max_tokens", "temperature", "context"])
    assert decode({"text": "x", "device_id": "r1", **nulls}) == Intent(device_id="r1", id="made", text="x")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "text is missing"),
        ({"text": None}, "text is missing"),
        ({"text": 5}, "text must be a string"),
        ({"text": " \n"}, "text must not be blank"),
        ({"text": "a\x00b"}, "U+0000 at character 1"),
        ({"text": "a\x1b[2J"}, "U+001B"),
        ({"text": "x", "id": "a b"}, "id must be 1 to 64"),
        ({"text": "x", "id": ""}, "id must be 1 to 64"),
        ({"text": "x", "id": 5}, "id must be a string"),
        ({"text": "x", "conversation_id": "a/b"}, "conversation_id must be"),
        ({"text": "x", "user_id": "x" * 65}, "user_id must be"),
        ({"text": "x", "persona": "../x"}, "persona must be"),
        ({"text": "x", "intent": "é"}, "intent must be"),
        ({"text": "x", "entities": []}, "entities must be an object"),
        ({"text": "x", "context": "warm"}, "context must be an object"),
        ({"text": "x", "stream": 1}, "stream must be true or false"),
        ({"text": "x", "partial": "true"}, "partial must be true or false"),
        ({"text": "x", "max_tokens": True}, "max_tokens must be a whole number from 1 to 131072"),
        ({"text": "x", "max_tokens": 0}, "max_tokens must be"),
        ({"text": "x", "max_tokens": 1.0}, "max_tokens must be"),
        ({"text": "x", "max_tokens": 131_073}, "max_tokens must be"),
        ({"text": "x", "temperature": 2.1}, "temperature must be a number from 0 to 2"),
        ({"text": "x", "temperature": "hot"}, "temperature must be"),
        ({"text": "x", "temperature": False}, "temperature must be"),
        ({"text": "x", "expires_in_ms": 86_400_001}, "expires_in_ms must be"),
        ({"text": "x", "device_id": "r2"}, "device_id differs from the topic's"),
        ({"text": "x", "device_id": 1}, "device_id differs"),
    ],
)
def test_wrong_fields_are_named_with_what_is_allowed(fields: dict[str, Any], says: str) -> None:
    error = refusal(fields)
    assert error.code == "bad_payload"
    assert says in str(error)


@pytest.mark.parametrize(
    ("payload", "code", "says"),
    [
        (b"", "bad_payload", "blank"),
        (b"\xff", "bad_payload", "not UTF-8"),
        (b"{text: hi}", "bad_payload", "not valid JSON"),
        (b" {", "bad_payload", "not valid JSON"),
        (b'["hi"]', "bad_payload", "must be a JSON object, got an array"),
        (b"x" * 65_537, "too_large", "65537 bytes, the limit is 65536"),
        (b"bell\x07", "bad_payload", "U+0007"),
        (b'{"text": "x", "context": {"t": NaN}}', "bad_payload", "context.t: NaN"),
    ],
)
def test_unreadable_payloads(payload: bytes, code: str, says: str) -> None:
    error = refusal(payload)
    assert error.code == code
    assert says in str(error)


def test_a_refusal_carries_the_id_where_one_could_be_read() -> None:
    assert refusal({"id": "a1", "text": ""}).request_id == "a1"
    assert refusal({"id": "a1", "text": "x"}, retain=True).request_id == "a1"
    assert refusal({"id": "a 1", "text": "x"}).request_id is None
    assert refusal("{").request_id is None


def test_an_old_wish_is_not_a_wish() -> None:
    assert "old wish" in str(refusal("hello", retain=True))
    assert "old wish" in str(refusal("{}", "cancel", retain=True))
    assert "old wish" in str(refusal({"id": "m1", "ok": True}, "action/result", retain=True))
    assert "old wish" in str(refusal({"id": "p1", "approve": True}, "confirm", retain=True))
    assert decode("online", "status", retain=True) == DeviceStatus(device_id="r1", status="online")


@pytest.mark.parametrize("leaf", ["intent", "cancel", "action/result", "confirm"])
def test_an_old_wish_may_be_cleared(leaf: str) -> None:
    assert CODEC.decode(Publication(topic=f"naila/devices/r1/{leaf}", payload=b"", qos=1, retain=True)) is None
    assert refusal(" ", leaf, retain=True).code == "bad_payload"


@pytest.mark.parametrize("payload", ["", "  ", "{}", '{"id": null}', '{"why": "bored"}'])
def test_a_cancel_without_id_means_everything(payload: str) -> None:
    assert decode(payload, "cancel") == Cancel(device_id="r1")


def test_a_cancel_of_one_request() -> None:
    assert decode({"id": "a1"}, "cancel") == Cancel(device_id="r1", id="a1")
    assert "id must be" in str(refusal({"id": "a 1"}, "cancel"))
    assert "not valid JSON" in str(refusal("a1", "cancel"))


def test_statuses() -> None:
    assert decode(" online\n", "status").status == "online"  # type: ignore[union-attr]
    assert decode("", "status", retain=True) == DeviceStatus(device_id="r1", status="unknown")
    full = {"status": "asleep", "device_id": "r1", "battery": 4}
    assert decode(full, "status") == DeviceStatus(device_id="r1", status="asleep", detail={"battery": 4})
    for wrong in ['"online"', "two words", "{}", "[]", '{"status": 1}', '{"status": "a b"}', "x" * 65]:
        assert refusal(wrong, "status").code == "bad_payload"


def test_capabilities_are_any_object_and_nothing_removes_them() -> None:
    document: dict[str, Any] = {"name": "Rover", "actions": [{"name": "drive"}], "anything": None}
    assert decode(document, "capabilities", retain=True) == Capabilities(device_id="r1", document=document)
    assert decode({**document, "device_id": "r1"}, "capabilities") == Capabilities(device_id="r1", document=document)
    assert decode("", "capabilities", retain=True) == Capabilities(device_id="r1", document=None)
    assert decode("{}", "capabilities") == Capabilities(device_id="r1", document={})
    assert "must be a JSON object" in str(refusal("[]", "capabilities"))
    assert "not valid JSON" in str(refusal("rover", "capabilities"))
    assert "device_id differs" in str(refusal({"device_id": "r2"}, "capabilities"))


def test_telemetry_is_flat() -> None:
    values: dict[str, Any] = {"t": 21.5, "n": 3, "on": True, "mode": "idle", "empty": ""}
    assert decode({**values, "gone": None, "device_id": "r1"}, "telemetry") == Telemetry(device_id="r1", values=values)
    assert decode("{}", "telemetry") == Telemetry(device_id="r1", values={})


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"pose": {"x": 1}}, "'pose' must be a number, true, false or a string: telemetry is flat"),
        ({"list": [1]}, "'list' must be"),
        ({"a": [], "b": 1, "c": {}}, "'a' must be a number, true, false or a string: telemetry is flat; 'c' must"),
        ({f"f{number}": [] for number in range(8)}, "; and 3 more"),
        ({"": 1}, "'' is no name of a field: it must have 1 to 64 characters"),
        ({"k" * 65: 1}, "(65 characters) is no name"),
        ({"a\x1b[2J": 1}, "holds a control character"),
        ({"text": "x" * 257}, "'text' has 257 characters, the limit is 256"),
        ({"text": "\x1b[2J"}, "'text' holds the control character U+001B"),
        ({str(number): 1 for number in range(257)}, "telemetry has 257 fields, the limit is 256"),
        ('{"t": NaN}', "t: NaN is not a finite number"),
        ('{"t": 1, "t": 2}', "t: the key stands there twice"),
        ({"device_id": "r2"}, "device_id differs"),
        ("21.5", "must be a JSON object"),
    ],
)
def test_wrong_readings_are_named(payload: str | dict[str, Any], says: str) -> None:
    error = refusal(payload, "telemetry")
    assert error.code == "bad_payload"
    assert says in str(error)


def test_a_reading_that_the_broker_kept_is_of_nobody_knows_when() -> None:
    message = Publication(topic="naila/devices/r1/telemetry", payload=b'{"t": 1}', retain=True)
    assert CODEC.decode(message) is None


def test_what_became_of_an_action() -> None:
    done = decode({"id": "m1", "ok": True, "result": {"metres": 1}}, "action/result")
    assert done == ActionResult(device_id="r1", id="m1", ok=True, result={"metres": 1})
    failed = decode({"id": "m1", "ok": False, "error": "blocked"}, "action/result")
    assert failed == ActionResult(device_id="r1", id="m1", ok=False, error="blocked")
    assert "ok is missing" in str(refusal({"id": "m1"}, "action/result"))
    assert "ok must be true or false" in str(refusal({"id": "m1", "ok": 1}, "action/result"))
    assert "id is missing" in str(refusal({"ok": True}, "action/result"))
    assert "error must be a string" in str(refusal({"id": "m1", "ok": False, "error": 5}, "action/result"))


def test_a_persons_answer() -> None:
    assert decode({"id": "p1", "approve": True}, "confirm") == Confirmation(device_id="r1", id="p1", approve=True)
    assert "approve is missing" in str(refusal({"id": "p1"}, "confirm"))
    assert "approve must be true or false" in str(refusal({"id": "p1", "approve": "yes"}, "confirm"))
    assert "not valid JSON" in str(refusal("yes", "confirm"))


@pytest.mark.parametrize("payload", [b"", b"now!", b"\xff\x00", b"{", b"[" * 1000, b"x" * 100_000])
def test_a_stop_is_a_stop_whatever_it_says(payload: bytes) -> None:
    assert decode(payload, "stop") == EmergencyStop(device_id="r1")
    assert CODEC.decode(Publication(topic="naila/fleet/stop", payload=payload)) == EmergencyStop()


def test_a_stop_that_the_broker_kept_is_an_old_one() -> None:
    assert "a retained stop is an old one" in str(refusal("", "stop", retain=True))
    with pytest.raises(ContractError, match="old one") as caught:
        CODEC.decode(Publication(topic="naila/fleet/stop", retain=True))
    assert caught.value.device_id is None


@pytest.mark.parametrize("payload", ["stop", '{"text": "stop"}', '{"text": "stop", "temperature": 9, "id": "a b"}'])
def test_what_was_said_is_read_before_the_intent_is_checked(payload: str) -> None:
    assert CODEC.said(Publication(topic="naila/devices/r1/intent", payload=payload.encode())) == ("r1", "stop")


@pytest.mark.parametrize(
    "message",
    [
        Publication(topic="naila/devices/r1/status", payload=b"stop"),
        Publication(topic="naila/devices/a b/intent", payload=b"stop"),
        Publication(topic="naila/devices/r1/intent", payload=b"stop", retain=True),
        Publication(topic="naila/devices/r1/intent", payload=b" " * 4093 + b"stop"),
        Publication(topic="naila/devices/r1/intent", payload=b'{"text": "stop"'),
        Publication(topic="naila/devices/r1/intent", payload=b'{"text": ["stop"]}'),
        Publication(topic="naila/devices/r1/intent", payload=b"\xff"),
    ],
)
def test_only_a_small_live_intent_says_something(message: Publication) -> None:
    assert CODEC.said(message) is None


@pytest.mark.parametrize("leaf", ["reply", "action", "action/pending", "action/result/x", "intent/x", ""])
def test_topics_that_the_brain_does_not_read(leaf: str) -> None:
    error = refusal("x", leaf)
    assert error.code == "bad_topic"


@pytest.mark.parametrize(
    "topic", ["answers/here", "naila2/x", "naila/devices/r1/inbox", "naila/devices/r1/answers/7", "a b/é"]
)
def test_an_answer_may_go_to_a_topic_of_the_askers_own(topic: str) -> None:
    event = decode("hi", response_topic=topic, correlation_data=b"\x00\xff")
    assert isinstance(event, Intent)
    assert (event.response_topic, event.correlation_data) == (topic, b"\x00\xff")


def test_the_devices_own_reply_topic_is_not_answered_twice() -> None:
    event = decode("hi", response_topic="naila/devices/r1/reply")
    assert isinstance(event, Intent)
    assert event.response_topic is None


@pytest.mark.parametrize(
    ("topic", "says"),
    [
        ("", "is empty"),
        ("a/+/b", "wildcard"),
        ("a/#", "wildcard"),
        ("$SYS/x", "'$'"),
        ("x" * 1025, "longer than 1024 bytes"),
        ("a\nb", "control character"),
        ("naila", "lies inside naila/"),
        ("naila/ai/status", "lies inside naila/"),
        ("naila/fleet/stop", "lies inside"),
        ("naila/devices/r2/action", "lies inside"),
        ("naila/devices/r2/inbox", "lies inside"),
        ("naila/devices/r1/action", "lies inside"),
        ("naila/devices/r1/action/x", "lies inside"),
        ("naila/devices/r1/intent", "lies inside"),
        ("naila/devices/r1/reply/stream", "lies inside"),
        ("naila/devices/r1/", "lies inside"),
        ("naila/devices/r1", "lies inside"),
    ],
)
def test_a_device_cannot_make_the_brain_publish_elsewhere(topic: str, says: str) -> None:
    error = refusal({"id": "a1", "text": "hi"}, response_topic=topic)
    assert (error.code, error.request_id) == ("bad_payload", "a1")
    assert str(error).startswith("response topic ")
    assert says in str(error)


def test_correlation_data_is_bounded() -> None:
    assert "correlation data has 4097 bytes" in str(refusal("hi", correlation_data=b"x" * 4097))


LEAVES = st.sampled_from(sorted(DEVICE_LEAVES + BRAIN_LEAVES))
PAYLOADS = st.binary(max_size=200) | st.text(alphabet='{}[]"textid: ,\\u0tru1e9NaN', max_size=60).map(str.encode)


@given(
    topic=LEAVES.map(lambda leaf: f"naila/devices/r1/{leaf}") | st.text(max_size=60),
    payload=PAYLOADS,
    retain=st.booleans(),
    response_topic=st.none() | st.text(max_size=30),
    correlation_data=st.none() | st.binary(max_size=10),
)
def test_no_message_raises_anything_but_a_refusal(
    topic: str, payload: bytes, retain: bool, response_topic: str | None, correlation_data: bytes | None
) -> None:
    message = Publication(
        topic=topic,
        payload=payload,
        retain=retain,
        response_topic=response_topic,
        correlation_data=correlation_data,
    )
    CODEC.said(message)
    for decoder in (CODEC.decode, CODEC.decode_outbound):
        try:
            decoder(message)
        except ContractError as error:
            assert str(error)  # noqa: PT017 - raising is one of two right outcomes
