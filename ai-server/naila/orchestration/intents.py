"""Understanding by rules: what is meant, who and what is named, whether it goes on from before.

All knowledge is data (`config/patterns.yaml`); nothing here costs more than a bounded look at a bounded text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from naila.config.patterns import FOLLOW_UP, UNKNOWN, IntentRule, Phrasebook
from naila.events import Intent, JsonValue
from naila.orchestration.clock import ClockQuestion, clock_question
from naila.orchestration.state import Understanding
from naila.ports import Fact, Recollection

MATCHED_CHARS: Final = 300
QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"', "`": "'"})
FACTS: Final = ("name", "likes", "dislikes")
SEVERAL: Final = ("likes", "dislikes")  # facts of which a person has more than one
MAX_KEPT: Final = 5
END_MARKS: Final = " .,!?;:…-"


def understand(request: Intent, phrasebook: Phrasebook) -> Understanding:
    """Return what a request means. The device's own intent and entities win."""
    text = clean(request.text, phrasebook)
    found = _named(text, phrasebook)
    entities: dict[str, JsonValue] = {**found, **request.entities}
    if request.intent is not None:
        question = clock_question(request.intent, entities, phrasebook.feasts)
        given = _told(request.intent, entities)
        is_clock = any(rule.clock and rule.intent == request.intent for rule in phrasebook.rules)
        return Understanding(
            intent=request.intent,
            entities=entities,
            facts=_facts({**found, **given}),
            clock=question if is_clock else None,
        )
    asks = "?" in request.text[-8:]
    return _recognise(text, entities, _facts(found), phrasebook, asks=asks)


def resolve(understanding: Understanding, recollection: Recollection, phrasebook: Phrasebook) -> Understanding:
    """Complete a follow-up from the turn before it, and facts from those already known."""
    facts = tuple(_joined(fact, recollection) for fact in understanding.facts)
    if not understanding.follow_up:
        return replace(understanding, facts=facts)
    before = recollection.turns[-1].intent if recollection.turns else None
    intent, clock = "question", None
    if any(rule.clock and rule.intent == before for rule in phrasebook.rules):
        intent, clock = _clock_again(before or "", understanding.entities, phrasebook)
    elif before in phrasebook.inherited:
        intent = before
    return replace(understanding, intent=intent, clock=clock, facts=facts)


def clean(text: str, phrasebook: Phrasebook) -> str:
    """Return the beginning of a text in the one spelling that patterns are written for."""
    # The bound is applied again after normalising, which can make text eighteen times longer.
    line = " ".join(unicodedata.normalize("NFKC", text[:MATCHED_CHARS])[:MATCHED_CHARS].translate(QUOTES).split())
    for pattern, spelling in phrasebook.rewrites:
        line = pattern.sub(spelling, line)
    return line.rstrip(END_MARKS)


def _recognise(
    text: str, entities: Mapping[str, JsonValue], facts: tuple[Fact, ...], phrasebook: Phrasebook, *, asks: bool
) -> Understanding:
    matter = _matter(text, phrasebook)
    whole = phrasebook.closers.sub("", text)
    for rule in phrasebook.rules:
        if rule.entity is not None:
            if rule.entity in entities:
                return Understanding(intent=rule.intent, entities=entities, facts=facts)
            continue
        match = _match(rule, (matter, text, whole))
        if match is None:
            continue
        named = {**_groups(match), **entities}
        question = clock_question(rule.intent, named, phrasebook.feasts) if rule.clock else None
        if not rule.clock or question is not None:
            follow_up = rule.intent == FOLLOW_UP
            return Understanding(intent=rule.intent, entities=named, facts=facts, follow_up=follow_up, clock=question)
    return Understanding(intent="question" if asks and text else UNKNOWN, entities=entities, facts=facts)


def _match(rule: IntentRule, forms: tuple[str, ...]) -> re.Match[str] | None:
    for form in dict.fromkeys(forms):
        for pattern in rule.patterns:
            match = pattern.search(form)
            if match is not None:
                return match
    return None


def _matter(text: str, phrasebook: Phrasebook) -> str:
    """Take off what is said before and after the matter, where a matter remains."""
    inner = phrasebook.closers.sub("", text).rstrip(END_MARKS)
    return phrasebook.openers.sub("", inner + " ").strip() or inner or text


def _named(text: str, phrasebook: Phrasebook) -> dict[str, str]:
    named: dict[str, str] = {}
    for entity, patterns in phrasebook.entities.items():
        match = next((match for pattern in patterns if (match := pattern.search(text)) is not None), None)
        if match is not None:
            value = match[entity].strip(END_MARKS)
            named[entity] = value[:1].upper() + value[1:] if entity == "name" and value.islower() else value
    return named


def _groups(match: re.Match[str]) -> dict[str, str]:
    return {name: value.strip(END_MARKS) for name, value in match.groupdict().items() if value}


def _told(intent: str, entities: Mapping[str, JsonValue]) -> dict[str, str]:
    """Return what the device itself says to keep: only where its intent says that somebody told it."""
    kinds = {"name_given": ("name",), "preference": SEVERAL}.get(intent, ())
    values = {kind: entities.get(kind) for kind in kinds}
    return {kind: value for kind, value in values.items() if isinstance(value, str) and value.strip()}


def _facts(named: Mapping[str, str]) -> tuple[Fact, ...]:
    return tuple(Fact(kind, " ".join(named[kind][:MATCHED_CHARS].split())) for kind in FACTS if kind in named)


def _joined(fact: Fact, recollection: Recollection) -> Fact:
    """Add to a fact of which there may be several; the newest last, the oldest forgotten."""
    if fact.key not in SEVERAL:
        return fact
    known = next((known.value for known in recollection.facts if known.key == fact.key), "")
    values = [value for value in known.split("; ") if value and value.casefold() != fact.value.casefold()]
    return Fact(fact.key, "; ".join([*values, fact.value][-MAX_KEPT:]))


def _clock_again(
    before: str, entities: Mapping[str, JsonValue], phrasebook: Phrasebook
) -> tuple[str, ClockQuestion | None]:
    """Return what "and tomorrow?" or "and in Tokyo?" asks after a question to the clock."""
    if "when" in entities:
        return "date", clock_question("date", entities, phrasebook.feasts)
    if "place" in entities:
        return before, clock_question(before, entities, phrasebook.feasts)
    return "question", None
