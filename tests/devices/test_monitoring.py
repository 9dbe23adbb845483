from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.agents.stops import Stops
from naila.config.monitoring import MonitoringRules, load_monitoring
from naila.devices import monitoring
from naila.devices.monitoring import HOLD_S, Monitor
from naila.devices.registry import Registry
from naila.devices.speaking_first import SAYINGS_PER_MINUTE, SpeakingFirst
from naila.errors import ConfigurationError
from naila.events import Alert, Capabilities, DeviceStatus, Telemetry
from naila.fleet import MAX_FIELDS, Proposal
from support.fakes import FakeClock, FakeFleet, FakePublisher
from support.fleets import FakeDeviceStore
from support.robots import until

FILE = Path(__file__).parents[2] / "config" / "monitoring.yaml"
LAMP: dict[str, Any] = {
    "name": "Lamp",
    "room": "Living room",
    "actions": [],
    "telemetry": {
        "temperature": {"unit": "°C", "minimum": 5, "maximum": 35},
        "power": {"unit": "W", "maximum": 15},
        "humidity": {"unit": "%"},
    },
}


@dataclass
class Watched:
    """A monitor with the real registry, a fleet that does what its script says, and a clock that is told the time."""

    rules: MonitoringRules
    clock: FakeClock = field(default_factory=FakeClock)
    fleet: FakeFleet = field(default_factory=FakeFleet)
    out: FakePublisher = field(default_factory=FakePublisher)

    def __post_init__(self) -> None:
        self.registry = Registry(
            FakeDeviceStore(),
            self.clock,
            on_change=self.change,
            on_measure=self.see,
        )
        stops = Stops(self.fleet, self.clock, on_stop=lambda _device_id, _request: None)
        self.reactions = SpeakingFirst(fleet=self.fleet, stops=stops, publisher=self.out, clock=self.clock)
        self.monitor = Monitor(
            self.rules, registry=self.registry, reactions=self.reactions, publisher=self.out, clock=self.clock
        )

    def change(self, device_id: str) -> None:
        self.monitor.changed(device_id)

    def see(self, event: Telemetry) -> None:
        self.monitor.measure(event)

    async def declare(self, document: dict[str, Any] | None = LAMP, device_id: str = "lamp") -> Watched:
        event = Capabilities(device_id=device_id, document=document)
        await self.registry.declare(event)
        return self

    def measure(self, device_id: str = "lamp", /, **values: float | bool | str) -> list[Alert]:
        self.registry.measure(Telemetry(device_id=device_id, values=values))
        return self.alerts

    def status(self, status: str, device_id: str = "lamp") -> None:
        self.registry.note_status(DeviceStatus(device_id=device_id, status=status))

    def later(self, seconds: float) -> list[Alert]:
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.monitor.sweep()
        return self.alerts

    @property
    def alerts(self) -> list[Alert]:
        """Return the alerts since this was asked last."""
        found = [event for event in self.out.published if isinstance(event, Alert)]
        self.out.published[:] = [event for event in self.out.published if not isinstance(event, Alert)]
        return found


def watched(**document: Any) -> Watched:
    return Watched(MonitoringRules.model_validate(document))


def codes(alerts: list[Alert]) -> list[str]:
    return [alert.code for alert in alerts]


@contextmanager
def refused(path: Path) -> Iterator[list[str]]:
    said: list[str] = []
    with pytest.raises(ConfigurationError) as caught:
        yield said
    said.append(str(caught.value))
    assert str(path) in said[0]


async def test_a_value_outside_the_declared_range_is_told_with_figure_and_limit() -> None:
    house = await watched().declare()
    assert house.measure(temperature=36.25) == [
        Alert(
            code="telemetry_high",
            severity="warning",
            message="Lamp (Living room): temperature is 36.25 °C, above 35 °C",
            device_id="lamp",
            value=36.25,
            threshold=35.0,
        )
    ]


async def test_a_value_below_the_declared_range_is_told() -> None:
    house = await watched().declare()
    (alert,) = house.measure(temperature=4)
    assert (alert.code, alert.threshold) == ("telemetry_low", 5.0)


async def test_normal_values_and_text_are_not_told() -> None:
    house = await watched().declare()
    assert house.measure(temperature=35, power=15.0, humidity=99, on=True, mood="hot") == []


