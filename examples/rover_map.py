"""The simulated rover's room as a terminal shows it, seen from above: north is up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from rover_body import Rover
from rover_world import EAST, NORTH, ROOM, SOUTH, WEST

COLUMN_M: Final = 0.1
ROW_M: Final = 0.2
ARROWS: Final = "→↗↑↖←↙↓↘"


def seen_from_above(
    body: Rover, path: Iterable[tuple[float, float]], places: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Return the rows of the map: what stands there, where the rover was, the places, the rover."""
    columns, rows = round((EAST - WEST) / COLUMN_M), round((NORTH - SOUTH) / ROW_M)
    cells = [[thing(column, row) for column in range(columns)] for row in range(rows)]
    arrow = ARROWS[round(body.heading / (math.pi / 4)) % len(ARROWS)]
    letters = [((x + n * COLUMN_M, y), name[n]) for name, (x, y) in places.items() for n in range(len(name))]
    for (x, y), mark in [*((at, "·") for at in path), *letters, ((body.x, body.y), arrow)]:
        row, column = math.floor((NORTH - y) / ROW_M + 1e-6), math.floor((x - WEST) / COLUMN_M + 1e-6)
        cells[min(max(row, 0), rows - 1)][min(max(column, 0), columns - 1)] = mark
    edge = "─" * columns
    return [f"┌{edge}┐", *(f"│{''.join(row)}│" for row in cells), f"└{edge}┘"]


def thing(column: int, row: int) -> str:
    """Return what stands in a cell of the map."""
    x, y = WEST + (column + 0.5) * COLUMN_M, NORTH - (row + 0.5) * ROW_M
    return "█" if any(box.west <= x <= box.east and box.south <= y <= box.north for box in ROOM) else " "
