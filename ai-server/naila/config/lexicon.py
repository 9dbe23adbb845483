"""The language of commands, from `config/lexicon.yaml`: read once, validated, frozen. It knows no device."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from naila.config.patterns import read_document

LEXICON_FILE: Final = Path("config") / "lexicon.yaml"


def _regular(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as exc:
        raise ValueError(f"{pattern!r} is not a regular expression: {exc}") from exc
    return pattern


Pattern = Annotated[str, AfterValidator(_regular)]
Share = Annotated[float, Field(ge=0, le=1)]
Sign = Annotated[int, Field(ge=-1, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StopWording(_Strict):
    """How people say that somebody is to stop.

    Attributes:
        verbs: phrases that say it.
        with_: words that may stand beside them.
        warnings: outcries that may stand before them.
    """

    verbs: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    with_: frozenset[str] = Field(alias="with")


class AddressWording(_Strict):
    """How people call whom they speak to, beside names.

    Attributes:
        nouns: what they call them.
        adjectives: what may stand before that.
    """

    nouns: frozenset[str]
    adjectives: frozenset[str]


class StateWording(_Strict):
    """How people ask about devices.

    Attributes:
        ask: how such a question begins.
        plain: words that ask nothing in particular.
        adjectives: what is asked about by word: the quantity.
        trends: words of change.
        capabilities: questions about all that somebody can do.
        capability_words: of which other such questions are made.
        presence: words for being there.
        those: of whom it is asked who is there.
        presence_words: of which such questions are made.
        presence_questions: questions about who is there.
        places: questions about where somebody is.
        activity: questions about what somebody is doing.
        doing: words of being at work.
        degrees: adjectives of any quantity.
        positions: telemetry that says where somebody is.
    """

    ask: tuple[str, ...]
    plain: frozenset[str]
    adjectives: dict[str, str]
    trends: tuple[str, ...]
    capabilities: tuple[str, ...]
    capability_words: frozenset[str]
    presence: tuple[str, ...]
    those: frozenset[str]
    presence_words: frozenset[str]
    presence_questions: tuple[str, ...]
    places: tuple[str, ...]
    activity: tuple[str, ...]
    doing: tuple[str, ...]
    degrees: frozenset[str]
    positions: frozenset[str]


class Lexicon(_Strict):
    """Everything in `config/lexicon.yaml`, which explains its lists where they stand."""

    rewrites: tuple[tuple[Pattern, str], ...]
    fillers: tuple[str, ...]
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    requests: tuple[str, ...]
    gerund_requests: tuple[str, ...]
    infinitive_requests: tuple[str, ...]
    wishes: tuple[str, ...]
    delegations: tuple[str, ...]
    delegated: tuple[str, ...]
    function: tuple[str, ...]
    hedges: tuple[str, ...]
    particles: tuple[str, ...]
    manners: tuple[str, ...]
    carriers: frozenset[str]
    setters: frozenset[str]
    going_on: frozenset[str]
    generic: frozenset[str]
    scales: frozenset[str]
    interjections: tuple[str, ...]
    unspecific: frozenset[str]
    talk: frozenset[str]
    everyday: tuple[str, ...]
    again: tuple[str, ...]
    withdrawals: tuple[str, ...]
    answer_openers: tuple[str, ...]
    ordinals: dict[str, int]
    everyone: tuple[str, ...]
    quantifiers: tuple[str, ...]
    anyone: frozenset[str]
    pronouns: tuple[str, ...]
    where: tuple[str, ...]
    modals: tuple[str, ...]
    corrections: tuple[str, ...]
    continuations: tuple[str, ...]
    questions: tuple[str, ...]
    negations: tuple[str, ...]
    subordinators: tuple[str, ...]
    later: tuple[str, ...]
    hearsay: tuple[str, ...]
    subjects: tuple[str, ...]
    harmless: tuple[str, ...]
    stop: StopWording
    address: AddressWording
    past: dict[str, str]
    irregular: dict[str, str]
    synonyms: tuple[tuple[str, ...], ...]
    hyponyms: dict[str, tuple[str, ...]]
    senses: dict[str, tuple[str, ...]]
    loosely: dict[str, tuple[str, ...]]
    nearby: dict[str, tuple[str, ...]]
    opposites: dict[str, str]
    kinds: dict[str, tuple[str, ...]]
    units: dict[str, tuple[str, ...]]
    suffixes: dict[str, str]
    counted: frozenset[str]
    counts: dict[str, int]
    counting: frozenset[str]
    multiples: dict[str, int]
    fractions: dict[str, float]
    vague: dict[str, float]
    customary: dict[str, float]
    extremes: dict[str, Share]
    factors: dict[str, float]
    half_turns: tuple[str, ...]
    whole_turns: tuple[str, ...]
    relative: dict[str, tuple[str | None, Sign]]
    manner: dict[str, tuple[str, Share]]
    state: StateWording
    body: frozenset[str]
    figurative: frozenset[str]
    feats: tuple[str, ...]

    @model_validator(mode="after")
    def _known_units(self) -> Self:
        for where, names in (("suffixes", self.suffixes.values()), ("customary", self.customary)):
            for name in names:
                if name not in self.units:
                    raise ValueError(f"{where}: {name!r} is not among the units")
        return self


def load_lexicon(path: Path = LEXICON_FILE) -> Lexicon:
    """Read the lexicon.

    Raises:
        ConfigurationError: names the file, the place in it and what is wrong.
    """
    return read_document(path, Lexicon)
