"""A simulated lamp with a room sensor.

    python examples/lamp.py --host localhost

Its contract is lamp.json, its MQTT part simulated.py: this file is what a device of your own needs besides.
"""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from actions import Work, pause
from command_line import options
from simulated import SimulatedDevice

FULL_POWER_W = 9.0


class SimulatedLamp(SimulatedDevice):
    """The lamp: each of its actions is a method, with the arguments that lamp.json declares."""

    def __init__(self, options: Namespace) -> None:
        super().__init__(Path(__file__).with_name("lamp.json"), options, {"fade_time": 0.5})
        self._on = False
        self._level = 100.0
        self._color = "warm white"
        self._time_s = 0.0

    def step(self, dt_s: float) -> None:
        """Let simulated time pass."""
        self._time_s += dt_s

    def measure(self) -> dict[str, Any]:
        """Return the telemetry of this moment."""
        power = 0.3 + (FULL_POWER_W * self._level / 100 if self._on else 0.0)
        hours = self._time_s / 3600
        return {
            "on": self._on,
            "brightness": round(self._level),
            "power": round(power, 1),
            "temperature": round(21 + 2 * math.sin(hours) + (0.5 if self._on else 0.0), 1),
            "humidity": round(45 + 5 * math.cos(hours)),
        }

    def switch(self, state: str) -> dict[str, str]:
        """Switch the light on or off."""
        self._on = state == "on"
        return {"state": state}

    def set_brightness(self, level: int) -> Work:
        """Fade to a brightness in percent; the light goes on, or off at 0."""
        change = level - self._level if self._on else level
        start = self._level if self._on else 0.0
        self._on = True
        for tenth in range(1, 11):
            self._level = start + change * tenth / 10
            yield from pause(self.parameters["fade_time"] / 10)
        self._on, self._level = level > 0, float(level)
        return {"level": level}

    def set_color(self, color: str) -> dict[str, str]:
        """Change the colour."""
        self._color = color
        return {"color": color}

    def blink(self, times: int, interval: float = 0.5) -> Work:
        """Blink, with so many seconds between two."""
        was_on = self._on
        for _ in range(times):
            self._on = True
            yield from pause(interval / 2)
            self._on = False
            yield from pause(interval / 2)
        self._on = was_on
        return {"times": times}

    def draw(self) -> list[str]:
        """Return what the terminal shows."""
        glow = "█" * round(self._level / 5) if self._on else ""
        return [f"{self._color:>18}: {glow}", *super().draw()]


if __name__ == "__main__":
    SimulatedLamp(options("A simulated lamp.", "lamp")).run()
