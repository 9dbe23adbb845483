"""What one device measured: the latest value of each field, and enough earlier numbers to tell a trend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from naila.fleet import MAX_FIELDS, MAX_NAME_CHARS, MAX_TEXT_CHARS, Reading, ReadingValue

MAX_POINTS: Final = 128
SPAN_S: Final = 600.0
_GAP_S: Final = SPAN_S / (MAX_POINTS - 2)


class Telemetry:
    """Readings of one device, at most `MAX_FIELDS` of them: the field that is longest without news makes room.

    A field that sends faster than `SPAN_S` / `MAX_POINTS` is thinned to that, so that its history always spans
    `SPAN_S` seconds and more; its newest value is kept in any case.
    """

    def __init__(self) -> None:
        self._fields: dict[str, _Field] = {}

    def measure(self, values: Mapping[str, ReadingValue], now: float) -> None:
        """Take in new values; what is no reading (NaN, long text, a long name) is left out.

        Args:
            values: by field.
            now: when they came, in seconds on the monotonic clock.
        """
        for name, value in values.items():
            if not _is_reading(name, value):
                continue
            field = self._fields.pop(name, None) or _Field()
            field.measure(value, now)
            self._fields[name] = field
        while len(self._fields) > MAX_FIELDS:
            del self._fields[next(iter(self._fields))]

    def readings(self, now: float) -> dict[str, Reading]:
        """Return the latest value of each field with its age and history."""
        return {name: field.reading(now) for name, field in self._fields.items()}


class _Field:
    """The newest value of a field, and points of the past at least `_GAP_S` apart."""

    def __init__(self) -> None:
        self._value: ReadingValue = False
        self._at = -math.inf
        self._points: list[tuple[float, float]] = []

    def measure(self, value: ReadingValue, now: float) -> None:
        is_number = _is_number(self._value)
        if is_number and self._at > -math.inf and (not self._points or self._at - self._points[-1][0] >= _GAP_S):
            self._points.append((self._at, float(self._value)))
        if not _is_number(value):
            self._points.clear()
        if len(self._points) > MAX_POINTS:
            del self._points[0]
        self._value, self._at = value, now

    def reading(self, now: float) -> Reading:
        history = tuple((value, max(0.0, now - at)) for at, value in self._points)
        return Reading(self._value, max(0.0, now - self._at), history)


def _is_number(value: ReadingValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_reading(name: str, value: ReadingValue) -> bool:
    if not 0 < len(name) <= MAX_NAME_CHARS:
        return False
    if isinstance(value, str):
        return len(value) <= MAX_TEXT_CHARS
    return -1e308 < value < 1e308  # not NaN, not infinite, not an integer that no float holds