async def test_it_is_told_once_and_over_only_with_some_distance() -> None:
    house = await watched().declare()
    house.measure(temperature=36)
    assert house.measure(temperature=40) == []
    house.clock.advance(HOLD_S)
    assert house.measure(temperature=34.9) == []
    (over,) = house.measure(temperature=34.4)
    assert (over.code, over.severity) == ("telemetry_high_cleared", "info")
    assert over.message == "Lamp (Living room): temperature is 34.4 °C, back below 35 °C"


async def test_a_value_that_comes_and_goes_is_one_alert_while_it_does() -> None:
    house = await watched().declare()
    told = [alert for step in range(40) for alert in house.measure(temperature=20 if step % 2 else 50)]
    assert codes(told) == ["telemetry_high"]


async def test_what_is_over_soon_is_told_to_be_over_later_without_another_measurement() -> None:
    house = await watched().declare()
    house.measure(temperature=50)
    assert house.measure(temperature=20) == []
    assert codes(house.later(HOLD_S + 1)) == ["telemetry_high_cleared"]


@given(st.lists(st.floats(-50, 150), max_size=60), st.floats(0, 50))
def test_alerts_and_their_ends_alternate_and_keep_to_the_limit_of_a_minute(values: list[float], share: float) -> None:
    house = watched(rules=[{"field": "x", "above": 50}], hysteresis_percent=share, alerts_per_minute=5)
    told = []
    for value in values:
        told += house.measure("bot", x=value)
        house.clock.advance(0.5)
    expected = ["telemetry_high", "telemetry_high_cleared"] * len(told)
    assert codes(told) == expected[: len(told)]
    assert len(told) <= 5


async def test_a_rule_replaces_the_side_of_the_declared_range_that_it_names() -> None:
    house = await watched(rules=[{"field": "temp*", "room": "living*", "above": 30, "severity": "critical"}]).declare()
    (alert,) = house.measure(temperature=36)
    assert (alert.threshold, alert.severity) == (30.0, "critical")
    house.clock.advance(60)
    assert "telemetry_low" in codes(house.measure(temperature=1))


async def test_two_rules_about_a_field_are_two_levels() -> None:
    levels = [{"field": "b", "below": 20}, {"field": "b", "below": 5, "severity": "critical"}]
    house = watched(rules=levels)
    assert [alert.severity for alert in house.measure("bot", b=10)] == ["warning"]
    assert [alert.severity for alert in house.measure("bot", b=4)] == ["critical"]


async def test_a_rule_switches_a_declared_range_off() -> None:
    house = await watched(rules=[{"field": "power", "device": "la?p", "declared": False}]).declare()
    assert house.measure(power=99) == []
    assert codes(house.measure(temperature=99)) == ["telemetry_high"]


async def test_declared_ranges_are_switched_off_together() -> None:
    house = await watched(declared={"alert": False}).declare()
    assert house.measure(temperature=99) == []


async def test_a_rule_of_another_device_or_room_does_not_hold() -> None:
    rules = [{"field": "*", "device": "rover", "above": 1}, {"field": "*", "room": "kitchen", "above": 1}]
    house = await watched(rules=rules).declare()
    assert house.measure(humidity=50) == []


async def test_it_must_last() -> None:
    house = watched(rules=[{"field": "x", "above": 1, "for_s": 5}])
    assert house.measure("bot", x=2) == []
    assert house.later(4) == []
    assert codes(house.later(1)) == ["telemetry_high"]


async def test_what_does_not_last_is_not_told() -> None:
    house = watched(rules=[{"field": "x", "above": 1, "for_s": 5}])
    house.measure("bot", x=2)
    house.measure("bot", x=0.99)
    assert house.later(10) == []


async def test_the_hysteresis_of_a_rule_holds() -> None:
    house = watched(rules=[{"field": "x", "below": 20, "hysteresis": 5}])
    house.measure("bot", x=19)
    house.clock.advance(HOLD_S)
    assert house.measure("bot", x=24) == []
    assert codes(house.measure("bot", x=25)) == ["telemetry_low_cleared"]


async def test_a_hysteresis_wider_than_what_is_normal_still_ends() -> None:
    house = watched(rules=[{"field": "x", "below": 10, "above": 12, "hysteresis": 50}])
    house.measure("bot", x=13)
    house.clock.advance(HOLD_S)
    assert codes(house.measure("bot", x=11)) == ["telemetry_high_cleared"]


async def test_true_is_above_a_half() -> None:
    house = watched(rules=[{"field": "obstacle", "above": 0.5}])
    assert house.measure("bot", obstacle=False) == []
    assert codes(house.measure("bot", obstacle=True)) == ["telemetry_high"]


