"""The emergency stop on a real Mosquitto: heard at once, sent at once, whatever else is going on."""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from naila.events import Action, BrainStatus, Cancel, Confirmation, EmergencyStop, ErrorNotice, Intent
from naila.mqtt.device import Device
from naila.mqtt.link import MqttLink
from naila.mqtt.publication import Publication
from naila.mqtt.sending import MAX_WAITING
from support.mosquitto import Mosquitto
from support.robots import EchoBrain, until

pytestmark = pytest.mark.broker

FLOOD = Path(__file__).parents[1] / "support" / "flood.py"


def stop_action(device_id: str, request_id: str, name: str = "stop") -> Action:
    return Action(
        device_id=device_id,
        id=f"x-{request_id}",
        request_id=request_id,
        name=name,
        arguments={},
        expires_at="2030-01-01T00:00:00Z",
        seq=1,
        ttl_ms=10_000,
    )


class StoppingBrain(EchoBrain):
    """An echo that sends `stop` as the dispatcher would."""

    def __init__(self, broker: Mosquitto, *, answers: bool = True) -> None:
        super().__init__(broker.settings(), answers=answers, on_stop=self._halt)

    def _halt(self, stop: EmergencyStop, request_id: str) -> None:
        self.stops.append((stop, request_id))
        self.link.publish(stop_action(stop.device_id or "r1", request_id))


@asynccontextmanager
async def running(brain: EchoBrain) -> AsyncIterator[MqttLink]:
    """Run a brain, and return when it hears stops."""
    async with brain.running() as link:
        await asyncio.wait_for(link.hearing(), 10)
        yield link


async def heard_action(device: Device, timeout_s: float = 10.0) -> Action:
    async with asyncio.timeout(timeout_s):
        while True:
            event = await device.hear()
            if isinstance(event, Action):
                return event


async def heard_error(device: Device) -> ErrorNotice:
    async with asyncio.timeout(10):
        while True:
            event = await device.hear()
            if isinstance(event, ErrorNotice):
                return event


def raw(topic: str, payload: bytes = b"", *, qos: int = 1, retain: bool = False) -> Publication:
    return Publication(topic=topic, payload=payload, qos=qos, retain=retain)


async def test_a_stop_of_one_and_of_all(mosquitto: Mosquitto) -> None:
    brain = StoppingBrain(mosquitto)
    async with running(brain), Device(mosquitto.settings(), "r1") as device:
        device.send(EmergencyStop(device_id="r1"))
        action = await heard_action(device)
        assert (action.name, action.device_id, action.ttl_ms) == ("stop", "r1", 10_000)
        device.send(EmergencyStop())
        await heard_action(device)
        assert [stop for stop, _ in brain.stops] == [EmergencyStop(device_id="r1"), EmergencyStop()]
        assert brain.accepted == []


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"{", b"x" * 200_000])
async def test_a_stop_is_heard_whatever_it_says(mosquitto: Mosquitto, payload: bytes) -> None:
    brain = StoppingBrain(mosquitto)
    async with running(brain), Device(mosquitto.settings(), "r1") as device:
        device.send_raw(raw("naila/devices/r1/stop", payload, qos=0))
        await heard_action(device)


async def test_a_repeated_stop_is_sent_again(mosquitto: Mosquitto) -> None:
    brain = StoppingBrain(mosquitto)
    async with running(brain), Device(mosquitto.settings(), "r1") as device:
        for _ in range(3):
            device.send(EmergencyStop(device_id="r1"))
        for _ in range(3):
            await heard_action(device)


@pytest.mark.parametrize("partial", [False, True])
async def test_who_says_stop_is_not_kept_waiting(mosquitto: Mosquitto, partial: bool) -> None:
    brain = StoppingBrain(mosquitto)
    brain.gate.clear()
    async with running(brain), Device(mosquitto.settings(), "r1") as device:
        device.send(Intent(device_id="r1", id="before", text="hello"))
        device.send(Intent(device_id="r1", id="a1", text="stop", partial=partial))
        assert (await heard_action(device)).request_id == "a1"
        assert brain.accepted == []
        brain.gate.set()
        await until(lambda: brain.texts == ["hello", "stop"])  # and it goes on, to be answered


