"""The whole daemon, without a model, as Home Assistant and a robot's owner see it."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import TypeVar

import pytest

from naila.events import Action, ActionPending, ActionResult, Confirmation, Telemetry
from naila.mqtt.device import Device
from support.brain import ROOT, START_TIMEOUT_S, BrainMaker
from support.fleets import example
from support.home_online import HomeOnline
from support.mosquitto import Mosquitto
from support.robots import until

T = TypeVar("T")

pytestmark = pytest.mark.broker

RULES = """
rules:
  - {field: power, above: 12, say: "Power is {value}.", action: {name: switch, arguments: {state: "off"}}}
  - {field: temperature, above: 60, action: {name: set_brightness, arguments: {level: 10}}}
"""
PERMISSIONS = """
default: allow
rules:
  - {effect: confirm, by: [alert], actions: [set_brightness]}
"""


async def hears_a(robot: Device, kind: type[T]) -> T:
    async with asyncio.timeout(20):
        while not isinstance(event := await robot.hear(), kind):
            pass
    return event


async def hears(robot: Device) -> Action:
    event = await hears_a(robot, Action)
    robot.send(ActionResult(device_id=robot.device_id, id=event.id, ok=True))
    return event


async def test_presses_words_and_alerts_move_the_lamp(
    broker: Mosquitto, make_brain: BrainMaker, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    shutil.copytree(ROOT / "config", config)
    (config / "monitoring.yaml").write_text(RULES)
    (config / "permissions.yaml").write_text(PERMISSIONS)
    nothing = str(tmp_path / "none")
    make_brain(broker.port, CONFIG_DIR=str(config), LLM_MODEL_PATH="", MODELS_DIR=nothing).start()
    home = HomeOnline(broker)
    async with home.ear, Device(broker.settings(), "lamp", capabilities=example("lamp"), presence=True) as lamp:
        button = await home.sees("naila_lamp", "Switch: off", START_TIMEOUT_S)
        await until(lambda: home.now.is_available(button, home.last), START_TIMEOUT_S)
        home.act(button)
        assert (await hears(lamp)).arguments == {"state": "off"}
        home.act(home.now.entity("naila_lamp", "Say something"), "set the brightness to 40 percent")
        assert (await hears(lamp)).arguments == {"level": 40}
        home.act(home.now.entity("naila", "Say something"), "set the lamp brightness to 50 percent")
        assert (await hears(lamp)).arguments == {"level": 50}
        lamp.send(Telemetry(device_id="lamp", values={"power": 14}))
        assert (await hears(lamp)).arguments == {"state": "off"}
        await home.ear.until_object("naila/ai/alerts", lambda alert: alert["code"] == "telemetry_high")
        lamp.send(Telemetry(device_id="lamp", values={"temperature": 80}))
        question = await hears_a(lamp, ActionPending)
        lamp.send(Confirmation(device_id="lamp", id=question.id, approve=True))
        assert (await hears(lamp)).arguments == {"level": 10}
        replies = [json.loads(message.payload) for message in home.ear.on("naila/devices/lamp/reply")]
        assert "Power is 14 W." in [reply["text"] for reply in replies]
