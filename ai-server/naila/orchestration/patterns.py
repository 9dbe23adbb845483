"""Replies without a model, in the persona's voice."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from naila.config.patterns import UNKNOWN, Phrasebook
from naila.config.personas import Persona
from naila.config.prompts import listed
from naila.orchestration.state import Understanding
from naila.ports import Recollection

ASKED_FACTS: Final = {"name_asked": "name", "likes_asked": "likes"}


@dataclass(frozen=True, slots=True)
class Voice:
    """What a persona says by itself."""

    persona: Persona
    phrasebook: Phrasebook

    def say(self, key: str, request_id: str, fields: Mapping[str, str] | None = None, *, last: str = "") -> str:
        """Return one of the replies for a key: always the same for the same request, and not what was said last."""
        texts = self.persona.replies.get(key) or self.phrasebook.replies.get(key) or self.phrasebook.replies[UNKNOWN]
        filled = [text.format_map({**(fields or {}), "persona": self.persona.name}) for text in texts]
        fresh = [text for text in filled if text not in last] or filled
        return fresh[zlib.crc32(request_id.encode()) % len(fresh)]

    def answer(self, understanding: Understanding, recollection: Recollection, request_id: str) -> str:
        """Answer an intent as well as can be without a model."""
        facts = _known(understanding, recollection)
        key = understanding.intent
        if asks_what_is_known(understanding, recollection):
            key = f"{ASKED_FACTS[key]}_known"
        elif key == "name_given" and "name" not in facts:
            key = "greeting"
        last = recollection.turns[-1].reply_text if recollection.turns else ""
        return self.say(key, request_id, facts, last=last)

    def degraded(self, text: str) -> str:
        """Add, once, that no model can be asked."""
        return text if self.persona.degraded in text else f"{text} {self.persona.degraded}"


def asks_what_is_known(understanding: Understanding, recollection: Recollection) -> bool:
    """Whether somebody asks for a fact about themselves that they have told."""
    return ASKED_FACTS.get(understanding.intent) in _known(understanding, recollection)


def _known(understanding: Understanding, recollection: Recollection) -> dict[str, str]:
    return {fact.key: listed(fact.value) for fact in (*recollection.facts, *understanding.facts)}
