"""How a prompt is worded: what the model is told beside what people say.

A user message is the person's words, preceded where needed by one line in parentheses, the note. The first line in
parentheses is always ours: words that themselves begin so get a note before them, and are left as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from naila.events import JsonValue
from naila.fleet import is_name
from naila.ports import Fact

READINGS_MAX_CHARS: Final = 300
READING_MAX_CHARS: Final = 100
FACT_MAX_CHARS: Final = 100
EMPTY_NOTE: Final = "(They say:)"
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)

# In the first person, as if the speaker said them: the model then answers "your name is …".
FACT_SENTENCES: Final = {"name": "My name is {}.", "likes": "I like {}.", "dislikes": "I don't like {}."}


def user_message(note: str, text: str) -> str:
    """Return what the model reads for one thing that a person said."""
    return f"{note}\n{text}" if note else text


def note_of(sentences: Sequence[str], text: str) -> str:
    """Return the note of a message: one line, or nothing where nothing needs to be told."""
    if sentences:
        return f"({' '.join(sentences)})"
    return EMPTY_NOTE if text.lstrip().startswith("(") else ""


def fact_sentence(fact: Fact) -> str:
    """Return a fact about the speaker as a sentence of theirs."""
    value = listed(fact.value)
    sentence = FACT_SENTENCES.get(fact.key)
    return sentence.format(value) if sentence else f"My {one_line(fact.key, 64)}: {value}."


def listed(value: str) -> str:
    """Return a fact's value as it is said; several are kept with semicolons between them."""
    first, _, last = one_line(value, FACT_MAX_CHARS).replace("; ", ", ").rpartition(", ")
    return f"{first} and {last}" if first and ";" in value else one_line(value, FACT_MAX_CHARS)


def readings_sentence(context: Mapping[str, JsonValue]) -> str | None:
    """Return the readings of the moment on one line, as many as there is room for; no sentences: they are none."""
    shown: list[str] = []
    room = READINGS_MAX_CHARS
    for key, value in context.items():
        text = value if isinstance(value, str) else ""
        if not (is_name(key) and is_name(text)):
            continue
        reading = f"{one_line(key, 64)}={one_line(json.dumps(value, ensure_ascii=False), READING_MAX_CHARS)}"
        room -= len(reading) + 2
        if room < 0:
            break
        shown.append(reading)
    return ", ".join(shown) + "." if shown else None


def now_sentence(now: datetime) -> str:
    """Return the date and time as a sentence."""
    return f"It is {WEEKDAYS[now.weekday()]}, {date_words(now)}, {now:%H:%M}."


def date_words(day: datetime) -> str:
    """Return a date in words."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def one_line(text: str, limit: int) -> str:
    """Return text on one line of bounded length."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
