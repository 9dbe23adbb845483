"""Latency over time as SVG, with the faults marked: a page of text that any browser shows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, log10

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 960, 360, 64, 44, 40
COLOURS = ("#b2182b", "#4d9221", "#e08214", "#762a83", "#999999")
MOST_DOTS = 5000


def draw(title: str, dots: Sequence[tuple[float, float]], faults: Sequence[tuple[float, str]]) -> str:
    """Return the drawing.

    Args:
        title: what it is of.
        dots: for each answer, when it was asked for in seconds, and how long it took in milliseconds.
        faults: when, in seconds, and what.
    """
    end = max([at for at, _ in dots] + [at for at, _ in faults] + [1.0])
    decades = max(2, ceil(log10(max([took for _, took in dots] + [10.0]))))
    kinds = list(dict.fromkeys(kind for _, kind in faults))
    parts = [_text(16, 24, f"{title}: milliseconds to the first reply, over seconds", size=15)]
    for decade in range(decades + 1):
        y = _y(10.0**decade, decades)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 16}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{10**decade:,}", anchor="end"))
    for at, kind in faults:
        x, colour = _x(at, end), COLOURS[kinds.index(kind) % len(COLOURS)]
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{colour}"/>')
    for at, took in dots[:: max(1, ceil(len(dots) / MOST_DOTS))]:
        x, y = _x(at, end), _y(took, decades)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="#2166ac" fill-opacity="0.6"/>')
    below = HEIGHT - BOTTOM + 16
    parts += [_text(_x(at, end), below, f"{at:,.0f}", anchor="middle") for at in (end * n / 4 for n in range(5))]
    parts += [
        _text(LEFT + 170 * number, HEIGHT - 6, f"| {kind}", colour=COLOURS[number % len(COLOURS)])
        for number, kind in enumerate(kinds)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _x(seconds: float, end: float) -> float:
    return LEFT + (WIDTH - 16 - LEFT) * seconds / end


def _y(milliseconds: float, decades: int) -> float:
    share = log10(max(1.0, milliseconds)) / decades
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share


def _text(x: float, y: float, text: str, *, size: int = 11, anchor: str = "start", colour: str = "#222222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
    )
