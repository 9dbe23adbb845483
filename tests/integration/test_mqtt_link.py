"""The brain's link and a device on a real Mosquitto."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from naila.errors import BrokerError, ContractError
from naila.events import (
    ActionPending,
    BrainStatus,
    Cancel,
    DeviceStatus,
    EmergencyStop,
    ErrorNotice,
    Health,
    Intent,
    Outbound,
    Reply,
    StreamItem,
)
from naila.mqtt.broker_address import BrokerAddress
from naila.mqtt.connection import Connection
from naila.mqtt.connection_state import Receipt
from naila.mqtt.device import Device
from naila.mqtt.link import MAX_INTAKE_PER_DEVICE
from naila.mqtt.publication import Publication
from support.mosquitto import Mosquitto
from support.robots import EchoBrain, until

pytestmark = pytest.mark.broker


def say(text: str, id: str = "a1") -> Intent:  # noqa: A002 - the contract's word
    return Intent(device_id="r1", id=id, text=text)


def raw(payload: bytes | str, leaf: str = "intent", device_id: str = "r1", *, retain: bool = False) -> Publication:
    data = payload if isinstance(payload, bytes) else payload.encode()
    return Publication(topic=f"naila/devices/{device_id}/{leaf}", payload=data, qos=1, retain=retain)


class Ear:
    """Hears what is published on some topics, whatever it is."""

    def __init__(self, broker: Mosquitto, *topics: str) -> None:
        self.messages: list[Publication] = []
        self.connection = Connection(
            BrokerAddress.from_settings(broker.settings(), client_id="ear", session_expiry_s=0),
            on_message=self._on_message,
            subscriptions=topics,
        )

    def _on_message(self, message: Publication, receipt: Receipt) -> None:
        self.messages.append(message)
        self.connection.ack(receipt)

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.connection.run())
        await asyncio.wait_for(self.connection.ready(), 5)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.stop()
        await self._running


async def heard(device: Device) -> Outbound:
    return await asyncio.wait_for(device.hear(), 5)


async def test_a_device_asks_and_is_answered(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with brain.running() as link, Device(mosquitto.settings(), "r1") as device:
        assert await device.wait_for_brain("online", timeout_s=5) == "online"
        reply = await device.ask(say("hello"), timeout_s=5)
        assert (reply.text, reply.id, reply.device_id) == ("you said: hello", "a1", "r1")
        device.send(Cancel(device_id="r1"))
        device.send(DeviceStatus(device_id="r1", status="online", detail={"battery": 1}))
        await until(lambda: len(brain.accepted) == 3)
        assert brain.accepted[1:] == [
            Cancel(device_id="r1"),
            DeviceStatus(device_id="r1", status="online", detail={"battery": 1}),
        ]
        await until(lambda: link.status.published >= 2)
        assert (link.status.protocol, link.status.received, link.status.error) == ("5", 3, None)


async def test_a_round_trip_does_not_wait_for_delayed_acks(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with brain.running(), Device(mosquitto.settings(), "r1") as device:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(50):
            await device.ask(say("hello", f"a{number}"), timeout_s=5)
        assert loop.time() - began < 50 * 0.02


async def test_an_answer_is_streamed_in_order(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings(), answers=False)
    async with brain.running() as link, Device(mosquitto.settings(), "r1") as device:
        asking = device.stream(replace(say("tell"), stream=True), timeout_s=5)
        first = asyncio.ensure_future(anext(asking))
        await until(lambda: brain.texts == ["tell"])
        for seq, text in enumerate(["Once", " upon"]):
            link.publish(StreamItem(device_id="r1", id="a1", seq=seq, text=text, done=False))
        link.publish(StreamItem(device_id="r1", id="a1", seq=2, text="", done=True))
        link.publish(_reply("a1", "Once upon"))
        items = [await first, *[item async for item in asking]]
        texts = [item.text for item in items if not isinstance(item, ActionPending)]
        assert texts == ["Once", " upon", "", "Once upon"]
        assert isinstance(items[-1], Reply)


async def test_an_answer_also_goes_to_the_response_topic(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    asked = replace(say("hi"), response_topic="answers/r1", correlation_data=b"\x01\x02")
    async with Ear(mosquitto, "answers/#") as ear, brain.running(), Device(mosquitto.settings(), "r1") as device:
        reply = await device.ask(asked, timeout_s=5)
        await until(lambda: len(ear.messages) == 1)
        (message,) = ear.messages
        assert (message.topic, message.correlation_data) == ("answers/r1", b"\x01\x02")
        assert message.content_type == "application/json"
        assert json.loads(message.payload)["text"] == reply.text


async def test_a_device_cannot_publish_through_the_brain(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    asked = replace(say("hi"), response_topic="naila/devices/r2/action")
    async with Ear(mosquitto, "naila/devices/r2/#") as ear, brain.running():
        async with Device(mosquitto.settings(), "r1") as device:
            with pytest.raises(ContractError, match="response topic lies inside"):
                await device.ask(asked, timeout_s=5)
            await device.ask(say("still there?", "a2"), timeout_s=5)
        assert ear.messages == []


async def test_what_is_refused_is_told_and_the_next_good_one_works(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with brain.running() as link, Device(mosquitto.settings(), "r1") as device:
        await device.wait_for_brain("online", timeout_s=5)
        assert await heard(device) == BrainStatus(status="online")
        for payload, code in [(b"\xff", "bad_payload"), (b"x" * 70_000, "too_large"), (b"[" * 60_000, "bad_payload")]:
            device.send_raw(raw(payload))
            notice = await heard(device)
            assert isinstance(notice, ErrorNotice)
            assert notice.code == code
        device.send_raw(raw("hello", retain=True))
        notice = await heard(device)
        assert isinstance(notice, ErrorNotice)
        assert "old wish" in notice.message
        with pytest.raises(ContractError, match="the brain failed") as caught:
            await device.ask(say("raise"), timeout_s=5)
        assert caught.value.code == "internal"
        assert (await device.ask(say("hello", "a2"), timeout_s=5)).text == "you said: hello"
        assert link.status.refused == 5


async def test_an_old_wish_is_cleared_in_silence(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with brain.running() as link, Device(mosquitto.settings(), "r1") as device:
        assert await heard(device) == BrainStatus(status="online")
        for leaf in ("intent", "cancel"):
            device.send_raw(raw("", leaf, retain=True))
        assert (await device.ask(say("hello"), timeout_s=5)).text == "you said: hello"
        assert (brain.texts, len(brain.accepted)) == (["hello"], 1)
        assert (link.status.received, link.status.refused) == (3, 0)


async def test_the_brain_may_refuse_too(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    asked = replace(say("refuse"), response_topic="answers/r1", correlation_data=b"7")
    async with Ear(mosquitto, "answers/#") as ear, brain.running(), Device(mosquitto.settings(), "r1") as device:
        with pytest.raises(ContractError, match="16 requests wait already") as caught:
            await device.ask(asked, timeout_s=5)
        assert (caught.value.code, caught.value.request_id) == ("busy", "a1")
        await until(lambda: len(ear.messages) == 1)
        assert json.loads(ear.messages[0].payload)["code"] == "busy"


async def test_what_finds_no_room_is_refused_and_not_forgotten(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings(), answers=False)
    brain.gate.clear()
    async with brain.running() as link, Device(mosquitto.settings(), "r1") as device:
        await _flood(device, brain, MAX_INTAKE_PER_DEVICE + 10)
        brain.gate.set()
        await until(lambda: len(brain.accepted) + link.status.refused == MAX_INTAKE_PER_DEVICE + 10)
        assert link.status.refused in (9, 10)
        notices = [event for event in [await heard(device) for _ in range(9)] if isinstance(event, ErrorNotice)]
        assert {notice.code for notice in notices} == {"busy"}


async def test_what_finds_no_room_is_told_even_while_much_waits_to_be_sent(mosquitto: Mosquitto) -> None:
    """Then once for many, and not so that it pushes out what others wait for."""
    brain = EchoBrain(mosquitto.settings())
    brain.gate.clear()
    async with brain.running() as link, Device(mosquitto.settings(), "r1") as device:
        for number in range(900):
            link.publish(ErrorNotice(device_id="other", code="busy", message="x" * 50_000, id=f"o{number}"))
        for number in range(400):
            device.send_raw(replace(raw(f'{{"id": "m{number}", "text": "hello"}}'), qos=0))
        told, summaries = 0, 0
        async with asyncio.timeout(20):
            while told < 399 - MAX_INTAKE_PER_DEVICE or told < link.status.refused:
                event = await device.hear()
                if isinstance(event, ErrorNotice):
                    told += _told(event)
                    summaries += _told(event) > 1
        assert told == link.status.refused
        assert summaries
        assert link.status.dropped == 0
        brain.gate.set()


async def test_who_floods_is_told_a_number_and_the_others_are_heard(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with (
        brain.running() as link,
        Device(mosquitto.settings(), "r1") as flooder,
        Device(mosquitto.settings(), "r2") as other,
    ):
        for number in range(1000):
            flooder.send(say("refuse", f"m{number}"))
        assert (await other.ask(Intent(device_id="r2", id="a1", text="hello"), timeout_s=10)).text == "you said: hello"
        notices: list[ErrorNotice] = []
        async with asyncio.timeout(20):
            while sum(map(_told, notices)) < 1000:
                event = await flooder.hear()
                notices += [event] if isinstance(event, ErrorNotice) else []
        assert link.status.refused == sum(map(_told, notices)) == 1000
        assert {notice.code for notice in notices} == {"busy"}
        assert len(notices) < 900
        flooder.send(EmergencyStop(device_id="r1"))
        await until(lambda: len(brain.stops) == 1)


async def test_a_bad_device_id_is_told_on_its_own_error_topic(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with Ear(mosquitto, "naila/devices/a b/error") as ear, brain.running():
        ear.connection.publish(raw("hello", device_id="a b"))
        await until(lambda: len(ear.messages) == 1)
        assert json.loads(ear.messages[0].payload)["code"] == "bad_topic"


async def test_messages_are_taken_in_in_order_and_none_is_lost(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings(), answers=False)
    async with brain.running(), Device(mosquitto.settings(), "r1") as device:
        for number in range(800):
            device.send(say(str(number), f"a{number}"))
        await until(lambda: len(brain.accepted) == 800)
        assert brain.texts == [str(number) for number in range(800)]


async def test_intake_starts_when_asked_and_then_hears_retained_statuses(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings(), intake=False)
    brain.state = "starting"
    async with brain.running() as link, Device(mosquitto.settings(), "r1") as device:
        await device.wait_for_brain("starting", timeout_s=5)
        device.send(DeviceStatus(device_id="r1", status="online"))
        device.send(say("too early"))
        await until(lambda: device.connection.published == 2)
        await link.start_intake()
        await link.start_intake()
        assert (await device.ask(say("now", "a2"), timeout_s=5)).text == "you said: now"
        assert brain.accepted[0] == DeviceStatus(device_id="r1", status="online")
        assert brain.texts == ["now"]


async def test_birth_is_retained_and_a_good_stop_says_offline(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with brain.running() as link:
        link.publish(Health(status="online", version="1", uptime_s=1, phase="run", components={}))
        async with Ear(mosquitto, "naila/ai/#") as ear:
            await until(lambda: len(ear.messages) == 2)
            assert {message.topic: message.retain for message in ear.messages} == {
                "naila/ai/status": True,
                "naila/ai/health": True,
            }
    async with Ear(mosquitto, "naila/ai/status") as ear:
        await until(lambda: len(ear.messages) == 1)
        assert ear.messages[0].payload == b"offline"


async def test_the_will_says_offline_when_the_brain_dies(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with Device(mosquitto.settings(), "r1") as device:
        running = asyncio.create_task(brain.link.run())
        await device.wait_for_brain("online", timeout_s=5)
        running.cancel()
        await asyncio.wait({running})
        await device.wait_for_brain("offline", timeout_s=5)
        assert not brain.link.status.connected


async def test_what_was_said_while_the_brain_was_away_arrives(mosquitto: Mosquitto) -> None:
    async with Device(mosquitto.settings(), "r1") as device:
        async with EchoBrain(mosquitto.settings()).running():
            await device.wait_for_brain("online", timeout_s=5)
            await device.ask(say("are you there?"), timeout_s=5)
        await device.wait_for_brain("offline", timeout_s=5)
        asked = asyncio.ensure_future(device.ask(say("for later", "a2"), timeout_s=10))
        await until(lambda: device.connection.published >= 2)
        again = EchoBrain(mosquitto.settings(), intake=False)
        async with again.running():
            assert (await asked).text == "you said: for later"


async def test_unaccepted_messages_come_again(mosquitto: Mosquitto) -> None:
    """A brain that dies while it takes a message in has not acknowledged it."""
    brain = EchoBrain(mosquitto.settings())
    async with Device(mosquitto.settings(), "r1") as device:
        brain.gate.clear()
        running = asyncio.create_task(brain.link.run())
        await device.wait_for_brain("online", timeout_s=5)
        device.send(say("hello"))
        await until(lambda: brain.link.status.received == 1)
        running.cancel()
        await asyncio.wait({running})
        assert brain.accepted == []
        again = EchoBrain(mosquitto.settings())
        async with again.running():
            await until(lambda: again.texts == ["hello"])


async def test_a_message_is_acknowledged_when_it_is_kept_and_others_are_taken_in_meanwhile(
    mosquitto: Mosquitto,
) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with Device(mosquitto.settings(), "r1") as device:
        brain.keeping = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(brain.link.run())
        await device.wait_for_brain("online", timeout_s=5)
        assert (await device.ask(say("one"), timeout_s=5)).text == "you said: one"
        assert (await device.ask(say("two", "a2"), timeout_s=5)).text == "you said: two"
        running.cancel()
        await asyncio.wait({running})
        again = EchoBrain(mosquitto.settings())
        async with again.running():
            await until(lambda: again.texts == ["one", "two"])
        third = EchoBrain(mosquitto.settings())
        async with third.running():
            assert (await device.ask(say("three", "a3"), timeout_s=5)).text == "you said: three"
            assert third.texts == ["three"]


async def test_what_the_broker_kept_may_be_old_and_what_comes_later_is_not(mosquitto: Mosquitto) -> None:
    """A broker sends twenty at a time, and the rest after it has answered the subscription."""
    async with Device(mosquitto.settings(), "r1") as device:
        async with EchoBrain(mosquitto.settings()).running():
            await device.wait_for_brain("online", timeout_s=5)
        await device.wait_for_brain("offline", timeout_s=5)
        for number in range(100):
            device.send(say(str(number), f"a{number}"))
        await until(lambda: device.connection.published >= 100)
        again = EchoBrain(mosquitto.settings())
        async with again.running():
            await until(lambda: len(again.texts) == 100)
            await device.ask(say("now", "b1"), timeout_s=5)
        assert again.old == [True] * 100 + [False]


async def test_whoever_hears_of_the_end_of_an_answer_hears_of_it_once(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with brain.running(), Device(mosquitto.settings(), "r1") as device:
        reply = await device.ask(replace(say("hello"), response_topic="answers/r1"), timeout_s=5)
        await until(lambda: len(brain.ended) == 1)
        await asyncio.sleep(0.05)
        assert brain.ended == [(reply, True)]


async def test_two_brains_with_one_client_id_are_told_apart(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    settings = mosquitto.settings(MQTT_CLIENT_ID="twin")
    first, second = EchoBrain(settings), EchoBrain(settings)
    with caplog.at_level(logging.WARNING):
        async with first.running(wait=False), second.running(wait=False):
            await until(lambda: "MQTT_CLIENT_ID" in f"{first.link.status.error} {second.link.status.error}")
    # Whichever of their connections is thrown out more often says it first.
    assert re.search(r"with the client id 'twin(-stop)?', it seems: does the brain run twice\?", caplog.text)


async def test_a_refused_message_is_said(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite naila/ai/#\n")
    rules.chmod(0o600)
    # Without a user's rules this Mosquitto denies publishing; MQTT 5 reports that in its PUBACK.
    broker = Mosquitto(tmp_path, lines=(f"acl_file {rules}",)).start()
    try:
        brain = EchoBrain(broker.settings())
        async with brain.running() as link:
            link.publish(_reply("a1", "hello"))
            await until(lambda: link.status.error is not None)
            assert "naila/devices/r1/reply" in (link.status.error or "")
            assert "access rules" in (link.status.error or "")
    finally:
        broker.stop()


async def test_a_figure_that_is_no_json_does_not_stop_the_brain(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with brain.running() as link, Device(mosquitto.settings(), "r1") as device:
        link.publish(Health(status="online", version="1", uptime_s=float("nan"), phase="run", components={}))
        assert (await device.ask(say("hello"), timeout_s=5)).text == "you said: hello"
    assert "could not be put into JSON" in caplog.text


async def test_a_device_says_why_it_cannot_connect(tmp_path: Path) -> None:
    settings = Mosquitto(tmp_path).settings()
    with pytest.raises(BrokerError, match=r"nothing listens at 127\.0\.0\.1"):
        async with Device(settings, "r1", connect_timeout_s=0.5):
            pass
    with pytest.raises(ContractError, match="is no device id"):
        Device(settings, "a/b")


async def test_no_answer_is_a_timeout_and_the_id_is_repeated(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings(), answers=False)
    async with brain.running(), Device(mosquitto.settings(), "r1") as device:
        with pytest.raises(TimeoutError, match="no reply to 'a1'"):
            await device.ask(say("hello"), timeout_s=0.5, repeat_s=0.1)
        await until(lambda: len(brain.accepted) >= 3)
        assert set(brain.texts) == {"hello"}


def _told(notice: ErrorNotice) -> int:
    """Return of how many refusals a notice tells."""
    many = re.match(r"(\d+) more messages of this device found no room", notice.message)
    return int(many[1]) if many else 1


async def _flood(device: Device, brain: EchoBrain, count: int) -> None:
    """Send in portions that neither the device's bound nor the broker's buffer minds."""
    for number in range(count):
        device.send_raw(replace(raw(str(number)), qos=0))
        if number % 50 == 0 or number == count - 1:
            await until(partial(_has_received, brain, number + 1))


def _has_received(brain: EchoBrain, count: int) -> bool:
    return brain.link.status.received == count


def _reply(id: str, text: str) -> Reply:  # noqa: A002 - the contract's word
    return Reply(
        device_id="r1",
        id=id,
        text=text,
        intent="conversation",
        source="llm",
        degraded=False,
        conversation_id="default",
        finish_reason="stop",
    )
