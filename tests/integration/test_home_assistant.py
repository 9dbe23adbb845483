"""Home Assistant's side of a real Mosquitto: documents, presses and settings, and a robot that moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from naila.config.permissions import PermissionRules
from naila.config.settings import Settings
from naila.devices.audit import Audit
from naila.devices.dispatcher import Dispatcher
from naila.devices.permissions import Permissions
from naila.devices.registry import Registry
from naila.events import (
    Action,
    ActionResult,
    BrainStatus,
    Capabilities,
    DeviceStatus,
    EmergencyStop,
    Inbound,
    Intent,
    Outbound,
    Telemetry,
)
from naila.fleet import Proposal
from naila.mqtt.broker import EmbeddedBroker
from naila.mqtt.codec import Codec
from naila.mqtt.device import Device
from naila.mqtt.home_assistant import HomeAssistant
from naila.mqtt.link import MqttLink
from naila.mqtt.publication import Publication
from naila.mqtt.topics import Topics
from naila.server.wiring import SystemClock
from support.ear import Ear
from support.fleets import FakeDeviceStore, FakeJournal, example
from support.home_online import HomeOnline
from support.mosquitto import Mosquitto
from support.robots import reply_to, until

pytestmark = pytest.mark.broker

TOPICS = Topics("naila")
REST_S = 0.05


class Brain:
    """Link, registry, dispatcher and Home Assistant, and of the turn only what an intent that names an action needs."""

    def __init__(self, broker: Mosquitto, folder: Path, store: FakeDeviceStore, **settings: Any) -> None:
        values = broker.settings(MQTT_CLIENT_ID="brain", **settings)
        self.link = MqttLink(
            values,
            Codec(TOPICS, values.mqtt_max_payload_bytes),
            TOPICS,
            accept=self._accept,
            birth=lambda: BrainStatus(status="online"),
            on_stop=self._stop,
        )
        self.said: list[Intent] = []
        self.registry = Registry(store, SystemClock(), on_change=self._changed)
        self.audit = Audit(folder / "audit")
        self.dispatcher = Dispatcher(
            registry=self.registry,
            store=store,
            journal=FakeJournal(),
            publisher=self.link,
            clock=SystemClock(),
            permissions=Permissions(PermissionRules()),
            audit=self.audit,
        )
        self.home = HomeAssistant(values, TOPICS, self.registry, rest_s=REST_S, look_again_s=0.1)
        self._turns: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Brain]:
        await self.registry.load()
        async with self.audit, asyncio.TaskGroup() as group:
            group.create_task(self.link.run())
            group.create_task(self.home.run())
            await asyncio.wait_for(self.link.hearing(), 10)
            yield self
            await self.home.stop()
            await self.link.stop(BrainStatus(status="offline"))

    async def _accept(self, event: Inbound) -> None:
        match event:
            case Capabilities():
                await self.registry.declare(event)
            case Telemetry():
                self.registry.measure(event)
            case DeviceStatus():
                self.registry.note_status(event)
                self.dispatcher.take_status(event)
            case ActionResult():
                self.dispatcher.take_result(event)
            case Intent():
                self.said.append(event)
                self._turns.add(asyncio.create_task(self._turn(event)))

    async def _turn(self, intent: Intent) -> None:
        text = intent.text
        if intent.intent == "action":
            arguments = intent.entities["arguments"]
            assert isinstance(arguments, dict)
            outcome = await self.dispatcher.perform(
                Proposal(
                    device_id=intent.device_id,
                    name=str(intent.entities["action"]),
                    arguments=arguments,
                    request_id=intent.id,
                    speaker=intent.device_id,
                    user_id=intent.user_id,
                    by="api",
                )
            )
            text = outcome.status
        self.link.publish(reply_to(intent, text), to=intent)

    def _changed(self, device_id: str) -> None:
        self.home.changed(device_id)

    def _stop(self, event: EmergencyStop, request_id: str) -> None:
        self.dispatcher.stop(event.device_id, request_id=request_id, speaker=event.device_id or "fleet")


@asynccontextmanager
async def a_house(broker: Mosquitto, folder: Path) -> AsyncIterator[tuple[Brain, HomeOnline]]:
    home = HomeOnline(broker)
    async with home.ear, Brain(broker, folder, FakeDeviceStore()).running() as brain:
        yield brain, home


def a_robot(broker: Mosquitto, name: str = "lamp") -> Device:
    return Device(broker.settings(), name, capabilities=example(name), presence=True)


async def hears(robot: Device) -> Action:
    event: Outbound | None = None
    while not isinstance(event, Action):
        event = await asyncio.wait_for(robot.hear(), 10)
    return event


async def test_a_button_moves_the_robot_and_its_reply_is_shown(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with a_house(mosquitto, tmp_path) as (_, home), a_robot(mosquitto) as lamp:
        button = await home.sees("naila_lamp", "Switch: off")
        home.act(button)
        action = await hears(lamp)
        assert (action.name, action.arguments) == ("switch", {"state": "off"})
        lamp.send(ActionResult(device_id="lamp", id=action.id, ok=True))
        await home.reads(home.now.entity("naila_lamp", "Last reply"), "done")


async def test_a_number_and_a_parameter_are_set_within_the_envelope(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with a_house(mosquitto, tmp_path) as (_, home), a_robot(mosquitto) as lamp:
        await home.sees("naila_lamp", "Fade time")
        home.act(home.now.entity("naila_lamp", "Set brightness"), 40)
        action = await hears(lamp)
        assert (action.name, action.arguments) == ("set_brightness", {"level": 40})
        home.act(home.now.entity("naila_lamp", "Fade time"), 2.5)
        action = await hears(lamp)
        assert (action.name, action.arguments) == ("set_parameter", {"name": "fade_time", "value": 2.5})


async def test_what_home_assistant_sends_by_hand_meets_the_same_limits(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with a_house(mosquitto, tmp_path) as (brain, home), a_robot(mosquitto):
        number = await home.sees("naila_lamp", "Set brightness")
        topic, payload = home.now.act(number, 40)
        too_much = payload.replace("40", "4000")
        home.ear.connection.publish(Publication(topic=topic, payload=too_much.encode(), qos=1))
        await home.reads(home.now.entity("naila_lamp", "Last reply"), "refused")
        assert brain.said[0].user_id == "home-assistant"


async def test_stop_is_sent_at_once_and_words_are_said(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with a_house(mosquitto, tmp_path) as (brain, home), a_robot(mosquitto) as lamp:
        home.act(await home.sees("naila_lamp", "Stop"))
        assert (await hears(lamp)).name == "stop"
        home.act(await home.sees("naila", "Stop everybody"))
        assert (await hears(lamp)).name == "stop"
        home.act(await home.sees("naila_lamp", "Say something"), 'Good "evening"')
        await until(lambda: bool(brain.said))
        assert brain.said[0].text == 'Good "evening"'


async def test_telemetry_is_shown_and_a_field_without_unit_when_its_kind_is_known_whatever_else_changes(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async def others_change() -> None:
        while True:
            brain.home.changed("other")
            await asyncio.sleep(0.01)

    async with a_house(mosquitto, tmp_path) as (brain, home), a_robot(mosquitto) as lamp:
        others = asyncio.create_task(others_change())
        sensor = await home.sees("naila_lamp", "Temperature")
        assert "On" not in home.now.names("naila_lamp")
        lamp.send(Telemetry(device_id="lamp", values={"temperature": 21.5, "on": True}))
        await home.reads(sensor, "21.5")
        flag = await home.sees("naila_lamp", "On")
        assert flag["platform"] == "binary_sensor"
        others.cancel()


async def test_changes_are_followed_and_what_is_no_more_is_removed(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with a_house(mosquitto, tmp_path) as (_, home), a_robot(mosquitto) as lamp:
        await home.sees("naila_lamp", "Set brightness")
        document = example("lamp")
        document["actions"] = [each for each in document["actions"] if each["name"] != "set_brightness"]
        document["actions"].append({"name": "glow"})
        lamp.send(Capabilities(device_id="lamp", document=document))
        await home.sees("naila_lamp", "Glow")
        assert "Set brightness" not in home.now.names("naila_lamp")
        lamp.send(Capabilities(device_id="lamp", document=None))
        await until(lambda: not home.now.names("naila_lamp"))
        assert "naila" in home.now.devices


async def test_everything_is_told_again_when_home_assistant_starts(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with a_house(mosquitto, tmp_path) as (_, home), a_robot(mosquitto):
        await home.sees("naila_lamp", "Stop")
        home.now._forget("naila_lamp")
        home.now._forget("naila")
        home.ear.connection.publish(Publication(topic="homeassistant/status", payload=b"online", qos=1))
        await home.sees("naila_lamp", "Stop")
        await home.sees("naila", "Connected")


async def test_documents_are_retained_and_told_again_to_a_broker_that_forgot(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with Brain(mosquitto, tmp_path, FakeDeviceStore()).running():
        async with HomeOnline(mosquitto).ear as first:
            await until(lambda: any(each.topic == "homeassistant/device/naila/config" for each in first.messages))
        mosquitto.restart()
        home = HomeOnline(mosquitto)
        async with home.ear:
            await home.sees("naila", "Connected")


async def test_a_device_that_went_while_the_brain_was_off_is_removed(mosquitto: Mosquitto, tmp_path: Path) -> None:
    store = FakeDeviceStore()
    home = HomeOnline(mosquitto)
    async with home.ear:
        async with Brain(mosquitto, tmp_path, store).running(), a_robot(mosquitto), a_robot(mosquitto, "arm"):
            await home.sees("naila_lamp", "Stop")
            await home.sees("naila_arm", "Stop")
        document = {**example("arm"), "telemetry": {}}
        store.devices = {"arm": document}
        for name, kept in (("lamp", b""), ("arm", json.dumps(document).encode())):
            topic = f"naila/devices/{name}/capabilities"
            home.ear.connection.publish(Publication(topic=topic, payload=kept, qos=1, retain=True))
        await asyncio.sleep(0.1)
        async with Brain(mosquitto, tmp_path, store).running():
            await until(lambda: not home.now.names("naila_lamp"))
            await until(lambda: "Gripper force" not in home.now.names("naila_arm"))
            assert "Home" in home.now.names("naila_arm")


async def test_switched_off_it_removes_what_is_ours_and_leaves_the_rest(mosquitto: Mosquitto, tmp_path: Path) -> None:
    home = HomeOnline(mosquitto)
    async with home.ear:
        async with Brain(mosquitto, tmp_path, FakeDeviceStore()).running(), a_robot(mosquitto):
            await home.sees("naila_lamp", "Stop")
        other = Publication(topic="homeassistant/device/other/config", payload=b"{}", qos=1, retain=True)
        home.ear.connection.publish(other)
        off = HomeAssistant(
            mosquitto.settings(HOME_ASSISTANT="off"), TOPICS, Registry(FakeDeviceStore(), SystemClock()), rest_s=REST_S
        )
        await asyncio.wait_for(off.run(), 10)
        await until(lambda: len([each for each in home.ear.messages if not each.payload]) >= 2)
        async with Ear(mosquitto.settings(), "homeassistant/#", "end") as late:
            late.connection.publish(Publication(topic="end", qos=1))
            await late.until(lambda message: message.topic == "end")
            assert [each.topic for each in late.messages] == ["homeassistant/device/other/config", "end"]


async def test_what_somebody_else_put_there_does_no_harm(mosquitto: Mosquitto, tmp_path: Path) -> None:
    home = HomeOnline(mosquitto)
    async with Ear(mosquitto.settings(), "homeassistant/device/+/config") as ear:
        for payload in (b"\xff", b"[1]", b'{"cmps": 3}', b'{"cmps": {"x": {"p": 5}, "y": 1}}'):
            topic = f"homeassistant/device/naila_evil{len(payload)}/config"
            ear.connection.publish(Publication(topic=topic, payload=payload, qos=1, retain=True))
        await until(lambda: len(ear.messages) == 4)
        async with Brain(mosquitto, tmp_path, FakeDeviceStore()).running():
            await until(lambda: len([each for each in ear.messages if not each.payload]) == 4)
        async with home.ear:
            await home.sees("naila", "Connected")
            assert set(home.now.devices) == {"naila"}


class Embedded(Mosquitto):
    """Only its address: what listens there is the embedded broker, which speaks MQTT 3.1.1."""

    def settings(self, **overrides: Any) -> Settings:
        return super().settings(MQTT_PROTOCOL="3.1.1", **overrides)


async def test_it_works_on_the_embedded_broker(tmp_path: Path) -> None:
    broker = Embedded(tmp_path)
    async with EmbeddedBroker(broker.port), a_house(broker, tmp_path) as (_, home), a_robot(broker) as lamp:
        home.act(await home.sees("naila_lamp", "Switch: on"))
        assert (await hears(lamp)).arguments == {"state": "on"}


async def test_a_device_that_floods_does_not_flood_home_assistant(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with a_house(mosquitto, tmp_path) as (_, home), a_robot(mosquitto) as lamp:
        await home.sees("naila_lamp", "Stop")
        before = len(home.ear.messages)
        for number in range(200):
            lamp.send(Capabilities(device_id="lamp", document={**example("lamp"), "name": f"Lamp {number}"}))
        await until(lambda: home.now.devices["naila_lamp"]["name"] == "Lamp 199")
        assert len([m for m in home.ear.messages[before:] if m.topic.startswith("homeassistant/")]) < 50
