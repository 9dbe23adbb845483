from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naila.fleet import DeviceProfile, DeviceView, FleetView, Reading, TelemetrySpec
from naila.orchestration.state_answers import answer_state
from naila.orchestration.trend import trend_of
from naila.understanding.reading import StateQuestion, StateTopic
from support.views import NAILA, fleet, seen


def history(*values: float, every_s: float = 20.0) -> Reading:
    """The last value now, the others before it."""
    count = len(values)
    earlier = tuple((value, (count - 1 - index) * every_s) for index, value in enumerate(values[:-1]))
    return Reading(values[-1], 0.0, earlier)


ROVER = seen(
    "rover",
    {
        "battery": Reading(83.24, 2.0),
        "x": Reading(1.2345, 1.0),
        "motor_temperature": Reading(31.2, 200.0),
        "moving": Reading(False, 1.0),
    },
)
ARM = seen("arm", {"gripper_open": Reading(True, 1.0)}, online=None, running=("wave",))
LAMP = seen("lamp", {"on": Reading(False, 1.0), "temperature": Reading(24.5, 3.0)})
FLEET = fleet(ROVER, ARM, LAMP)


def answered(
    topic: StateTopic,
    device_id: str | None = None,
    *names: str,
    adjective: str | None = None,
    view: FleetView = FLEET,
    request_id: str = "q1",
) -> str:
    question = StateQuestion(topic=topic, device_id=device_id, names=names, adjective=adjective)
    return answer_state(question, view, NAILA, request_id)


def test_a_reading_is_told_rounded_with_its_unit() -> None:
    words = answered("reading", "rover", "battery")
    assert "battery" in words
    assert "83.2%" in words
    assert " ago" not in words


def test_an_old_reading_is_told_with_its_age() -> None:
    assert "31.2 °C as of 3 minutes ago" in answered("reading", "rover", "motor_temperature")


def test_what_was_not_measured_is_not_made_up() -> None:
    words = answered("reading", "rover", "heading")
    assert "heading" in words
    assert not any(char.isdigit() for char in words)


def test_all_readings_are_told_in_one_line() -> None:
    words = answered("reading", "rover")
    assert "battery 83.2%" in words
    assert "x 1.23 m" in words


def test_a_short_name_is_explained() -> None:
    assert "x (position, east of the dock)" in answered("reading", "rover", "x")


@pytest.mark.parametrize(("value", "word"), [(True, "The light is on"), (False, "The light is off")])
def test_true_and_false_are_told_in_words(value: bool, word: str) -> None:
    view = fleet(seen("lamp", {"on": Reading(value, 1.0)}))
    assert answered("reading", "lamp", "on", view=view).startswith(word)


def test_a_device_that_is_offline_is_told_so() -> None:
    view = fleet(seen("lamp", {"temperature": Reading(24.5, 300.0)}, online=False))
    words = answered("reading", "lamp", "temperature", view=view)
    assert "24.5 °C as of 5 minutes ago" in words
    assert "Lamp is offline." in words


def lamp_with(**readings: float | bool) -> FleetView:
    return fleet(seen("lamp", {name: Reading(value, 1.0) for name, value in readings.items()}))


@pytest.mark.parametrize(
    ("adjective", "reading", "verdict"),
    [
        ("warm", {"temperature": 24.5}, "Yes"),
        ("warm", {"temperature": 18.0}, "No"),
        ("cold", {"temperature": 12.0}, "Yes"),
        ("cold", {"temperature": 21.0}, "No"),
        ("humid", {"humidity": 70}, "Yes"),
        ("dry", {"humidity": 70}, "No"),
        ("bright", {"brightness": 90}, "Yes"),
        ("dark", {"brightness": 90}, "No"),
        ("on", {"on": True}, "Yes"),
        ("on", {"on": False}, "No"),
        ("off", {"on": False}, "Yes"),
        ("off", {"on": True}, "No"),
    ],
)
def test_an_adjective_is_judged_and_the_figure_given(
    adjective: str, reading: dict[str, float | bool], verdict: str
) -> None:
    words = answered("condition", "lamp", adjective=adjective, view=lamp_with(**reading))
    assert words.startswith(verdict)
    value = next(iter(reading.values()))
    assert isinstance(value, bool) or f"{value:g}" in words


@pytest.mark.parametrize(("value", "adjective", "verdict"), [(True, "open", "Yes"), (True, "closed", "No")])
def test_open_and_closed_are_told(value: bool, adjective: str, verdict: str) -> None:
    view = fleet(seen("arm", {"gripper_open": Reading(value, 1.0)}))
    assert answered("condition", "arm", adjective=adjective, view=view).startswith(verdict)


@pytest.mark.parametrize(("value", "adjective", "verdict"), [(True, "closed", "Yes"), (True, "open", "No")])
def test_a_field_that_is_true_when_closed_is_not_read_backwards(value: bool, adjective: str, verdict: str) -> None:
    profile = DeviceProfile(device_id="gate", name="Gate", telemetry={"door_closed": TelemetrySpec()})
    view = FleetView("rover", (DeviceView(profile=profile, readings={"door_closed": Reading(value, 1.0)}),))
    assert answered("condition", "gate", adjective=adjective, view=view).startswith(verdict)


