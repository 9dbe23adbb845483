"""What NAILA understands and says without a model, from `config/patterns.yaml`: read once, validated, frozen."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self, TypeVar
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from naila.config.yaml_file import read_yaml
from naila.errors import ConfigurationError

UNKNOWN: Final = "unknown"
FOLLOW_UP: Final = "follow_up"
MACRO = re.compile(r"%(\w+)%")

# What may stand in braces in a reply, beside {persona}.
REPLY_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "name_given": frozenset({"name"}),
    "name_known": frozenset({"name"}),
    "likes_known": frozenset({"likes"}),
    "clock_time": frozenset({"time"}),
    "clock_time_in": frozenset({"time", "weekday", "place"}),
    "clock_date": frozenset({"lead", "weekday", "date"}),
    "clock_date_in": frozenset({"weekday", "date", "place"}),
    "clock_week": frozenset({"lead", "week", "week_year"}),
    "clock_month": frozenset({"month", "year"}),
    "clock_year": frozenset({"year"}),
    "clock_until": frozenset({"days", "day", "weekday", "date"}),
    "clock_until_today": frozenset({"weekday", "date"}),
    "clock_unknown_place": frozenset({"place"}),
    # What became of actions.
    "action_done": frozenset({"deeds"}),
    "action_done_by": frozenset({"deeds", "device"}),
    "action_report": frozenset({"device", "words"}),
    "action_failed": frozenset({"deed", "device"}),
    "action_failed_because": frozenset({"deed", "device", "words"}),
    "action_refused": frozenset({"deed", "reason"}),
    "action_unanswered": frozenset({"deed", "device"}),
    "stop_sent": frozenset({"devices"}),
    "stop_nobody": frozenset(),
    "action_stopped": frozenset({"deed", "device"}),
    "action_pending": frozenset({"deed", "device"}),
    "action_not_begun": frozenset({"deeds"}),
    "action_nothing": frozenset(),
    "reason_expired": frozenset({"device"}),
    "reason_rate_limited": frozenset({"device"}),
    "reason_not_confirmed": frozenset({"device"}),
    "reason_device_offline": frozenset({"device"}),
    "reason_unknown_action": frozenset({"device"}),
    "reason_busy": frozenset({"device"}),
    "reason_other": frozenset({"device"}),
    # What is asked back. {who} is "I" or a device's name.
    "ask_how": frozenset({"how", "who", "action", "allowed"}),
    "ask_times": frozenset({"who", "action", "allowed"}),
    "ask_which": frozenset({"argument", "who", "action", "allowed"}),
    "ask_what": frozenset({"argument", "who", "action", "allowed"}),
    "ask_open": frozenset({"argument", "who", "action"}),
    "ask_value": frozenset({"argument", "who", "allowed"}),
    "ask_device": frozenset({"choices"}),
    "ask_action": frozenset({"choices", "who"}),
    "ask_again": frozenset({"who"}),
    # What surely cannot be done.
    "cannot_do": frozenset({"asked", "who"}),
    "cannot_do_but": frozenset({"asked", "who", "allowed"}),
    "cannot_range": frozenset({"asked", "action", "argument", "allowed", "who"}),
    "cannot_value": frozenset({"asked", "action", "argument", "allowed", "who"}),
    "cannot_at_all": frozenset({"who"}),
    # The state of devices.
    "state_is": frozenset({"subject", "value", "when"}),
    "state_yes": frozenset({"fact"}),
    "state_no": frozenset({"fact"}),
    "state_unknown": frozenset({"field", "device"}),
    "state_untold": frozenset({"device"}),
    "state_nothing": frozenset({"device"}),
    "state_trend": frozenset({"subject", "trend", "first", "last", "span"}),
    "state_steady": frozenset({"subject", "value", "span"}),
    "state_no_trend": frozenset({"field", "fact"}),
    "state_can": frozenset({"who", "actions"}),
    "state_can_say": frozenset({"examples"}),
    "state_measures": frozenset({"who", "fields"}),
    "state_can_nothing": frozenset({"device"}),
    "state_online": frozenset({"device"}),
    "state_online_in": frozenset({"device", "room"}),
    "state_offline": frozenset({"device"}),
    "state_presence_unknown": frozenset({"device"}),
    "state_busy": frozenset({"device", "actions"}),
    "state_idle": frozenset({"device"}),
    "state_parameter": frozenset({"subject", "value", "when"}),
    "state_parameter_unknown": frozenset({"field", "device"}),
    "state_parameter_range": frozenset({"allowed"}),
    "state_no_device": frozenset(),
}
# Intents that the clock answers need no reply of their own.
CLOCK_INTENTS: Final = frozenset({"time", "date"})
OTHER_REPLIES: Final = frozenset({*REPLY_FIELDS, "no_answer", "timed_out", "too_long", "failed", "question", UNKNOWN})

Model = TypeVar("Model", bound=BaseModel)
MonthDay = Annotated[str, Field(pattern=r"^(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")]


@dataclass(frozen=True, slots=True)
class IntentRule:
    """One way to recognise an intent.

    Attributes:
        intent: its name.
        patterns: any of them found in the text means this intent; named groups are entities.
        entity: alternatively, this entity having been found means this intent.
        clock: the intent holds only if the clock can make sense of its entities, and the clock answers it.
    """

    intent: str
    patterns: tuple[re.Pattern[str], ...] = ()
    entity: str | None = None
    clock: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What an adjective says of a reading.

    Attributes:
        about: it can be said of fields with one of these words in their name or description; the usual one first.
        above: it holds from this on.
        below: it holds under this.
        unit: of `above` and `below`; readings in another unit are told and not judged. None: any.
        share: where the declared maximum is more than twice `above`, it holds from this share of the maximum on.
        limit: the declared minimum replaces `below`.
        holds: it is said of a field that is true or false, and holds for this value.
        opposite: what is said instead where it does not hold.
    """

    about: tuple[str, ...]
    above: float | None = None
    below: float | None = None
    unit: str | None = None
    share: float | None = None
    limit: bool = False
    holds: bool | None = None
    opposite: str | None = None


