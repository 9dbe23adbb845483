"""Whether a reading rises or falls, or only trembles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from naila.fleet import Reading

LEAST_POINTS: Final = 3
LEAST_SPAN_S: Final = 1.0
NOISE: Final = 2.0  # a change under so many standard deviations of the noise is none
LEAST_SHARE: Final = 0.005  # of the declared range, or of the value itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How a reading changed.

    Attributes:
        direction: which way.
        first: the fitted line's value at the beginning where there is a trend, in the reading's unit.
        last: at the end.
        span_s: seconds between them.
    """

    direction: Literal["rising", "falling", "steady"]
    first: float
    last: float
    span_s: float


def trend_of(reading: Reading, minimum: float | None, maximum: float | None) -> Trend | None:
    """Return how a reading changed over its history, by a straight line through it; None where too little is known."""
    if isinstance(reading.value, bool | str):
        return None
    points = _points(reading, float(reading.value))
    span = points[-1][0] - points[0][0] if points else 0.0
    if len(points) < LEAST_POINTS or span < LEAST_SPAN_S:
        return None
    count = len(points)
    middle, mean = sum(at for at, _ in points) / count, sum(value for _, value in points) / count
    # Products, since a power raises where a sensor says 1e200.
    spread = sum((at - middle) * (at - middle) for at, _ in points)
    slope = sum((at - middle) * (value - mean) for at, value in points) / spread
    first, last = mean + slope * (points[0][0] - middle), mean + slope * (points[-1][0] - middle)
    rest = [value - mean - slope * (at - middle) for at, value in points]
    left = sum(each * each for each in rest)
    # Of the slope, as least squares has it: many noisy points show a small change surely.
    noise = math.sqrt(left / max(1, count - 2) / spread) * span
    declared = maximum - minimum if minimum is not None and maximum is not None else abs(mean)
    change = last - first
    if not math.isfinite(change + noise):
        return None
    if abs(change) <= max(NOISE * noise, LEAST_SHARE * declared):
        return Trend(direction="steady", first=mean, last=mean, span_s=span)
    return Trend(direction="rising" if change > 0 else "falling", first=first, last=last, span_s=span)


def _points(reading: Reading, value: float) -> list[tuple[float, float]]:
    """Return when and what was measured, the latest last, at negative seconds."""
    points = [(-age, float(earlier)) for earlier, age in reading.history]
    if not points or points[-1][0] < -reading.age_s:
        points.append((-reading.age_s, value))
    return [(at, measured) for at, measured in points if math.isfinite(at) and math.isfinite(measured)]
