"""The world of the simulated rover: a room, what stands in it, and ways through it.

Metres and radians; x is east of the dock, y north of it. No MQTT here.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, NamedTuple


class Box(NamedTuple):
    """Something to drive into, its sides along the axes."""

    name: str
    west: float
    south: float
    east: float
    north: float

    def ray(self, x: float, y: float, heading: float) -> float:
        """Return the distance from a point outside to this box in a direction; infinite where it is missed."""
        near, far = 0.0, math.inf
        for at, go, low, high in (
            (x, math.cos(heading), self.west, self.east),
            (y, math.sin(heading), self.south, self.north),
        ):
            if abs(go) < 1e-9:
                if not low < at < high:
                    return math.inf
                continue
            first, second = sorted(((low - at) / go, (high - at) / go))
            near, far = max(near, first), min(far, second)
        return near if near <= far else math.inf


WEST, SOUTH, EAST, NORTH = -0.5, -1.0, 4.5, 3.0
ROOM: Final = (
    Box("wall", WEST - 1, SOUTH - 1, WEST, NORTH + 1),
    Box("wall", EAST, SOUTH - 1, EAST + 1, NORTH + 1),
    Box("wall", WEST - 1, SOUTH - 1, EAST + 1, SOUTH),
    Box("wall", WEST - 1, NORTH, EAST + 1, NORTH + 1),
    Box("crate", 2.4, -0.25, 2.8, 0.25),
    Box("sofa", 1.0, 1.6, 2.4, 2.2),
    Box("plant", 3.5, 1.2, 3.8, 1.5),
)
PLACES: Final = {"dock": (0.0, 0.0), "door": (4.1, -0.6), "table": (3.2, 2.3), "window": (0.4, 2.6)}
RADIUS: Final = 0.15
GRID: Final = 0.1
MARGIN: Final = 0.06


def reaches(box: Box, x: float, y: float, margin: float = 0.0) -> bool:
    """Whether a rover in a place would touch a box."""
    gap = math.hypot(max(box.west - x, 0, x - box.east), max(box.south - y, 0, y - box.north))
    return gap < RADIUS + margin


def way(start: tuple[float, float], goal: tuple[float, float]) -> list[tuple[float, float]]:
    """Return the corners of a way around what stands in the room, the goal last; nothing where there is none."""
    first, last = cell(start), cell(goal)
    towards = {last: last}
    frontier = deque([last])
    while frontier and first not in towards:
        x, y = frontier.popleft()
        for nearby in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            if nearby not in towards and (nearby == first or is_free(nearby[0] * GRID, nearby[1] * GRID)):
                towards[nearby] = (x, y)
                frontier.append(nearby)
    if first not in towards:
        return []
    points, at = [start], first
    while at != last:
        at = towards[at]
        points.append((at[0] * GRID, at[1] * GRID))
    points[-1] = goal
    corners, seen = [], 0
    while seen < len(points) - 1:
        ahead = range(len(points) - 1, seen, -1)
        seen = next((later for later in ahead if is_straight(points[seen], points[later])), seen + 1)
        corners.append(points[seen])
    return corners


def cell(point: tuple[float, float]) -> tuple[int, int]:
    """Return the cell of the grid in which a point lies."""
    return round(point[0] / GRID), round(point[1] / GRID)


def is_free(x: float, y: float) -> bool:
    """Whether a rover has room in a place."""
    return not any(reaches(box, x, y, MARGIN) for box in ROOM)


def is_straight(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether a rover can drive straight from one point to the other."""
    steps = math.ceil(math.dist(a, b) / 0.05)
    between = ((a[0] + (b[0] - a[0]) * n / steps, a[1] + (b[1] - a[1]) * n / steps) for n in range(1, steps + 1))
    return all(is_free(*point) for point in between)
