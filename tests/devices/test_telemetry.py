"""Readings: the latest, their age, and a bounded past."""

from __future__ import annotations

import math
from typing import Any

import pytest

from naila.devices.telemetry import MAX_POINTS, SPAN_S, Telemetry
from naila.fleet import MAX_FIELDS, Reading


def test_the_latest_value_has_an_age() -> None:
    telemetry = Telemetry()
    telemetry.measure({"battery": 80, "moving": True, "state": "idle"}, 100.0)
    telemetry.measure({"moving": False}, 103.0)
    assert telemetry.readings(105.0) == {
        "battery": Reading(80, 5.0),
        "state": Reading("idle", 5.0),
        "moving": Reading(False, 2.0),
    }


def test_earlier_numbers_are_history_oldest_first() -> None:
    telemetry = Telemetry()
    for at, value in ((0.0, 20.0), (60.0, 21.0), (120.0, 22.0)):
        telemetry.measure({"t": value}, at)
    assert telemetry.readings(130.0)["t"] == Reading(22.0, 10.0, ((20.0, 130.0), (21.0, 70.0)))


@pytest.mark.parametrize("period_s", [0.01, 0.7, 3.0, 5.0, 60.0])
def test_history_spans_ten_minutes_in_bounded_room(period_s: float) -> None:
    telemetry, at = Telemetry(), 0.0
    for step in range(int(2 * SPAN_S / period_s)):
        at = step * period_s
        telemetry.measure({"t": step}, at)
    history = telemetry.readings(at)["t"].history
    assert len(history) <= MAX_POINTS
    assert history[0][1] >= SPAN_S
    assert [age for _, age in history] == sorted((age for _, age in history), reverse=True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "x" * 257])
def test_what_is_no_reading_is_left_out(value: Any) -> None:
    telemetry = Telemetry()
    telemetry.measure({"t": 1}, 0.0)
    telemetry.measure({"t": value, "x" * 65: 1, "": 1}, 1.0)
    assert telemetry.readings(1.0) == {"t": Reading(1, 1.0)}


def test_of_too_many_fields_the_one_longest_without_news_goes() -> None:
    telemetry = Telemetry()
    for number in range(MAX_FIELDS):
        telemetry.measure({f"t{number}": number}, float(number))
    telemetry.measure({"t0": 0}, 1000.0)
    telemetry.measure({"new": 1}, 1001.0)
    fields = telemetry.readings(1001.0)
    assert len(fields) == MAX_FIELDS
    assert {"t0", "new"} <= fields.keys()
    assert "t1" not in fields


def test_a_field_that_becomes_a_word_loses_its_numbers() -> None:
    telemetry = Telemetry()
    for at, value in ((0.0, 1), (60.0, 2), (120.0, "broken"), (180.0, 3)):
        telemetry.measure({"t": value}, at)
    assert telemetry.readings(180.0)["t"] == Reading(3, 0.0)
