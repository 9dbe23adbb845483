"""Whatever the simulated devices may be asked for ends within its time to live: else nobody hears that it was done."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import product
from typing import Any

import pytest

from support.example import EXAMPLES

OPTIONS = Namespace(device_id="slow", root="naila", plain=True, username=None, password=None, ca=None)
ROOM = [(0.0, -0.6), (0.0, 0.0), (4.1, -0.6), (3.2, 2.3), (0.4, 2.6)]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def make(name: str) -> Any:
        return getattr(import_module(name), f"Simulated{name.title()}")(OPTIONS)

    return make


def ends(schema: dict[str, Any]) -> list[Any]:
    """The values of a declared range or list among which the slowest is."""
    return schema.get("enum") or [schema[key] for key in ("minimum", "maximum") if key in schema] or [True]


def slowest(device: Any) -> None:
    """Set every writable number to its smallest value; of a time, to its largest."""
    for name, spec in device.document["parameters"].items():
        if spec.get("writable") and "minimum" in spec:
            device.parameters[name] = spec["maximum" if spec["unit"] == "s" else "minimum"]


def wanted(device: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for action in device.document["actions"]:
        properties = action["parameters"]["properties"]
        for values in product(*(ends(schema) for schema in properties.values())):
            yield action, dict(zip(properties, values, strict=True))


def placed(device: Any) -> Iterator[None]:
    """Put a device where its way may be long."""
    if hasattr(device, "body"):
        for device.body.x, device.body.y in ROOM:
            yield
    elif hasattr(device, "_angles"):
        for angle in (-120.0, 120.0):
            device._angles = dict.fromkeys(device._angles, angle)
            yield
    else:
        yield


@pytest.mark.parametrize("name", ["rover", "arm", "lamp"])
def test_the_slowest_that_is_allowed_ends_in_its_time(made: Callable[[str], Any], name: str) -> None:
    device = made(name)
    step_s, failed = sys.modules["actions"].STEP_S, sys.modules["declared"].Failed
    slowest(device)
    for action, arguments in wanted(device):
        for _ in placed(device):
            took_s = 0.0
            try:
                for _ in getattr(device, action["name"])(**arguments) or ():
                    device.step(step_s)
                    took_s += step_s
            except failed:
                pass
            if hasattr(device, "body"):
                device.body.battery = 100.0
            assert took_s < 0.9 * action.get("ttl_ms", 10_000) / 1000, (action["name"], arguments)


def test_what_the_boards_are_asked_for_ends_in_its_time() -> None:
    declared = (EXAMPLES / "esp32_micropython" / "capabilities.json").read_text(encoding="utf-8")
    program = (EXAMPLES / "esp32_micropython" / "main.py").read_text(encoding="utf-8")
    assert "METRES_PER_S, DEGREES_PER_S, DUTY = 0.25, 120, 40000" in program
    actions = {action["name"]: action for action in json.loads(declared)["actions"]}
    for name, argument, speed in (("drive", "distance", 0.25), ("turn", "angle", 120)):
        action = actions[name]
        assert action["parameters"]["properties"][argument]["maximum"] / speed < 0.9 * action["ttl_ms"] / 1000
