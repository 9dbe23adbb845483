from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naila.config.patterns import load_patterns
from naila.orchestration.intents import MATCHED_CHARS, clean, resolve, understand
from naila.orchestration.state import Understanding
from naila.ports import Fact, Recollection, Turn
from support.fakes import an_intent

BOOK = load_patterns(Path(__file__).parents[2] / "config" / "patterns.yaml")

UTTERANCES = """
greeting: Hello | hi | Hey there! | Good morning, Naila | hello robot | HELLO!!! | Hi, hello | nice to meet you
farewell: bye | Good night | See you later! | thanks, bye | I have to go | Goodbye for now
thanks: Thank you | thanks a lot! | thx | Thanks for your help | Great, thanks!
affirm: yes | Yeah, sure | OK | Yes please | of course | that's right
deny: no | Nope | No, thanks | not now | that's wrong | never mind
time: What time is it? | what's the time | time | Hey Naila, can you tell me what time it is in Tokyo please?
time: do you know what time it is | What time is it now | Do you have the time? | what time is it in New York?
date: What day is it? | what's the date today | What is today's date? | which day is tomorrow | What was yesterday?
date: What year is it? | how many days until Christmas? | what day is it in 3 days | what's tomorrow's date | date
name_asked: What's my name? | who am I? | do you remember my name | Do you know who I am? | what am I called
likes_asked: What do I like? | what is my favourite colour? | Do you remember what I like?
identity: Who are you? | Hello, who are you? | what's your name | Are you a robot? | where are you from | are you human?
capabilities: What can you do? | what are you good at | How can you help me? | What can I ask you?
how_are_you: How are you? | Hi, how are you doing today? | what's up | how's it going? | are you ok?
help: help | Can you help me? | I need help | how does this work?
joke: Tell me a joke | Do you know any jokes? | tell me another joke about robots | make me laugh | a joke please
name_given: My name is Ada. | I'm Ada | Hi, I am Ada Lovelace | call me Ada | my name's ada, what's yours?
name_given: Hello, my name is Ada and I like tea
preference: I like gardening | I love chess! | I really hate spiders | I prefer tea | I don't like rain
command: turn left | Move forward one meter | can you dance? | please stop | go to the kitchen | switch on the light
command: pick up the ball | turn on the lamp | follow me | could you please wave
question: What time is dinner? | do you like dates? | what time does the shop close? | why is the sky blue?
question: how many days until my birthday? | what date did the war end? | tell me about the moon | write me a poem
question: is it going to rain today? | start a story about a dragon | what time is it on the moon base | 2 plus 2?
question: how many days are in a leap year | what is the date palm good for | can you swim? | what day suits you
small_talk: I'm tired | time flies | it is raining | nice weather today | I had a long day | my dog is sick
follow_up: and tomorrow? | what about in Tokyo? | Why? | tell me more | and in London | go on | how about Berlin?
follow_up: really? | another one | what do you mean? | why not
unknown: asdf qwer | 🤖 | ??? | xyzzy plugh | 🙂🙂
"""
TABLE = [
    (text.strip(), line.split(":", 1)[0])
    for line in UTTERANCES.strip().splitlines()
    for text in line.split(":", 1)[1].split("|")
]


def intent_of(text: str) -> str:
    return understand(an_intent(text), BOOK).intent


def entities_of(text: str) -> dict[str, object]:
    return dict(understand(an_intent(text), BOOK).entities)


def facts_of(text: str) -> dict[str, str]:
    return {fact.key: fact.value for fact in understand(an_intent(text), BOOK).facts}


def after(intent: str, text: str, *facts: Fact) -> Understanding:
    turn = Turn(
        device_id="r2",
        conversation_id="default",
        request_id="q0",
        user_id=None,
        user_text="before",
        note="",
        reply_text="said",
        intent=intent,
        source="llm",
        said_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return resolve(understand(an_intent(text), BOOK), Recollection((turn,), facts), BOOK)


@pytest.mark.parametrize(("text", "intent"), TABLE)
def test_an_utterance_is_understood(text: str, intent: str) -> None:
    assert intent_of(text) == intent


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 80


@pytest.mark.parametrize(
    "text", ["what\u2019s   the TIME", "whats the time?", "What is the time?!", "\tWhat's the time"]
)
def test_spelling_does_not_matter(text: str) -> None:
    assert intent_of(text) == "time"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("My name is Ada.", {"name": "Ada"}),
        ("my name is ada lovelace", {"name": "Ada"}),
        ("My name is Ada Lovelace, nice to meet you", {"name": "Ada Lovelace"}),
        ("I'm Ada", {"name": "Ada"}),
        ("No, my name is Bob", {"name": "Bob"}),
        ("Please call me O'Brien", {"name": "O'Brien"}),
        ("My name is Ada and I like tea and music.", {"name": "Ada", "likes": "tea and music"}),
        ("I love gardening but I hate slugs", {"likes": "gardening", "dislikes": "slugs"}),
        ("My favourite colour is blue.", {"likes": "blue"}),
        ("J'adore", {}),
        ("I'm tired", {}),
        ("I'm Sorry", {}),
        ("My name is not Bob", {}),
        ("call me later", {}),
        ("call me a taxi", {}),
        ("I like it", {}),
        ("I would like a coffee", {}),
        ("Do you think I like tea?", {}),
        ("What if my name is Bob?", {}),
        ("He said he likes tea", {}),
    ],
)
def test_facts_are_learned_from_what_is_said(text: str, facts: dict[str, str]) -> None:
    assert facts_of(text) == facts


