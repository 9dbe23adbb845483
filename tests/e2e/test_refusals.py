"""Bad input of every kind: it gets its error, and the next good message is answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from naila.config.settings import Settings
from naila.events import Cancel
from naila.mqtt.device import Device
from naila.mqtt.publication import Publication
from support.ear import Ear
from support.robots import until
from support.said import CLOCK, ask_of, story

pytestmark = [pytest.mark.broker, pytest.mark.model]


@dataclass(frozen=True)
class Bad:
    """A message that is refused.

    Attributes:
        payload: what is sent.
        message: what the error's message says, among other things.
        code: the error's code.
        leaf: where it is sent.
        device_id: whose topic.
        id: the error's id.
    """

    payload: bytes
    message: str
    code: str = "bad_payload"
    leaf: str = "intent"
    device_id: str = "clumsy"
    id: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None


def fields(**values: Any) -> bytes:
    return json.dumps({"id": "bad1", "text": "hello", **values}).encode()


BAD = {
    "an empty payload": Bad(b"", "text must not be blank"),
    "blank words": Bad(b" \n\t ", "text must not be blank"),
    "not UTF-8": Bad(b"\xff\xfehello", "not UTF-8 (byte 0)"),
    "a NUL": Bad(b"he\x00llo", "U+0000"),
    "half of an object": Bad(b'{"text": "hello', "not valid JSON"),
    "an array": Bad(b'["hello"]', "must be a JSON object"),
    "NaN": Bad(b'{"id": "bad1", "text": "a", "temperature": NaN}', "temperature: NaN is not a finite number"),
    "infinity": Bad(b'{"id": "bad1", "text": "a", "context": {"x": -Infinity}}', "context.x"),
    "a number that overflows": Bad(b'{"id": "bad1", "text": "a", "temperature": 1e999}', "temperature"),
    "an integer of 5000 digits": Bad(b'{"text": "a", "max_tokens": ' + b"9" * 5000 + b"}", "max_tokens"),
    "a key that stands twice": Bad(b'{"text": "a", "text": "b"}', "text: the key stands there twice"),
    "half a surrogate pair": Bad(b'{"text": "\\ud800"}', "surrogate"),
    "deep nesting": Bad(b'{"text": "a", "context": ' + b'{"a":' * 40 + b"1" + b"}" * 41, "nested deeper than 32"),
    "very deep nesting": Bad(b'{"text": ' + b"[" * 30_000, "nested deeper than 32"),
    "65,537 bytes": Bad(b"x" * 65_537, "65537 bytes, the limit is 65536", code="too_large"),
    "a megabyte": Bad(b"x" * 2**20, "the limit is 65536", code="too_large"),
    "no text": Bad(b'{"id": "bad1"}', "text is missing", id="bad1"),
    "text that is no string": Bad(fields(text=["hello"]), "text must be a string", id="bad1"),
    "an id with a slash": Bad(fields(id="a/b"), "id must be"),
    "an id that is a number": Bad(fields(id=7), "id must be a string"),
    "an id that is too long": Bad(fields(id="a" * 65), "id must be"),
    "an intent that is no word": Bad(fields(intent="turn left"), "intent must be", id="bad1"),
    "entities that are no object": Bad(fields(entities=[]), "entities must be an object", id="bad1"),
    "a bad conversation": Bad(fields(conversation_id=""), "conversation_id must be", id="bad1"),
    "a bad user": Bad(fields(user_id="Ada Lovelace"), "user_id must be", id="bad1"),
    "an unknown persona": Bad(fields(persona="pirate"), "'pirate' is not known", id="bad1"),
    "a stream that is a word": Bad(fields(stream="yes"), "stream must be true or false", id="bad1"),
    "a partial that is a number": Bad(fields(partial=1), "partial must be true or false", id="bad1"),
    "no tokens": Bad(fields(max_tokens=0), "max_tokens must be a whole number", id="bad1"),
    "tokens that are true": Bad(fields(max_tokens=True), "max_tokens must be a whole number", id="bad1"),
    "half a token": Bad(fields(max_tokens=1.5), "max_tokens must be a whole number", id="bad1"),
    "too hot": Bad(fields(temperature=2.01), "temperature must be a number from 0 to 2", id="bad1"),
    "over at once": Bad(fields(expires_in_ms=0), "expires_in_ms must be a whole number", id="bad1"),
    "a context that is a string": Bad(fields(context="warm"), "context must be an object", id="bad1"),
    "another's device id": Bad(fields(device_id="other"), "device_id differs from the topic's", id="bad1"),
    "a device id that is none": Bad(
        fields(), "the device id must be 1 to 64", code="bad_topic", device_id="clumsy.robot"
    ),
    "a response topic of another device": Bad(
        fields(), "response topic", id="bad1", response_topic="naila/devices/other/action"
    ),
    "the brain's own response topic": Bad(fields(), "response topic", id="bad1", response_topic="naila/ai/status"),
    "long correlation data": Bad(
        fields(), "correlation data", id="bad1", response_topic="mine", correlation_data=b"x" * 5000
    ),
    "a cancel of nonsense": Bad(b'{"id": 1}', "id must be a string", leaf="cancel"),
    "a cancel that is no JSON": Bad(b"stop it", "not valid JSON", leaf="cancel"),
    "a status of two words": Bad(b"up and running", "status must be a word", leaf="status"),
    "a status without a status": Bad(b'{"battery": 3}', "status is missing", leaf="status"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_bad_input_is_refused_and_the_next_message_answered(settings: Settings, bad: Bad) -> None:
    topic = f"naila/devices/{bad.device_id}"
    async with Ear(settings, "naila/devices/+/error") as ear, Device(settings, "clumsy") as device:
        device.send_raw(
            Publication(
                topic=f"{topic}/{bad.leaf}",
                payload=bad.payload,
                qos=1,
                response_topic=bad.response_topic,
                correlation_data=bad.correlation_data,
            )
        )
        error = await ear.until_object(f"{topic}/error", lambda _: True, 10)
        assert bad.message in error["message"]
        assert (error["code"], error.get("id")) == (bad.code, bad.id)
        assert set(error) <= {"id", "code", "message"}
        assert len(error["message"]) < 1000
        reply = await device.ask(ask_of("clumsy", CLOCK), timeout_s=10)
        assert reply.text
    assert len(ear.messages) == 1


@pytest.mark.parametrize("leaf", ["intent", "cancel"])
async def test_a_retained_wish_is_refused(settings: Settings, leaf: str) -> None:
    topic = f"naila/devices/ghost/{leaf}"
    async with Ear(settings, "naila/devices/ghost/#") as ear, Device(settings, "ghost") as device:
        device.send_raw(Publication(topic=topic, payload=b'{"id": "old", "text": "hello"}', qos=1, retain=True))
        error = await ear.until_object("naila/devices/ghost/error", lambda _: True, 10)
        device.send_raw(Publication(topic=topic, payload=b"", qos=1, retain=True))
        assert (error["code"], error["id"]) == ("bad_payload", "old")
        assert "retain" in error["message"]
        reply = await device.ask(ask_of("ghost", CLOCK), timeout_s=10)
        await ear.until_object("naila/devices/ghost/reply", lambda found: found["id"] == reply.id)
        assert len(ear.objects("naila/devices/ghost/reply")) == 1


async def test_what_waited_longer_than_it_was_wanted_has_expired(settings: Settings) -> None:
    async with Ear(settings, "naila/devices/late/#") as ear, Device(settings, "late") as device:
        running, waiting = story("late"), ask_of("late", CLOCK, expires_in_ms=1)
        device.send(running)
        device.send(waiting)
        await ear.until_object("naila/devices/late/reply/stream", lambda item: item["text"] != "")
        device.send(Cancel(device_id="late", id=running.id))
        error = await ear.until_object("naila/devices/late/error", lambda _: True, 10)
    assert (error["code"], error["id"]) == ("expired", waiting.id)
    assert [found["id"] for found in ear.objects("naila/devices/late/reply")] == [running.id]


async def test_a_flood_is_refused_beyond_the_bound_and_the_rest_is_answered(settings: Settings) -> None:
    """One runs, as many wait as QUEUE_MAX_PER_DEVICE says, and every request gets exactly one answer."""
    flood = [story("eager", stream=False, max_tokens=20, conversation_id=f"c{number}") for number in range(12)]
    async with Ear(settings, "naila/devices/eager/#") as ear, Device(settings, "eager") as device:
        first = story("eager")
        device.send(first)
        await ear.until_object("naila/devices/eager/reply/stream", lambda item: item["text"] != "")
        for request in flood:
            device.send(request)
        refused = await ear.until_object("naila/devices/eager/error", lambda _: True, 10)
        device.send(Cancel(device_id="eager", id=first.id))

        def ids(leaf: str) -> list[str]:
            return [found["id"] for found in ear.objects(f"naila/devices/eager/{leaf}")]

        await until(lambda: len(ids("reply")) + len(ids("error")) == len(flood) + 1, timeout_s=60)
        assert refused["code"] == "busy"
        assert "waiting" in refused["message"]
        assert ids("reply") == [first.id, *(request.id for request in flood[:4])]
        assert sorted(ids("error")) == sorted(request.id for request in flood[4:])
        assert (await device.ask(ask_of("eager", CLOCK), timeout_s=10)).text