async def test_a_rule_says_what_to_do() -> None:
    house = await watched(rules=[{"field": "power", "above": 10, "message": "Replace the bulb."}]).declare()
    assert house.measure(power=12)[0].message == "Lamp (Living room): power is 12 W, above 10 W. Replace the bulb."


async def test_silence_is_told_once_and_its_end() -> None:
    house = await watched(rules=[{"field": "*", "stale_after_s": 30, "severity": "critical"}]).declare()
    house.measure(temperature=20, power=1, humidity=50)
    assert house.later(30) == []
    (alert,) = house.later(40)
    assert (alert.code, alert.severity, alert.threshold) == ("telemetry_stale", "critical", 30.0)
    assert "temperature, power and humidity" in alert.message
    assert codes(house.measure(temperature=20, power=1, humidity=50)) == ["telemetry_stale_cleared"]


async def test_a_declared_field_that_never_came_is_silent_too() -> None:
    house = await watched(rules=[{"field": "humidity", "stale_after_s": 30}]).declare()
    house.measure(temperature=20)
    assert codes(house.later(31)) == ["telemetry_stale"]


async def test_the_silence_of_a_device_that_is_offline_is_not_told_and_it_gets_time_when_it_is_back() -> None:
    house = await watched(rules=[{"field": "*", "stale_after_s": 30}], offline={"alert": False}).declare()
    house.status("online")
    house.status("offline")
    assert house.later(100) == []
    house.status("online")
    assert house.later(30) == []
    assert codes(house.later(2)) == ["telemetry_stale"]


async def test_a_device_that_goes_is_told_and_that_it_is_back() -> None:
    house = await watched().declare()
    house.status("online")
    house.status("offline")
    assert house.later(29) == []
    assert [alert.message for alert in house.later(2)] == ["Lamp (Living room) is offline"]
    house.status("online")
    assert codes(house.later(HOLD_S)) == ["device_offline_cleared"]


async def test_a_device_that_only_reconnects_is_not_told() -> None:
    house = await watched().declare()
    house.status("online")
    house.status("offline")
    house.later(10)
    house.status("online")
    assert house.later(60) == []


async def test_a_device_that_was_off_before_is_not_told() -> None:
    house = await watched().declare()
    house.status("offline")
    assert house.later(60) == []


async def test_what_is_not_declared_any_more_is_over() -> None:
    house = await watched().declare()
    house.measure(temperature=99)
    house.clock.advance(HOLD_S)
    await house.declare({**LAMP, "telemetry": {}})
    (over,) = house.alerts
    assert over.code == "telemetry_high_cleared"
    assert "not watched any more" in over.message


async def test_an_alert_makes_the_device_say_something() -> None:
    rules = [{"field": "power", "above": 10, "say": "I am {name}, and my {field} of {value} is over {limit}."}]
    house = await watched(rules=rules).declare()
    house.measure(power=12)
    (reply,) = house.out.replies
    assert reply.text == "I am Lamp, and my power of 12 W is over 10 W."
    assert (reply.device_id, reply.intent, reply.source) == ("lamp", "alert", "pattern")


async def test_texts_of_devices_are_filled_in_and_never_read() -> None:
    rules = [{"field": "*", "above": 10, "say": "{name}: {field}"}]
    house = await watched(rules=rules).declare({**LAMP, "name": "{field.__class__} {0}"})
    house.measure("lamp", **{"{limit}": 12})
    assert house.out.replies[0].text == "{field.__class__} {0}: {limit}"


async def test_a_device_says_only_so_much_within_a_minute() -> None:
    house = watched(rules=[{"field": "*", "above": 1, "say": "Ow."}], alerts_per_minute=600)
    house.measure("bot", **{f"f{index}": 2 for index in range(50)})
    assert len(house.out.replies) == SAYINGS_PER_MINUTE


async def test_an_alert_proposes_its_action() -> None:
    action = {"name": "dock", "arguments": {"fast": True}}
    house = watched(rules=[{"field": "battery", "below": 15, "action": action}])
    running = asyncio.create_task(house.reactions.run())
    house.measure("rover", battery=12)
    await until(lambda: bool(house.fleet.proposed))
    (proposal,) = house.fleet.proposed
    assert proposal == Proposal(
        device_id="rover",
        name="dock",
        arguments={"fast": True},
        request_id=proposal.request_id,
        speaker="rover",
        by="alert",
    )
    running.cancel()


