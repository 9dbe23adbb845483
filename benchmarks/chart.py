"""Bars as SVG, drawn by hand: a page of text that any browser shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
LABEL = 170
BAR = 22
STEP = 30
COLOURS = ("#2166ac", "#b2182b", "#999999", "#4d9221")


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars of one kind.

    Attributes:
        title: what they show, with the unit.
        bars: name and value, one for each party; the same name has the same colour in all panels.
        digits: behind the point.
    """

    title: str
    bars: Sequence[tuple[str, float]]
    digits: int = 0


def draw(title: str, panels: Sequence[Panel], footer: str) -> str:
    """Return the drawing."""
    names = list(dict.fromkeys(name for panel in panels for name, _ in panel.bars))
    parts = [_text(16, 30, title, size=17, weight="bold")]
    y = 58
    for panel in panels:
        parts.append(_text(16, y, panel.title, size=13, weight="bold"))
        y += 10
        largest = max((value for _, value in panel.bars), default=0.0) or 1.0
        for name, value in panel.bars:
            width = max(1.0, (WIDTH - LABEL - 100) * value / largest)
            colour = COLOURS[names.index(name) % len(COLOURS)]
            parts += [
                _text(LABEL - 10, y + 16, name, anchor="end"),
                f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
                _text(LABEL + width + 8, y + 16, f"{value:,.{panel.digits}f}"),
            ]
            y += STEP
        y += 24
    parts.append(_text(16, y, footer, size=11))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 16}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _text(x: float, y: float, text: str, *, size: int = 12, weight: str = "normal", anchor: str = "start") -> str:
    attributes = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
    return f"<text {attributes}>{escape(text)}</text>"
