from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.config.patterns import load_patterns
from naila.config.personas import load_personas
from naila.orchestration.clock import WorldClock, answer, clock_question
from naila.orchestration.intents import understand
from naila.orchestration.patterns import Voice
from support.fakes import NOON, an_intent

CONFIG = Path(__file__).parents[2] / "config"
BOOK = load_patterns(CONFIG / "patterns.yaml")
VOICE = Voice(load_personas(CONFIG / "personas")["naila"], BOOK)
WORLD = WorldClock(BOOK.places)


def told(text: str, now: datetime = NOON) -> str:
    question = understand(an_intent(text), BOOK).clock
    assert question is not None, text
    said = answer(question, now, WORLD)
    return VOICE.say(said.key, "q1", said.fields)


@pytest.mark.parametrize(
    ("text", "answer_text"),
    [
        ("What time is it?", "It's 12:34."),
        ("what's the time in Tokyo", "In Tokyo it's 21:34, Friday."),
        ("What time is it in New York?", "In New York it's 07:34, Friday."),
        ("what time is it in san francisco", "In San Francisco it's 04:34, Friday."),
        ("What time is it in Beijing right now?", "In Beijing it's 20:34, Friday."),
        ("What time is it in Mumbai", "In Mumbai it's 18:04, Friday."),
        ("what is the time in Washington?", "In Washington it's 07:34, Friday."),
        ("What time is it in Paris, France?", "In Paris, France it's 13:34, Friday."),
        ("what time is it in Buenos Aires", "In Buenos Aires it's 09:34, Friday."),
        ("What time is it in the Netherlands?", "In the Netherlands it's 13:34, Friday."),
        ("What's the date?", "Today is Friday, 20 November 2026."),
        ("What day is it?", "Today is Friday, 20 November 2026."),
        ("what day is it tomorrow?", "Tomorrow is Saturday, 21 November 2026."),
        ("What day was yesterday?", "Yesterday was Thursday, 19 November 2026."),
        ("what date is it in 3 days", "In 3 days it will be Monday, 23 November 2026."),
        ("what day will it be in two weeks?", "In 14 days it will be Friday, 4 December 2026."),
        ("What was the date 10 days ago?", "10 days ago it was Tuesday, 10 November 2026."),
        ("What is the date the day after tomorrow?", "The day after tomorrow is Sunday, 22 November 2026."),
        ("What week is it?", "Today is in week 47 of 2026."),
        ("What month is it?", "It's November 2026."),
        ("which year are we in?", "It's 2026."),
        ("What's the date in Tokyo?", "In Tokyo it's Friday, 20 November 2026."),
        ("How many days until Christmas?", "35 days until Christmas: it's on Friday, 25 December 2026."),
        ("how many days until 24 December?", "34 days until 24 December: it's on Thursday, 24 December 2026."),
        ("how long is it until December 24th", "34 days until December 24th: it's on Thursday, 24 December 2026."),
        ("When is Christmas?", "35 days until Christmas: it's on Friday, 25 December 2026."),
        ("how many days till November 21?", "1 day until November 21: it's on Saturday, 21 November 2026."),
        ("How many days until 20 November?", "That's today: Friday, 20 November 2026."),
        ("How many days until 29 February?", "466 days until 29 February: it's on Tuesday, 29 February 2028."),
    ],
)
def test_the_clock_answers(text: str, answer_text: str) -> None:
    assert told(text) == answer_text


@pytest.mark.parametrize("place", ["Atlantis", "Hogwarts", "my head", "America"])
def test_an_unknown_place_is_said_to_be_unknown(place: str) -> None:
    question = clock_question("time", {"place": place}, BOOK.feasts)
    assert question is not None
    assert answer(question, NOON, WORLD).key == "clock_unknown_place"


def test_the_date_elsewhere_may_be_another() -> None:
    assert "Saturday, 21 November" in told("What day is it in Tokyo?", NOON + timedelta(hours=4))


def test_daylight_saving_time_counts() -> None:
    assert told("What time is it in London?", datetime(2026, 7, 1, 12, 0, tzinfo=UTC)).startswith(
        "In London it's 13:00"
    )


@pytest.mark.parametrize("until", ["31 February", "0 March", "99 May"])
def test_a_day_that_does_not_exist_is_not_for_the_clock(until: str) -> None:
    assert clock_question("date", {"until": until}, BOOK.feasts) is None


@pytest.mark.parametrize("when", ["in 9999 days", "some day", "in ten thousand days"])
def test_a_day_out_of_reach_is_not_for_the_clock(when: str) -> None:
    assert clock_question("date", {"when": when}, BOOK.feasts) is None


@given(st.dictionaries(st.sampled_from(["place", "when", "unit", "until"]), st.text() | st.integers() | st.none()))
def test_whatever_a_device_names_is_answered_or_left_alone(entities: dict[str, object]) -> None:
    for intent in ("time", "date"):
        question = clock_question(intent, entities, BOOK.feasts)
        if question is not None:
            said = answer(question, NOON, WORLD)
            assert VOICE.say(said.key, "q1", said.fields)
