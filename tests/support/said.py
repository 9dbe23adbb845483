"""Things to say to a brain in tests, and what they are good for."""

from __future__ import annotations

import secrets
from typing import Any

from naila.events import Intent

CLOCK = "What time is it?"
GREETING = "Hello, who are you?"
# Long enough that much can happen while it is answered; warm, so that the answer does not run into a loop.
STORY = "Tell me a long story about a robot that crosses the sea, with all that happens on the way."


def ask_of(device_id: str, text: str, **fields: Any) -> Intent:
    """Return a request with an id of its own."""
    return Intent(device_id=device_id, **{"id": secrets.token_hex(6), "text": text, **fields})


def story(device_id: str, **fields: Any) -> Intent:
    """Return a request whose answer takes seconds, streamed."""
    return ask_of(device_id, STORY, **{"stream": True, "temperature": 1.0, **fields})