@pytest.mark.parametrize(("battery", "verdict"), [(14.0, "Yes"), (18.0, "No"), (50.0, "No")])
def test_low_is_below_the_declared_minimum(battery: float, verdict: str) -> None:
    view = fleet(seen("rover", {"battery": Reading(battery, 1.0)}))
    assert answered("condition", "rover", adjective="low", view=view).startswith(verdict)


@pytest.mark.parametrize(("value", "verdict"), [(35.0, "No"), (65.0, "Yes")])
def test_hot_is_measured_by_what_the_thing_stands(value: float, verdict: str) -> None:
    view = fleet(seen("rover", {"motor_temperature": Reading(value, 1.0)}))
    assert answered("condition", "rover", adjective="hot", view=view).startswith(verdict)


def test_in_the_fleet_the_room_is_warm_and_not_the_motor() -> None:
    words = answered("condition", adjective="warm")
    assert "24.5 °C" in words
    assert "motor" not in words


def test_a_reading_in_another_unit_is_told_and_not_judged() -> None:
    profile = DeviceProfile(device_id="us", name="Us", telemetry={"temperature": TelemetrySpec(unit="°F")})
    view = FleetView("us", (DeviceView(profile=profile, readings={"temperature": Reading(70.0, 1.0)}),))
    words = answered("condition", "us", adjective="hot", view=view)
    assert not words.startswith(("Yes", "No"))
    assert "70 °F" in words


@pytest.mark.parametrize("adjective", ["hungry", "charging", "hot"])
def test_what_nobody_measures_is_not_judged(adjective: str) -> None:
    words = answered("condition", "arm", adjective=adjective, view=fleet(ARM))
    assert not words.startswith(("Yes", "No"))


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ((21.0, 21.3, 21.7, 22.1, 22.5), ("rising", "21 ", "22.5 °C")),
        ((22.5, 22.1, 21.7, 21.3, 21.0), ("falling",)),
        ((21.0, 21.1, 20.9, 21.1, 20.9, 21.0), ("21 °C",)),
    ],
)
def test_a_trend_is_told_with_its_figures(values: tuple[float, ...], parts: tuple[str, ...]) -> None:
    view = fleet(seen("lamp", {"temperature": history(*values)}))
    words = answered("trend", "lamp", "temperature", view=view)
    assert all(part in words for part in parts), words


def test_noise_is_no_trend() -> None:
    trend = trend_of(history(*[21 + 0.3 * (-1) ** n for n in range(20)]), 5, 35)
    assert trend is not None
    assert trend.direction == "steady"


def test_two_values_are_no_trend() -> None:
    words = answered("trend", "lamp", "temperature", view=fleet(seen("lamp", {"temperature": history(20.0, 25.0)})))
    assert "rising" not in words
    assert "25 °C" in words


def test_what_one_can_do_is_told_with_examples() -> None:
    words = answered("capabilities", "rover")
    assert "drive straight for a distance" in words
    assert "“drive forward one meter”" in words
    assert "set parameter" not in words
    assert "battery" in words


def test_what_a_fleet_can_do_is_told_by_name_and_room() -> None:
    words = answered("capabilities")
    assert "Rover in the kitchen can" in words
    assert "Arm in the workshop can" in words
    assert "wave" in words


def test_who_is_there() -> None:
    view = fleet(ROVER, ARM, seen("lamp", online=False))
    words = answered("presence", view=view)
    assert "Arm hasn't said whether it is online." in words
    assert "Lamp is offline." in words
    assert "Rover is" in words


def test_what_one_is_doing() -> None:
    assert "wave" in answered("activity", "arm")
    assert "Rover is not moving." in answered("activity", "rover")


def test_a_parameter_is_told_with_its_range_or_as_unknown() -> None:
    view = fleet(seen("rover", {"max_speed": Reading(0.3, 1.0)}))
    assert "0.3 m/s" in answered("parameter", "rover", "max_speed", view=view)
    words = answered("parameter", "rover", "max_speed")
    assert "0.05 to 0.5 m/s" in words
    assert "0.3" not in words


@pytest.mark.parametrize(
    "topic", ["reading", "condition", "trend", "capabilities", "presence", "activity", "parameter"]
)
def test_a_fleet_of_none_is_told_so(topic: StateTopic) -> None:
    assert answered(topic, view=FleetView("rover"))


@pytest.mark.parametrize(
    "topic", ["reading", "condition", "trend", "capabilities", "presence", "activity", "parameter"]
)
@settings(max_examples=25, deadline=None)
@given(text=st.text(max_size=300), value=st.floats() | st.booleans() | st.text(max_size=500))
def test_whatever_was_declared_and_measured_is_told_on_one_bounded_line(
    topic: StateTopic, text: str, value: float | bool | str
) -> None:
    spec = TelemetrySpec(unit=text, description=f"Whether it is {text}")
    reading = Reading(value, 1.0, ((float("nan"), 3.0), (1.0, 2.0), (2.0, 1.5)) if isinstance(value, float) else ())
    profile = DeviceProfile(device_id="x", name=text, room=text, telemetry={"temperature": spec, text: spec})
    view = FleetView("y", (DeviceView(profile=profile, readings={"temperature": reading, text: reading}),))
    for names in ((), ("temperature", text, "nothing")):
        words = answered(topic, "x", *names, adjective="hot", view=view)
        assert words
        assert len(words) < 2500
        assert not any(unicodedata.category(char)[0] == "C" for char in words)
