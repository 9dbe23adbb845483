from __future__ import annotations

from pathlib import Path

import pytest

from naila.config.patterns import CLOCK_INTENTS, FOLLOW_UP, load_patterns
from naila.config.personas import Persona, load_personas
from naila.orchestration.patterns import Voice
from naila.orchestration.state import Understanding
from naila.ports import Fact, Recollection

CONFIG = Path(__file__).parents[2] / "config"
BOOK = load_patterns(CONFIG / "patterns.yaml")
PERSONAS = load_personas(CONFIG / "personas")
INTENTS = sorted({rule.intent for rule in BOOK.rules} - CLOCK_INTENTS - {FOLLOW_UP} | {"unknown", "of_a_device"})
NAILA = Voice(PERSONAS["naila"], BOOK)


def said(intent: str, *facts: Fact, request_id: str = "q1") -> str:
    understanding = Understanding(intent=intent, facts=facts)
    return NAILA.answer(understanding, Recollection(), request_id)


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=lambda persona: persona.id)
@pytest.mark.parametrize("intent", INTENTS)
def test_every_persona_answers_every_intent(persona: Persona, intent: str) -> None:
    text = Voice(persona, BOOK).answer(Understanding(intent=intent), Recollection(), "q1")
    assert text
    assert "{" not in text


def test_the_same_request_gets_the_same_words() -> None:
    assert said("joke") == said("joke")


def test_different_requests_get_different_words() -> None:
    assert len({said("joke", request_id=f"q{n}") for n in range(30)}) == len(BOOK.replies["joke"])


@pytest.mark.parametrize("number", range(20))
def test_what_was_said_last_is_not_said_again(number: int) -> None:
    last = NAILA.say("thanks", "q1")
    assert NAILA.say("thanks", f"q{number}", last=last) != last


def test_a_name_that_was_told_is_known() -> None:
    assert "Ada" in said("name_asked", Fact("name", "Ada"))
    assert "Ada" in said("name_given", Fact("name", "Ada"))


def test_a_name_that_was_not_told_is_not_made_up() -> None:
    assert said("name_asked") in BOOK.replies["name_asked"]


def test_braces_in_a_name_are_text() -> None:
    assert "{persona}" in said("name_given", Fact("name", "{persona}"))


def test_a_persona_speaks_in_its_own_words() -> None:
    assert Voice(PERSONAS["storyteller"], BOOK).say("how_are_you", "q") == "I'm as happy as a robot with new wheels!"


def test_it_is_said_once_that_there_is_no_model() -> None:
    once = NAILA.degraded("Hello.")
    assert once == f"Hello. {PERSONAS['naila'].degraded}"
    assert NAILA.degraded(once) == once