@dataclass(frozen=True, slots=True)
class Phrasebook:
    """Everything in `config/patterns.yaml`, ready to use.

    Attributes:
        rewrites: spellings made one before matching, with their replacements.
        openers: what is said before the matter itself.
        closers: what is said after it.
        entities: by entity name, patterns with a group of that name.
        rules: how intents are recognised, in order.
        inherited: intents that a follow-up takes over.
        calendar: found in texts whose answer may need the date.
        personal: found in texts whose answer may need what is known of the person.
        feasts: days of fixed date by name: month and day.
        places: time zones by name of place; None where a place has several.
        replies: by key, what may be said.
        conditions: by adjective, what it says of a reading.
    """

    rewrites: tuple[tuple[re.Pattern[str], str], ...]
    openers: re.Pattern[str]
    closers: re.Pattern[str]
    entities: Mapping[str, tuple[re.Pattern[str], ...]]
    rules: tuple[IntentRule, ...]
    inherited: frozenset[str]
    calendar: re.Pattern[str]
    personal: re.Pattern[str]
    feasts: Mapping[str, tuple[int, int]]
    places: Mapping[str, str | None]
    replies: Mapping[str, tuple[str, ...]]
    conditions: Mapping[str, Condition]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rule(_Strict):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    patterns: tuple[str, ...] = ()
    entity: str | None = None
    clock: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.patterns) == bool(self.entity):
            raise ValueError(f"intent {self.name!r} needs either patterns or an entity")
        return self


class _Condition(_Strict):
    about: Annotated[tuple[str, ...], Field(min_length=1)]
    above: float | None = None
    below: float | None = None
    unit: str | None = None
    share: Annotated[float | None, Field(gt=0, le=1)] = None
    limit: bool = False
    holds: bool | None = None
    opposite: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if [self.above, self.below, self.holds].count(None) != 2:
            raise ValueError("a condition needs exactly one of above, below and holds")
        return self


class _Document(_Strict):
    rewrites: tuple[tuple[str, str], ...]
    openers: str
    closers: str
    macros: dict[str, str]
    entities: dict[str, tuple[str, ...]]
    intents: tuple[_Rule, ...]
    inherited: frozenset[str]
    calendar: str
    personal: str
    feasts: dict[str, MonthDay]
    places: dict[str, str | None]
    replies: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]
    conditions: dict[str, _Condition]


