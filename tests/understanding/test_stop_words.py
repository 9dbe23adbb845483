"""What is nothing but "stop", in every language of the personas."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.config.personas import load_personas
from naila.understanding.stop_words import MAX_CHARS, StopWords

PERSONAS = load_personas(Path(__file__).parents[2] / "config" / "personas")
STOP = StopWords(word for persona in PERSONAS.values() for words in persona.stop_words.values() for word in words)


@pytest.mark.parametrize(
    "text",
    [
        "stop",
        "Stop!",
        "STOP",
        " stop. ",
        "stop stop",
        "stop, stop, STOP!!!",
        "stopstop",
        "stooooop",
        "STOPPPP!",
        "halt, please",
        "STOP NOW",
        "please stop",
        "stop it",
        "hey, stop right there!",
        "stop moving",
        "no no stop",
        "emergency stop",
        "emergency!",
        "freeze",
        "\uff53\uff54\uff4f\uff50",
        "Stopp!",
        "halt, bitte sofort aufhören",
        "bitte anhalten",
        "arrête",
        "ARRETE !",
        "arre\u0302te",
        "arrête tout de suite s'il te plaît",
        "¡para!",
        "¡Alto ahora, por favor!",
        "detente ya",
        "stop, there's a child",
        "careful, stop",
        "watch out stop",
        "I said stop",
        "stop the wheels",
        "for heaven's sake stop",
        "sssstop",
        "ok, that's enough, stop",
        "stop stop you idiot",
        "Oh, do stop that!",
        "break break stop stop",
    ],
)
def test_this_says_stop(text: str) -> None:
    assert STOP.matches(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "please",
        "now",
        "!!!",
        "don't stop",
        "stop at the door",
        "stop the music",
        "drive and then stop",
        "don't stop, keep going",
        "why did you stop",
        "where is the bus stop?",
        "I can't stop laughing",
        "stop by the kitchen",
        "you never stop talking",
        "what is a stop sign?",
        "unstoppable",
        "stopwatch",
        "top",
        "sto",
        "para ti",
        "a halting problem",
        "go",
        "stop " * 40,
    ],
)
def test_this_is_for_the_understanding_that_comes_after(text: str) -> None:
    assert not STOP.matches(text)


def test_phrases_and_other_scripts() -> None:
    words = StopWords(["停", "arrête-toi", "all stop", "रुको"])
    assert words.matches("停停停!")
    assert words.matches("Arrête toi, maintenant")
    assert words.matches("ALL STOP")
    assert words.matches("रुको")
    assert not words.matches("stop")
    assert not words.matches("all")


def test_no_words_stop_nothing() -> None:
    assert not StopWords([]).matches("stop")
    assert not StopWords(["", "!"]).matches("!")


@given(st.text(max_size=MAX_CHARS + 20))
def test_every_text_has_an_answer(text: str) -> None:
    assert STOP.matches(text) in (True, False)


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\ufdfa" * MAX_CHARS, "stop " * 12 + "x", "s" * MAX_CHARS])
def test_the_answer_takes_no_time(text: str) -> None:
    took = []
    for _ in range(20):
        began = time.perf_counter()
        STOP.matches(text)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.001