async def test_the_reply_to_a_bare_stop_has_the_id_of_its_stop(mosquitto: Mosquitto) -> None:
    brain = StoppingBrain(mosquitto)
    async with running(brain), Device(mosquitto.settings(), "r1") as device:
        device.send_raw(raw("naila/devices/r1/intent", b"stop"))
        action = await heard_action(device)
        await until(lambda: len(brain.accepted) == 1)
        assert isinstance(brain.accepted[0], Intent)
        assert brain.accepted[0].id == action.request_id


async def test_a_stop_in_a_bad_intent_stops_and_the_intent_is_refused(mosquitto: Mosquitto) -> None:
    brain = StoppingBrain(mosquitto)
    async with running(brain), Device(mosquitto.settings(), "r1") as device:
        device.send_raw(raw("naila/devices/r1/intent", b'{"text": "stop", "temperature": 9}'))
        await heard_action(device)
        device.send_raw(raw("naila/devices/r1/intent", b'{"text": "stop", "temperature": 9}'))
        assert "temperature must be" in (await heard_error(device)).message


async def test_an_old_stop_is_refused_and_a_live_one_is_not_whatever_its_flag(mosquitto: Mosquitto) -> None:
    async with Device(mosquitto.settings(), "r1") as device:
        device.send_raw(raw("naila/devices/r1/stop", b"old", retain=True))
        await until(lambda: device.connection.published == 1)
        brain = StoppingBrain(mosquitto)
        async with running(brain):
            assert "a retained stop is an old one" in (await heard_error(device)).message
            assert brain.stops == []
            device.send_raw(raw("naila/devices/r1/stop", b"live", retain=True))
            await heard_action(device)


@pytest.mark.parametrize("event", [Cancel(device_id="r1"), Confirmation(device_id="r1", id="p1", approve=True)])
async def test_a_wish_with_the_retain_flag_is_refused_when_it_is_made(
    mosquitto: Mosquitto, event: Cancel | Confirmation
) -> None:
    brain = StoppingBrain(mosquitto)
    async with running(brain), Device(mosquitto.settings(), "r1") as device:
        leaf, payload = (
            ("cancel", b"{}") if isinstance(event, Cancel) else ("confirm", b'{"id": "p1", "approve": true}')
        )
        device.send_raw(raw(f"naila/devices/r1/{leaf}", payload, retain=True))
        assert "old wish" in (await heard_error(device)).message
        device.send(event)
        await until(lambda: brain.accepted == [event])


async def test_a_stop_while_the_brain_was_away_is_heard_when_it_is_back(mosquitto: Mosquitto) -> None:
    async with Device(mosquitto.settings(), "r1") as device:
        async with running(StoppingBrain(mosquitto)):
            pass
        device.send(EmergencyStop(device_id="r1"))
        await until(lambda: device.connection.published == 1)
        async with running(StoppingBrain(mosquitto)):
            await heard_action(device)