def test_a_place_and_a_day_are_named() -> None:
    assert entities_of("What time is it in São Paulo?") == {"place": "São Paulo"}
    assert entities_of("what day is it in 3 days")["when"] == "in 3 days"


def test_the_device_knows_better() -> None:
    understanding = understand(an_intent("blah", intent="time", entities={"place": "Tokyo"}), BOOK)
    assert understanding.intent == "time"
    assert understanding.clock is not None
    assert understanding.clock.place == "Tokyo"


def test_an_intent_of_the_devices_own_is_kept() -> None:
    assert understand(an_intent("hello", intent="lab/calibrate"), BOOK).intent == "lab/calibrate"


def test_a_name_that_the_device_heard_is_a_fact_only_if_it_was_given() -> None:
    given_name = understand(an_intent("x", intent="name_given", entities={"name": "Ada"}), BOOK)
    other = understand(an_intent("x", intent="call", entities={"name": "Ada"}), BOOK)
    assert (given_name.facts, other.facts) == ((Fact("name", "Ada"),), ())


@pytest.mark.parametrize(
    ("before", "text", "intent"),
    [
        ("date", "and tomorrow?", "date"),
        ("time", "and tomorrow?", "date"),
        ("time", "what about in Tokyo?", "time"),
        ("time", "and Berlin?", "time"),
        ("date", "and in Tokyo?", "date"),
        ("time", "why?", "question"),
        ("question", "and tomorrow?", "question"),
        ("joke", "another one", "joke"),
        ("question", "tell me more", "question"),
        ("greeting", "why?", "question"),
    ],
)
def test_a_follow_up_goes_on_from_the_turn_before(before: str, text: str, intent: str) -> None:
    understanding = after(before, text)
    assert understanding.intent == intent
    assert (understanding.clock is not None) == (intent in {"time", "date"})


def test_a_follow_up_of_nothing_is_a_question() -> None:
    assert resolve(understand(an_intent("and tomorrow?"), BOOK), Recollection(), BOOK).intent == "question"


def test_what_somebody_likes_adds_up() -> None:
    understanding = after("greeting", "I like chess", Fact("likes", "tea; Chess; rain"))
    assert understanding.facts == (Fact("likes", "tea; rain; chess"),)


def test_a_new_name_replaces_the_old_one() -> None:
    assert after("greeting", "My name is Bob", Fact("name", "Ada")).facts == (Fact("name", "Bob"),)


@given(st.text(max_size=400))
def test_no_text_is_too_strange(text: str) -> None:
    assert resolve(understand(an_intent(text), BOOK), Recollection(), BOOK).intent


@given(st.text())
def test_what_is_matched_is_bounded(text: str) -> None:
    # A rewrite may make a word longer, by a letter or two.
    assert len(clean(text * 50, BOOK)) <= 2 * MATCHED_CHARS


HOSTILE = [
    "a",
    " ",
    "'",
    "!?",
    "I'm ",
    "what time is it in A",
    "no, my name is A ",
    "\u0130",
    "A'",
    "\ufdfa",
    "and what about ",
]
WORDS = sorted({word for rule in BOOK.rules for p in rule.patterns for word in re.findall(r"[a-z]{2,}", p.pattern)})


def assert_fast(bit: str) -> None:
    text = (bit * 65_536)[:65_536]
    started = time.perf_counter()
    for hostile in (text, text + "?", "what time is it in " + text, "i like " + text, "my name is " + text):
        understand(an_intent(hostile), BOOK)
    assert time.perf_counter() - started < 0.25


@pytest.mark.parametrize("bit", HOSTILE)
def test_a_hostile_text_is_understood_fast(bit: str) -> None:
    assert_fast(bit)


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), st.sampled_from([" ", ", ", ". ", ""]))
def test_the_patterns_own_words_make_no_hostile_text(words: list[str], between: str) -> None:
    assert_fast(between.join([*words, ""]))
