"""A simulated rover: it drives around a room, and says truly how far it came. Run it, and tell it what to do.

    python examples/rover.py --host localhost

Its contract is rover.json, its world rover_world.py, its body rover_body.py, its MQTT part simulated.py.
"""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections import deque
from itertools import zip_longest
from pathlib import Path
from typing import Any

from actions import Work, pause
from command_line import options
from declared import Failed
from rover_body import ACCELERATION, TRACK, Rover
from rover_map import COLUMN_M, seen_from_above
from rover_world import PLACES, way
from simulated import SimulatedDevice

TOO_CLOSE_M = 0.05


class SimulatedRover(SimulatedDevice):
    """The rover: each of its actions is a method, with the arguments that rover.json declares."""

    def __init__(self, options: Namespace) -> None:
        parameters = {"max_speed": 0.3, "camera": True, "firmware": "1.0.0"}
        super().__init__(Path(__file__).with_name("rover.json"), options, parameters)
        self.body = Rover()
        self._places = dict(PLACES)
        self._photos = 0
        self._path: deque[tuple[float, float]] = deque(maxlen=500)

    def step(self, dt_s: float) -> None:
        """Let simulated time pass."""
        self.body.step(dt_s)
        if not self._path or math.dist(self._path[-1], (self.body.x, self.body.y)) > COLUMN_M:
            self._path.append((self.body.x, self.body.y))

    def halt(self) -> None:
        """Stand still, now."""
        self.body.halt()

    def measure(self) -> dict[str, Any]:
        """Return the telemetry of this moment."""
        return {
            "battery": round(self.body.battery, 1),
            "x": round(self.body.x, 2),
            "y": round(self.body.y, 2),
            "heading": round(math.degrees(self.body.heading) % 360),
            "obstacle_distance": round(self.body.clearance(self.body.heading)[0], 2),
            "motor_temperature": round(self.body.motor_temperature, 1),
            "moving": self.body.is_moving,
        }

    def drive(self, distance: float, direction: str = "forward", speed: float | None = None) -> Work:
        """Drive straight for a distance in metres, at a speed in metres per second."""
        sign, start = (1 if direction == "forward" else -1), (self.body.x, self.body.y)
        fastest = min(speed or self.parameters["max_speed"], self.parameters["max_speed"])
        try:
            while (left := distance - math.dist(start, (self.body.x, self.body.y))) > 0.003:
                way_back = 0.0 if sign > 0 else math.pi
                room, obstacle = self.body.clearance(self.body.heading + way_back)
                if room < TOO_CLOSE_M or self.body.bumped:
                    raise Failed(f"blocked by the {obstacle}")
                if self.body.battery <= 0:
                    raise Failed("the battery is empty")
                pace = sign * max(0.02, min(fastest, math.sqrt(ACCELERATION * min(left, room))))
                self.body.wanted = (pace, pace)
                yield
        except Failed as failure:
            driven = round(math.dist(start, (self.body.x, self.body.y)), 2)
            raise Failed(f"{failure} after {driven} m", {"distance": driven}) from None
        finally:
            self.body.halt()
        return {"distance": round(math.dist(start, (self.body.x, self.body.y)), 2)}

    def turn(self, angle: float, direction: str) -> Work:
        """Turn on the spot by an angle in degrees."""
        sign, start = (1 if direction == "left" else -1), self.body.heading
        try:
            while (left := math.radians(angle) - abs(self.body.heading - start)) > 0.01:
                if self.body.battery <= 0:
                    raise Failed("the battery is empty")
                pace = sign * max(0.01, min(0.2, math.sqrt(ACCELERATION * left * TRACK / 2)))
                self.body.wanted = (-pace, pace)
                yield
        except Failed as failure:
            turned = round(math.degrees(abs(self.body.heading - start)))
            raise Failed(f"{failure} after {turned} degrees", {"angle": turned}) from None
        finally:
            self.body.halt()
        return {"angle": round(math.degrees(abs(self.body.heading - start)))}

    def go_to(self, place: str) -> Work:
        """Drive to a place, around what stands between."""
        if place not in self._places:
            raise Failed(f"the map is empty: nobody knows where the {place} is")
        goal = self._places[place]
        if not (corners := way((self.body.x, self.body.y), goal)):
            raise Failed(f"there is no way to the {place}")
        try:
            for x, y in corners:
                turn = math.atan2(y - self.body.y, x - self.body.x) - self.body.heading
                turn = math.degrees(math.remainder(turn, math.tau))
                yield from self.turn(abs(turn), "left" if turn > 0 else "right")
                yield from self.drive(math.dist((self.body.x, self.body.y), (x, y)))
        except Failed as failure:
            left = round(math.dist((self.body.x, self.body.y), goal), 2)
            raise Failed(f"{failure}, {left} m from the {place}", {"left": left}) from None
        return {"place": place}

    def beep(self, times: int = 1) -> Work:
        """Beep."""
        yield from pause(0.2 * times)
        return {"times": times}

    def take_photo(self) -> dict[str, str]:
        """Take a picture."""
        if not self.parameters["camera"]:
            raise Failed("the camera is off")
        self._photos += 1
        return {"photo": f"photo-{self._photos}-{time.strftime('%H%M%S')}.jpg"}

    def clear_map(self) -> dict[str, int]:
        """Forget every place."""
        forgotten = len(self._places)
        self._places.clear()
        return {"forgotten": forgotten}

    def draw(self) -> list[str]:
        """Return the map beside the telemetry."""
        figures = [f"{name:>18}: {value}" for name, value in {**self.measure(), **self.parameters}.items()]
        rows = zip_longest(seen_from_above(self.body, self._path, self._places), figures, fillvalue="")
        return [f"{row}  {figure}" for row, figure in rows]


if __name__ == "__main__":
    SimulatedRover(options("A simulated rover.", "rover")).run()