async def test_an_action_that_was_refused_is_told() -> None:
    house = watched(
        rules=[{"field": "x", "above": 1, "severity": "critical", "action": {"name": "off", "device": "fan"}}]
    )
    house.fleet.script = ["refused"]
    running = asyncio.create_task(house.reactions.run())
    house.measure("bot", x=2)
    await until(lambda: bool(house.out.published))
    (told,) = house.alerts
    assert (told.code, told.severity, told.device_id) == ("alert_action", "critical", "fan")
    assert told.message == "off of fan refused: it was refused. It was wanted because of telemetry_high of bot"
    running.cancel()


async def test_a_stop_that_an_alert_wants_waits_for_nothing() -> None:
    house = watched(rules=[{"field": "tilt", "above": 30, "action": {"name": "stop"}}])
    house.measure("rover", tilt=45)
    assert house.fleet.stops == ["rover"]


async def test_an_action_does_not_wait_for_room_to_tell() -> None:
    house = watched(rules=[{"field": "*", "above": 1, "action": {"name": "stop"}}], alerts_per_minute=1)
    assert len(house.measure("rover", a=2)) == 1
    assert house.measure("rover", b=2) == []
    assert house.fleet.stops == ["rover", "rover"]
    assert codes(house.later(60)) == ["telemetry_high"]


async def test_one_device_does_not_take_the_room_of_another() -> None:
    house = watched(rules=[{"field": "*", "above": 1}], alerts_per_minute=3)
    assert len(house.measure("loud", **{f"f{index}": 2 for index in range(50)})) == 3
    assert len(house.measure("quiet", x=2)) == 1


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "MAX_DEVICES", 8)
    house = watched(rules=[{"field": "*", "above": 1}, {"field": "*", "stale_after_s": 1}], alerts_per_minute=600)
    for device in range(20):
        for batch in range(3):
            house.measure(f"bot{device}", **{f"f{batch}_{index}": 2 for index in range(200)})
    devices = house.monitor._devices
    assert len(devices) == 8
    for kept in devices.values():
        assert len(kept.standing) <= monitoring.MAX_STANDING
        assert all(len(heard) <= MAX_FIELDS for heard in kept.heard.values())
        assert len(kept.limits) <= MAX_FIELDS


async def test_the_loop_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "SWEEP_S", 0.01)
    house = watched(rules=[{"field": "x", "above": 1, "for_s": 1}])
    running = asyncio.create_task(house.monitor.run())
    house.measure("bot", x=2)
    house.clock.advance(1)
    await until(lambda: bool(house.out.published))
    running.cancel()


def test_the_file_that_comes_with_naila_is_valid() -> None:
    assert load_monitoring(FILE) == MonitoringRules()


def test_the_examples_in_the_file_are_valid(tmp_path: Path) -> None:
    lines = FILE.read_text().split("# For example:\n")[1].split("\n\n")[0].splitlines()
    path = tmp_path / "monitoring.yaml"
    path.write_text("\n".join(line.removeprefix("# ") for line in lines).replace("  rules:", "rules:"))
    assert len(load_monitoring(path).rules) == 4


@pytest.mark.parametrize(
    ("rule", "place", "words"),
    [
        ("{field: x}", "rules.0", "watches nothing"),
        ("{above: 1}", "rules.0.field", "required"),
        ("{field: x, above: .nan}", "rules.0.above", "less than"),
        ("{field: x, above: 1, below: 2}", "rules.0", "below (2) must be less than above (1)"),
        ("{field: x, above: 1, severity: bad}", "rules.0.severity", "'info', 'warning' or 'critical'"),
        ("{field: x, above: 1, device: 'a b'}", "rules.0.device", "pattern"),
        ("{field: x, above: 1, say: '{secret}'}", "rules.0.say", "{secret} is not known here"),
        ("{field: x, above: 1, say: '{name.x}'}", "rules.0.say", "{name.x} is not known here"),
        ("{field: x, above: 1, action: {name: dock, speed: 1}}", "rules.0.action.speed", "not permitted"),
        ("{field: x, declared: false, say: hello}", "rules.0", "belong to"),
        ("{field: x, stale_after_s: 0}", "rules.0.stale_after_s", "greater than 0"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path: Path, rule: str, place: str, words: str) -> None:
    path = tmp_path / "monitoring.yaml"
    path.write_text(f"rules:\n  - {rule}\n")
    with refused(path) as said:
        load_monitoring(path)
    assert f"{place}:" in said[0]
    assert words in said[0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with refused(path):
        load_monitoring(path)
