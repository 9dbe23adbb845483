"""examples/arm.py and lamp.py as processes on a real broker: every declared action does what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.example import EXAMPLES, example, python_example
from support.mosquitto import Mosquitto

pytestmark = pytest.mark.broker

ORDERS: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "lamp": [
        ("switch", {"state": "on"}, {"on": True}),
        ("set_parameter", {"name": "fade_time", "value": 0}, {"fade_time": 0}),
        ("set_brightness", {"level": 40}, {"brightness": 40, "on": True, "power": 3.9}),
        ("set_color", {"color": "red"}, {}),
        ("blink", {"times": 2, "interval": 0.2}, {"on": True}),
        ("switch", {"state": "off"}, {"on": False, "power": 0.3}),
    ],
    "arm": [
        ("close_gripper", {"force": 10}, {"gripper_open": False, "gripper_force": 10, "payload": 120}),
        ("open_gripper", {}, {"gripper_open": True, "gripper_force": 0, "payload": 0}),
        ("set_parameter", {"name": "speed", "value": 100}, {"speed": 100}),
        ("move_joint", {"joint": "elbow", "angle": -30}, {}),
        ("wave", {"times": 1}, {}),
        ("calibrate", {}, {}),
        ("home", {}, {}),
    ],
}


@pytest.mark.parametrize("name", ORDERS)
async def test_every_declared_action_does_what_it_says(broker: Mosquitto, name: str) -> None:
    declared = json.loads((EXAMPLES / f"{name}.json").read_text())
    assert {order for order, _, _ in ORDERS[name]} - {"set_parameter"} == {a["name"] for a in declared["actions"]}
    async with example(broker, name, python_example(broker, name, f"{name}.py", speed_up=50)) as device:
        assert set(declared["telemetry"]) | set(declared["parameters"]) == set(await device.telemetry())
        for order, arguments, afterwards in ORDERS[name]:
            result = await device.do(order, **arguments)
            assert result["ok"], result
            if afterwards:
                assert (await device.telemetry()).items() >= afterwards.items()


async def test_a_pen_does_not_grip(broker: Mosquitto) -> None:
    async with example(broker, "pen", python_example(broker, "pen", "arm.py")) as arm:
        await arm.do("set_parameter", name="tool", value="pen")
        assert (await arm.do("close_gripper"))["error"] == "there is no gripper: a pen is mounted"


async def test_a_stopped_joint_tells_where_it_stands(broker: Mosquitto) -> None:
    async with example(broker, "halted", python_example(broker, "halted", "arm.py", speed_up=1)) as arm:
        moving = arm.order("move_joint", joint="base", angle=120)
        await arm.telemetry()
        await arm.do("stop")
        result = await arm.result(moving)
        assert result["error"] == f"stopped at {result['result']['angle']} degrees"
        assert 0 <= result["result"]["angle"] < 120
