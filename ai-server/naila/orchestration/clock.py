"""Questions that the clock answers: time and date, here and elsewhere. The model is never asked these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo, available_timezones

from naila.config.patterns import fold
from naila.config.prompts import MONTHS, WEEKDAYS, date_words, one_line

Asked = Literal["time", "date", "week", "month", "year", "until"]

MAX_OFFSET_DAYS: Final = 3660
PLACE_MAX_CHARS: Final = 60
WORDS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMBERS: Final = {"a": 1, "an": 1, **{word: number for number, word in enumerate(WORDS, 1)}}
FIXED_OFFSETS: Final = {
    "today": 0,
    "tomorrow": 1,
    "yesterday": -1,
    "the day after tomorrow": 2,
    "the day before yesterday": -2,
}
LEADS: Final = {
    0: "Today is",
    1: "Tomorrow is",
    -1: "Yesterday was",
    2: "The day after tomorrow is",
    -2: "The day before yesterday was",
}
OFFSET = re.compile(r"(?:in )?(?P<n>\w+) (?P<unit>day|week)s?(?P<ago> ago)?(?: from (?:now|today))?")
MONTH_NUMBERS: Final = {name.casefold(): number for number, name in enumerate(MONTHS, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockQuestion:
    """What is asked of the clock.

    Attributes:
        asked: which figure.
        offset_days: counted from today.
        place: whose time, as it was said; None is here.
        until: month and day that are waited for.
        until_name: the same, as it was said.
    """

    asked: Asked
    offset_days: int = 0
    place: str | None = None
    until: tuple[int, int] | None = None
    until_name: str = ""


@dataclass(frozen=True, slots=True)
class ClockAnswer:
    """Which reply fits, and what is filled into it."""

    key: str
    fields: Mapping[str, str]


class WorldClock:
    """Time zones by the names that people give to places."""

    def __init__(self, places: Mapping[str, str | None]) -> None:
        zones = {fold(zone.rsplit("/", 1)[-1].replace("_", " ")): zone for zone in sorted(available_timezones())}
        for abbreviation in [name for name, zone in zones.items() if "/" not in zone and len(name) < 4]:
            del zones[abbreviation]
        self._zones: dict[str, str | None] = {**zones, **places}

    def zone(self, place: str) -> ZoneInfo | None:
        """Return the time zone of a place, or None if it isn't known."""
        name = fold(place).strip(" .,")
        for candidate in (name, name.removeprefix("the "), name.split(",", 1)[0]):
            zone = self._zones.get(candidate)
            if zone is not None:
                return ZoneInfo(zone)
        return None


def clock_question(
    intent: str, entities: Mapping[str, object], feasts: Mapping[str, tuple[int, int]]
) -> ClockQuestion | None:
    """Return what is asked of the clock, or None where the clock can't tell."""
    place = _text(entities, "place")
    if intent == "time":
        return ClockQuestion(asked="time", place=place)
    if until_name := _text(entities, "until"):
        until = _month_day(until_name, feasts)
        return ClockQuestion(asked="until", until=until, until_name=until_name) if until else None
    offset = _offset(_text(entities, "when") or "today")
    if offset is None:
        return None
    return ClockQuestion(asked=_asked(_text(entities, "unit") or "date"), offset_days=offset, place=place)


def answer(question: ClockQuestion, now: datetime, world: WorldClock) -> ClockAnswer:
    """Answer from the clock."""
    if question.place is not None:
        zone = world.zone(question.place)
        if zone is None:
            return ClockAnswer("clock_unknown_place", {"place": _shown(question.place)})
        now = now.astimezone(zone)
    if question.until is not None:
        return _until(question, now, question.until)
    day = now + timedelta(days=question.offset_days)
    fields = {
        "time": f"{now:%H:%M}",
        "lead": _lead(question.offset_days),
        "weekday": WEEKDAYS[day.weekday()],
        "date": date_words(day),
        "week": str(day.isocalendar().week),
        "week_year": str(day.isocalendar().year),
        "month": MONTHS[day.month - 1],
        "year": str(day.year),
        "place": _shown(question.place or ""),
    }
    elsewhere = question.place is not None and question.asked in {"time", "date"} and question.offset_days == 0
    return ClockAnswer(f"clock_{question.asked}_in" if elsewhere else f"clock_{question.asked}", fields)


def _until(question: ClockQuestion, now: datetime, until: tuple[int, int]) -> ClockAnswer:
    day = _next(now, until)
    left = (day.date() - now.date()).days
    name = question.until_name
    fields = {
        "days": "1 day" if left == 1 else f"{left} days",
        "day": name[:1].upper() + name[1:] if name.isascii() and not name[:1].isdigit() else name,
        "weekday": WEEKDAYS[day.weekday()],
        "date": date_words(day),
    }
    return ClockAnswer("clock_until" if left else "clock_until_today", fields)


def _next(now: datetime, month_day: tuple[int, int]) -> datetime:
    """Return the next day with this month and day, today included; 29 February waits for a leap year."""
    for year in range(now.year, now.year + 9):
        try:
            day = now.replace(year=year, month=month_day[0], day=month_day[1])
        except ValueError:
            continue
        if day.date() >= now.date():
            return day
    raise AssertionError(month_day)


def _month_day(said: str, feasts: Mapping[str, tuple[int, int]]) -> tuple[int, int] | None:
    name = fold(said)
    if name in feasts:
        return feasts[name]
    month = next((number for word, number in MONTH_NUMBERS.items() if word in name), 0)
    digits = re.search(r"\d{1,2}", name)
    day = int(digits[0]) if digits else 0
    try:
        datetime(2024, month, day)  # noqa: DTZ001 - only asks whether a leap year has such a day
    except ValueError:
        return None
    return month, day


def _offset(said: str) -> int | None:
    phrase = fold(said)
    if phrase in FIXED_OFFSETS:
        return FIXED_OFFSETS[phrase]
    found = OFFSET.fullmatch(phrase)
    if found is None:
        return None
    number = NUMBERS.get(found["n"]) or (int(found["n"]) if found["n"].isdecimal() and len(found["n"]) <= 4 else None)
    if number is None:
        return None
    days = number * (7 if found["unit"] == "week" else 1) * (-1 if found["ago"] else 1)
    return days if abs(days) <= MAX_OFFSET_DAYS else None


def _asked(unit: str) -> Asked:
    word = fold(unit)
    if word in {"month", "year"}:
        return "month" if word == "month" else "year"
    if word.startswith(("day", "date", "weekday", "week day")):
        return "date"
    return "week"


def _lead(offset: int) -> str:
    if offset in LEADS:
        return LEADS[offset]
    return f"In {offset} days it will be" if offset > 0 else f"{-offset} days ago it was"


def _shown(place: str) -> str:
    shown = one_line(place, PLACE_MAX_CHARS)
    return shown.title() if shown.islower() else shown


def _text(entities: Mapping[str, object], name: str) -> str | None:
    value = entities.get(name)
    return value if isinstance(value, str) and value.strip() else None
