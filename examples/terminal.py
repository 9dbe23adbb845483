"""What a simulated device shows: a live picture above a line to type in, or plain lines for a log."""

from __future__ import annotations

import sys
import time
from collections import deque

CLEAR = "\x1b[2J"
HOME = "\x1b[H"
CLEAR_LINE = "\x1b[K"
CLEAR_BELOW = "\x1b[J"
SAVE, RESTORE = "\x1b7", "\x1b8"
FRAME_S = 0.2
SHOWN_MESSAGES = 6


class Terminal:
    """Where a device shows itself. The picture stands at the top; below it somebody types.

    Args:
        title: the first line.
        plain: only print messages, one a line.
    """

    def __init__(self, title: str, *, plain: bool) -> None:
        self.plain = plain
        self._title = title
        self._messages: deque[str] = deque(maxlen=SHOWN_MESSAGES)
        self._drawn = 0.0
        self._rows = 0

    def say(self, who: str, text: str) -> None:
        """Show a message."""
        # Others wrote the text: what is no printable character could command the terminal.
        line = f"{who}: {''.join(c if c.isprintable() else ' ' for c in text)}"
        self._messages.append(line)
        if self.plain:
            print(line, flush=True)

    def is_due(self) -> bool:
        """Whether it is time for the next picture."""
        return not self.plain and time.monotonic() - self._drawn >= FRAME_S

    def show(self, picture: list[str]) -> None:
        """Draw the picture and the last messages."""
        self._drawn = time.monotonic()
        room = [""] * (SHOWN_MESSAGES - len(self._messages))
        lines = [f"── {self._title} ──", *picture, "", *self._messages, *room]
        frame = HOME + "".join(f"{line}{CLEAR_LINE}\r\n" for line in lines)
        if len(lines) == self._rows:
            sys.stdout.write(SAVE + frame + RESTORE)
        else:
            self._rows = len(lines)
            sys.stdout.write(CLEAR + frame + CLEAR_BELOW + "> ")
        sys.stdout.flush()

    def line_was_typed(self) -> None:
        """Make room for the next line."""
        self._rows = 0

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if not self.plain:
            print()
