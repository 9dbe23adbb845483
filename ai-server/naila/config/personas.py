"""Who answers: the personas in `config/personas/*.yaml`, read once, validated, frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from naila.config.patterns import REPLY_FIELDS, check_fields, check_replies, read_document
from naila.errors import ConfigurationError
from naila.fleet import ID_RULE

PERSONA_ID = re.compile(ID_RULE)
Line = Annotated[str, Field(pattern=r"^\S[^\n]*$", max_length=400)]


@dataclass(frozen=True, slots=True)
class Example:
    """A short exchange put before every conversation: small models copy its tone and length.

    Attributes:
        user: what is said.
        answer: what this persona would answer.
    """

    user: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """A voice.

    Attributes:
        id: its file's stem, which settings and requests name it by.
        name: what it calls itself.
        description: for people who choose one.
        system_prompt: the same for the whole fleet, always: the model reads it once.
        examples: follow the system prompt, likewise the same always.
        degraded: said when no model can be asked.
        interrupted: said when the model fails in the middle of an answer.
        guidance: by intent, a short hint for the model; facts it tells of are filled in.
        replies: by key, this persona's own words instead of those in the patterns file.
        stop_words: by language, words that stop a robot at once.
    """

    id: str
    name: str
    description: str
    system_prompt: str
    examples: tuple[Example, ...]
    degraded: str
    interrupted: str
    guidance: Mapping[str, str]
    replies: Mapping[str, tuple[str, ...]]
    stop_words: Mapping[str, tuple[str, ...]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Example(_Strict):
    user: Annotated[str, Field(min_length=1, max_length=400)]
    answer: Annotated[str, Field(min_length=1, max_length=400)]


class _Document(_Strict):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: Line
    system_prompt: Annotated[str, Field(min_length=1, max_length=8000)]
    examples: tuple[_Example, ...] = ()
    degraded: Line
    interrupted: Line
    guidance: dict[str, Line] = Field(default_factory=dict)
    replies: dict[str, Annotated[tuple[Line, ...], Field(min_length=1)]] = Field(default_factory=dict)
    stop_words: dict[str, tuple[str, ...]] = Field(default_factory=dict)


def load_personas(directory: Path) -> Mapping[str, Persona]:
    """Read every persona of a directory, by id.

    Raises:
        ConfigurationError: names the file, the place in it and what is wrong.
    """
    files = sorted(directory.glob("*.yaml"))
    if not files:
        raise ConfigurationError(f"{directory}: there is no persona (*.yaml) here")
    return {path.stem: _load(path) for path in files}


def choose_persona(personas: Mapping[str, Persona], persona_id: str) -> Persona:
    """Return the persona that the settings name.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if persona_id not in personas:
        raise ConfigurationError(f"PERSONA={persona_id!r}: not among {', '.join(sorted(personas))}")
    return personas[persona_id]


def _load(path: Path) -> Persona:
    if not PERSONA_ID.fullmatch(path.stem):
        raise ConfigurationError(f"{path}: a persona's file name has only letters, digits, '_' and '-'")
    document = read_document(path, _Document)
    check_replies(path, document.replies)
    for intent, hint in document.guidance.items():
        check_fields(f"{path}: guidance.{intent}", hint, REPLY_FIELDS.get(intent, frozenset()))
    return Persona(
        id=path.stem,
        name=document.name,
        description=document.description,
        system_prompt=document.system_prompt.strip(),
        examples=tuple(Example(example.user, example.answer) for example in document.examples),
        degraded=document.degraded,
        interrupted=document.interrupted,
        guidance=document.guidance,
        replies=document.replies,
        stop_words=document.stop_words,
    )