def load_patterns(path: Path) -> Phrasebook:
    """Read the patterns file.

    Raises:
        ConfigurationError: names the file, the place in it and what is wrong.
    """
    document = read_document(path, _Document)
    feasts = "|".join(re.escape(name) for name in sorted(document.feasts, key=len, reverse=True))
    macros = {**document.macros, "feasts": f"(?:{feasts})"}

    def compiled(where: str, pattern: str) -> re.Pattern[str]:
        return _compile(path, where, pattern, macros)

    book = Phrasebook(
        rewrites=tuple((compiled("rewrites", pattern), new) for pattern, new in document.rewrites),
        openers=compiled("openers", document.openers),
        closers=compiled("closers", document.closers),
        entities={
            name: tuple(compiled(f"entities.{name}", pattern) for pattern in patterns)
            for name, patterns in document.entities.items()
        },
        rules=tuple(
            IntentRule(
                intent=rule.name,
                patterns=tuple(compiled(f"intents.{rule.name}", pattern) for pattern in rule.patterns),
                entity=rule.entity,
                clock=rule.clock,
            )
            for rule in document.intents
        ),
        inherited=document.inherited,
        calendar=compiled("calendar", document.calendar),
        personal=compiled("personal", document.personal),
        feasts={name: (int(day[:2]), int(day[3:])) for name, day in document.feasts.items()},
        places={fold(name): zone for name, zone in document.places.items()},
        replies=document.replies,
        conditions={fold(word): Condition(**dict(condition)) for word, condition in document.conditions.items()},
    )
    _check(path, book)
    return book


def read_document(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into a validated model.

    Raises:
        ConfigurationError: names the file, the place in it and what is wrong.
    """
    try:
        return model.model_validate(read_yaml(path))
    except ValidationError as exc:
        lines = (
            f"{path}: {'.'.join(str(step) for step in error['loc']) or 'document'}: "
            f"{error['msg'].removeprefix('Value error, ')}"
            for error in exc.errors()
        )
        raise ConfigurationError("\n".join(lines)) from exc


def fold(name: str) -> str:
    """Return the form in which names are compared."""
    return " ".join(name.casefold().split())


def check_replies(path: Path, replies: Mapping[str, Iterable[str]]) -> None:
    """Refuse replies that ask for something which is not there when they are said.

    Raises:
        ConfigurationError: names the reply and the field.
    """
    for key, texts in replies.items():
        for text in texts:
            check_fields(f"{path}: replies.{key}", text, REPLY_FIELDS.get(key, frozenset()) | {"persona"})


def check_fields(where: str, text: str, allowed: frozenset[str]) -> None:
    """Refuse a text with braces that nothing is filled into.

    Raises:
        ConfigurationError: names the place and the field.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
    except ValueError as exc:
        raise ConfigurationError(f"{where}: {text!r}: {exc}") from exc
    for field in fields:
        if field not in allowed:
            shown = ", ".join(sorted(f"{{{name}}}" for name in allowed))
            raise ConfigurationError(f"{where}: {{{field}}} is not known here, only {shown}")


def _compile(path: Path, where: str, pattern: str, macros: Mapping[str, str]) -> re.Pattern[str]:
    def expand(found: re.Match[str]) -> str:
        if found[1] not in macros:
            raise ConfigurationError(f"{path}: {where}: there is no macro {found[0]}")
        return MACRO.sub(expand, macros[found[1]])

    try:
        return re.compile(MACRO.sub(expand, pattern), re.IGNORECASE)
    except (re.error, RecursionError) as exc:
        raise ConfigurationError(f"{path}: {where}: {pattern!r} is not a regular expression: {exc}") from exc


def _check(path: Path, book: Phrasebook) -> None:
    check_replies(path, book.replies)
    intents = {rule.intent for rule in book.rules} - CLOCK_INTENTS - {FOLLOW_UP}
    for key in sorted(intents | OTHER_REPLIES):
        if key not in book.replies:
            raise ConfigurationError(f"{path}: replies.{key}: missing")
    for name, patterns in book.entities.items():
        if any(name not in pattern.groupindex for pattern in patterns):
            raise ConfigurationError(f"{path}: entities.{name}: each pattern needs a group (?P<{name}>…)")
    for rule in book.rules:
        if rule.entity is not None and rule.entity not in book.entities:
            raise ConfigurationError(f"{path}: intents.{rule.intent}: there is no entity {rule.entity!r}")
    zones = available_timezones()  # empty where the machine has no time zone database: then there is nothing to check
    for place, zone in book.places.items():
        if zones and zone is not None and zone not in zones:
            raise ConfigurationError(f"{path}: places.{place}: {zone!r} is not a time zone")
