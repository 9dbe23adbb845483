"""The body of the simulated rover: two driven wheels, a battery, motors that warm up, and eyes for what is in the way.

Metres, seconds, radians. No MQTT here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from rover_world import PLACES, RADIUS, ROOM, reaches

TRACK: Final = 0.24
ACCELERATION: Final = 0.6


@dataclass
class Rover:
    """The robot's body.

    Attributes:
        x: position of its middle.
        y: position of its middle.
        heading: direction that it faces, counter-clockwise from east.
        left: speed of the left wheel.
        right: speed of the right wheel.
        wanted: speeds that the motors work towards.
        battery: charge, in %.
        motor_temperature: in °C.
        bumped: what it ran into in the last step, if it did.
    """

    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0
    left: float = 0.0
    right: float = 0.0
    wanted: tuple[float, float] = (0.0, 0.0)
    battery: float = 90.0
    motor_temperature: float = 24.0
    bumped: str | None = None

    @property
    def is_moving(self) -> bool:
        """Whether a wheel turns."""
        return abs(self.left) + abs(self.right) > 1e-6

    @property
    def is_docked(self) -> bool:
        """Whether it stands where it is charged."""
        return not self.is_moving and math.dist((self.x, self.y), PLACES["dock"]) < 0.25

    def step(self, dt_s: float) -> None:
        """Let time pass."""
        if self.battery <= 0:
            self.wanted = (0.0, 0.0)
        most = ACCELERATION * dt_s
        self.left += max(-most, min(most, self.wanted[0] - self.left))
        self.right += max(-most, min(most, self.wanted[1] - self.right))
        speed, turning = (self.left + self.right) / 2, (self.right - self.left) / TRACK
        middle = self.heading + turning * dt_s / 2
        x, y = self.x + speed * math.cos(middle) * dt_s, self.y + speed * math.sin(middle) * dt_s
        self.bumped = next((box.name for box in ROOM if reaches(box, x, y)), None) if speed else None
        if self.bumped:
            self.halt()
        else:
            self.x, self.y = x, y
        self.heading += turning * dt_s
        effort = (abs(self.left) + abs(self.right)) / 2
        charge = 1.0 if self.is_docked else -0.005 - 0.25 * effort
        self.battery = max(0.0, min(100.0, self.battery + charge * dt_s))
        self.motor_temperature += (24 + 60 * effort - self.motor_temperature) * dt_s / 60

    def halt(self) -> None:
        """Stand still at once: the wheels are locked."""
        self.left, self.right, self.wanted = 0.0, 0.0, (0.0, 0.0)

    def clearance(self, heading: float) -> tuple[float, str]:
        """Return how far it could go in a direction, and what stands there."""
        aside = (-math.sin(heading) * RADIUS, math.cos(heading) * RADIUS)
        rays = (
            (box.ray(self.x + side * aside[0], self.y + side * aside[1], heading), box.name)
            for box in ROOM
            for side in (-1, 0, 1)
        )
        distance, name = min(rays)
        return max(0.0, distance - RADIUS), name
