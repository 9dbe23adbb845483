"""Fleets to speak to: the three example robots, and devices that nothing in the lexicon was written for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from naila.devices.capabilities import read_profile
from naila.fleet import DeviceProfile, DeviceView, FleetView, Reading

EXAMPLES = Path("examples")
HOUSE = Path(__file__).with_name("house.yaml")


def fleet(speaker: str, devices: Mapping[str, DeviceView]) -> FleetView:
    """Return the fleet as one of them, or a panel, sees it."""
    own = [devices[speaker]] if speaker in devices else []
    return FleetView(speaker, (*own, *(view for name, view in devices.items() if name != speaker)))


def robots() -> dict[str, DeviceView]:
    """Return the robots of examples/."""
    readings: Mapping[str, Mapping[str, float | bool | str]] = {
        "lamp": {"on": True, "brightness": 60, "temperature": 22.5},
        "rover": {"battery": 76, "moving": False},
    }
    return {
        name: seen(read_profile(name, json.loads((EXAMPLES / f"{name}.json").read_text())), readings.get(name, {}))
        for name in ("rover", "arm", "lamp")
    }


def house() -> dict[str, DeviceView]:
    """Return a house full of other devices."""
    document = yaml.safe_load(HOUSE.read_text(encoding="utf-8"))
    return {
        name: seen(read_profile(name, declared), document["readings"].get(name, {}))
        for name, declared in document["devices"].items()
    }


def seen(profile: DeviceProfile, readings: Mapping[str, float | bool | str]) -> DeviceView:
    """Return a device that is online and has just measured."""
    return DeviceView(
        profile=profile, online=True, readings={name: Reading(value, 1.0) for name, value in readings.items()}
    )