async def test_a_failing_stop_does_not_end_the_connection(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(stop: EmergencyStop, request_id: str) -> None:
        raise RuntimeError(f"a bug, {stop}, {request_id}")

    brain = EchoBrain(mosquitto.settings(), on_stop=fail)
    async with running(brain), Device(mosquitto.settings(), "r1") as device:
        with caplog.at_level(logging.ERROR):
            device.send(EmergencyStop(device_id="r1"))
            device.send(EmergencyStop(device_id="r1"))
            await until(lambda: caplog.text.count("the emergency stop") == 2)
        assert (await device.ask(Intent(device_id="r1", id="a1", text="hello"), timeout_s=5)).text == "you said: hello"


async def test_what_waits_for_a_robot_is_withdrawn_when_it_is_stopped(mosquitto: Mosquitto) -> None:
    brain = StoppingBrain(mosquitto)
    async with Device(mosquitto.settings(), "r1") as device, brain.running(wait=False) as link:
        for number in range(3):
            link.publish(stop_action("r1", f"m{number}", name="drive"))
        link.publish(stop_action("r1", "s"))
        assert (await heard_action(device)).name == "stop"
        link.publish(stop_action("r1", "later", name="drive"))
        assert (await heard_action(device)).request_id == "later"


async def test_however_many_stops_wait_none_is_given_up(mosquitto: Mosquitto) -> None:
    brain = StoppingBrain(mosquitto)
    async with Device(mosquitto.settings(), "r1") as device, brain.running(wait=False) as link:
        for name in ("r1", *(f"other{number}" for number in range(MAX_WAITING))):
            link.publish(stop_action(name, "s"))
        assert (await heard_action(device)).name == "stop"
        assert link.status.dropped == 0


async def test_what_is_too_late_after_an_outage_is_not_sent(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    brain = StoppingBrain(mosquitto)
    async with running(brain) as link:
        mosquitto.kill()
        assert link.status.connected  # it has not noticed: the message is handed over and never acknowledged
        link.publish(replace(stop_action("r1", "late", name="drive"), ttl_ms=1000))
        await until(lambda: not link.status.connected)
        await asyncio.sleep(1.1)
        mosquitto.start()
        async with Device(mosquitto.settings(), "r1") as device:
            await device.wait_for_brain("online", timeout_s=10)
            link.publish(stop_action("r1", "next", name="drive"))
            assert (await heard_action(device)).request_id == "next"
    assert "waited for the broker until it had expired: dropped" in caplog.text


async def test_a_device_says_who_it_is_and_when_it_goes(mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings())
    async with brain.running():
        async with Device(mosquitto.settings(), "r1", capabilities={"name": "R"}, presence=True):
            await until(lambda: len(brain.accepted) == 2)
        await until(lambda: len(brain.accepted) == 3)
    said = [getattr(event, "status", getattr(event, "document", None)) for event in brain.accepted]
    assert said == ["online", {"name": "R"}, "offline"]


@contextmanager
def flood(broker: Mosquitto, *, size: int, qos: int, leaf: str = "intent") -> Iterator[None]:
    """1,000 messages a second of another device, from a process of its own."""
    arguments = [str(broker.port), str(size), str(qos), leaf]
    with subprocess.Popen([sys.executable, str(FLOOD), *arguments], env={"PATH": os.environ["PATH"]}) as process:
        try:
            yield
        finally:
            process.kill()


async def latencies(device: Device, count: int, stop: EmergencyStop | None) -> list[float]:
    """Seconds from publish to `action`, of stops by topic, or said (None)."""
    loop = asyncio.get_running_loop()
    took = []
    for number in range(count):
        began = loop.time()
        said = Intent(device_id="r1", id=f"s{os.urandom(4).hex()}{number}", text="stop")
        device.send(stop or said)
        await heard_action(device)
        took.append(loop.time() - began)
        await asyncio.sleep(0.01)
    return took


@pytest.mark.parametrize(("size", "qos"), [(200, 1), (60_000, 0)])
@pytest.mark.parametrize("spoken", [False, True])
async def test_a_stop_overtakes_a_flood(mosquitto: Mosquitto, size: int, qos: int, spoken: bool) -> None:
    brain = StoppingBrain(mosquitto, answers=size < 1000)
    stop = None if spoken else EmergencyStop(device_id="r1")
    async with running(brain) as link, Device(mosquitto.settings(), "r1") as device:
        with flood(mosquitto, size=size, qos=qos):
            await until(lambda: link.status.received > 500)
            took = await latencies(device, 30, stop)
        # Behind the flood it would take seconds; benchmarks/stop.py tells the milliseconds.
        assert statistics.median(took) < 0.25
        await link.stop(BrainStatus(status="offline"))
