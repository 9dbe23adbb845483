"""The three robots that come with NAILA, as somebody who speaks through the rover sees them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naila.config.patterns import load_patterns
from naila.config.personas import load_personas
from naila.devices.capabilities import read_profile
from naila.fleet import DeviceView, FleetView, Outcome, OutcomeStatus, Proposal, Reading
from naila.orchestration.patterns import Voice
from support.fleets import example

CONFIG = Path(__file__).parents[2] / "config"
NAILA = Voice(load_personas(CONFIG / "personas")["naila"], load_patterns(CONFIG / "patterns.yaml"))


def seen(name: str, readings: Mapping[str, Reading] | None = None, **changes: Any) -> DeviceView:
    """Return one of the robots, online and idle."""
    profile = read_profile(name, example(name))
    return DeviceView(**{"profile": profile, "online": True, "readings": readings or {}, **changes})


def fleet(*devices: DeviceView, speaker: str = "rover") -> FleetView:
    """Return a view of these robots, by default of all three."""
    return FleetView(speaker, devices or (seen("rover"), seen("arm"), seen("lamp")))


def outcome(
    device_id: str, name: str, status: OutcomeStatus, arguments: Mapping[str, Any] | None = None, **facts: Any
) -> Outcome:
    """Return what became of an action that was asked for through the rover."""
    proposal = Proposal(device_id=device_id, name=name, arguments=arguments or {}, request_id="q1", speaker="rover")
    return Outcome(proposal=proposal, id="a1", status=status, **facts)
