"""What the model may choose for an argument: only what the person's words support."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from naila.events import JsonValue
from naila.fleet import ActionSpec, ParameterSpec
from naila.orchestration.naming import bound_of, plain, properties_of, required_of, schema_of, spoken

MISSING: Final = "?"  # the person did not say
MOST_VALUES: Final = 24
MOST_SPANS: Final = 32
SPAN_WORDS: Final = 8
SPAN_CHARS: Final = 80
STEM_CHARS: Final = 4
_WORD: Final = re.compile(r"[\w']+")


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument as the model may fill it.

    Attributes:
        values: what it may be, `?` included where the person may not have said; empty: it may not be filled.
        required: the action cannot do without.
        choices: what a person is offered where it is asked back.
    """

    values: tuple[str | float | bool, ...]
    required: bool
    choices: tuple[str, ...] = ()


def arguments_of(spec: ActionSpec, text: str, numbers: Mapping[str, Sequence[float]]) -> dict[str, Argument]:
    """Return the arguments of an action as they may be filled for a text."""
    required = required_of(spec)
    schemas = properties_of(spec)
    return {
        name: _argument(schemas.get(name, {}), name in required, text, numbers.get(name, ()))
        for name in [*schemas, *(name for name in required if name not in schemas)]
    }


def parameter_argument(
    name: str, parameter: ParameterSpec, text: str, numbers: Mapping[str, Sequence[float]]
) -> Argument:
    """Return the value of a parameter as it may be filled for a text."""
    return _argument(
        schema_of(parameter), is_required=True, text=text, numbers=numbers.get(name) or numbers.get("value") or ()
    )


def _argument(schema: Mapping[str, JsonValue], is_required: bool, text: str, numbers: Sequence[float]) -> Argument:
    declared = schema.get("enum")
    if isinstance(declared, list):
        texts = tuple(value for value in declared if isinstance(value, str))[:MOST_VALUES]
        if not texts:
            return Argument(_fitting(schema, numbers), is_required)
        named = tuple(value for value in texts if _is_named(value, text))
        # Of what nobody named, only the necessary may be guessed at: the rest has a default.
        values = named or ((*texts, MISSING) if is_required else ())
        return Argument(values, is_required, texts)
    match schema.get("type"):
        case "number" | "integer":
            return Argument(_fitting(schema, numbers), is_required)
        case "boolean":
            return Argument((True, False, MISSING) if is_required else (), is_required, ("on", "off"))
        case "string":
            return Argument(_spans(text) if is_required else (), is_required)
    return Argument((), is_required)


def _fitting(schema: Mapping[str, JsonValue], numbers: Sequence[float]) -> tuple[float, ...]:
    """Return the numbers that an argument may be. Whether one is allowed is decided elsewhere, and told."""
    declared = schema.get("enum")
    whole = schema.get("type") == "integer"
    values = [int(number) if whole and float(number).is_integer() else number for number in numbers]
    lowest, highest = bound_of(schema, "minimum"), bound_of(schema, "maximum")
    return tuple(
        value
        for value in dict.fromkeys(values)
        if not (whole and not isinstance(value, int))
        and (lowest is None or value >= lowest)
        and (highest is None or value <= highest)
        and (not isinstance(declared, list) or value in declared)
    )[:MOST_VALUES]


def _is_named(value: str, text: str) -> bool:
    """Tell whether a text names an enum value, or begins a word as one of its words begins."""
    said = _WORD.findall(text.lower())
    wanted = _WORD.findall(spoken(value))
    return bool(wanted) and all(any(_are_alike(word, other) for other in said) for word in wanted)


def _are_alike(word: str, other: str) -> bool:
    shorter = min(len(word), len(other))
    return word == other or (shorter >= STEM_CHARS and word[:shorter] == other[:shorter])


def _spans(text: str) -> tuple[str, ...]:
    """Return what a person may have meant to be passed on: word for word, to the end of what was said first."""
    words = plain(text, 300).rstrip(" .!?").split()
    ends = range(len(words), 0, -1)
    found = [" ".join(words[start:end]) for end in ends for start in range(max(0, end - SPAN_WORDS), end)]
    return tuple(dict.fromkeys(span for span in found if len(span) <= SPAN_CHARS))[:MOST_SPANS]
