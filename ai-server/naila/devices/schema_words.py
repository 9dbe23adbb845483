"""Values and schemas as a person reads them: `10 m`, `0.05 to 3 m`, `forward or backward`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Final

from naila.events import JsonValue
from naila.fleet import on_one_line

MAX_NUMBER: Final = 2**53 - 1
MAX_VALUE_CHARS: Final = 60
MAX_VALUES: Final = 24


def is_huge(value: float) -> bool:
    """Tell whether a number is beyond what every JSON parser reads exactly, infinite or none at all."""
    return not -MAX_NUMBER <= value <= MAX_NUMBER  # also true of NaN


def value_words(value: object, unit: object = None) -> str:
    """Return a value as a person reads it, on one line and not too long: `10 m`, `forward`, `true`."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return _with_unit("a huge number" if is_huge(value) else _number_words(value), unit)
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=lambda _: "…")
    except (TypeError, ValueError, RecursionError):
        text = "…"
    one_line = on_one_line(text[:200])
    return one_line if len(one_line) <= MAX_VALUE_CHARS else f"{one_line[: MAX_VALUE_CHARS - 1]}…"


def allowed_words(schema: JsonValue | Mapping[str, JsonValue]) -> str:
    """Return what a schema allows, in words: `0.05 to 3 m`, `forward or backward`, `true or false`."""
    if not isinstance(schema, Mapping):
        return "a value"
    unit = schema.get("unit")
    for keyword in ("enum", "const"):
        if keyword in schema:
            values = schema[keyword] if keyword == "enum" else [schema[keyword]]
            return either(value_words(each, unit) for each in (values if isinstance(values, list) else []))
    for keyword in ("anyOf", "oneOf"):
        if isinstance(alternatives := schema.get(keyword), list):
            return either(allowed_words(each) for each in alternatives)
    kinds = schema.get("type")
    return either(_type_words(kind, schema, unit) for kind in (kinds if isinstance(kinds, list) else [kinds]))


def _type_words(kind: JsonValue, schema: Mapping[str, JsonValue], unit: object) -> str:
    if isinstance(kind, str) and kind in {"number", "integer"}:
        return _number_type_words(kind == "integer", schema, unit)
    if kind == "string":
        most = schema.get("maxLength")
        return "text" if most is None else f"text of at most {most} characters"
    if kind == "array":
        return f"a list of values, each {allowed_words(schema['items'])}" if "items" in schema else "a list"
    if kind == "object":
        properties = schema.get("properties")
        names = [str(name) for name in properties] if isinstance(properties, Mapping) else []
        return f"an object of {either(names, 'and')}" if names else "an empty object"
    return {"boolean": "true or false", "null": "null"}.get(str(kind), "a value")


def _number_type_words(is_whole: bool, schema: Mapping[str, JsonValue], unit: object) -> str:
    limits = range_words(schema)
    if not limits:
        return f"a {'whole ' if is_whole else ''}number{f' in {value_words(unit)}' if unit else ''}"
    steps = f", in steps of {_number_words(number(schema, 'multipleOf'))}" if "multipleOf" in schema else ""
    return f"{_with_unit(limits, unit)}{steps}"


def range_words(schema: Mapping[str, JsonValue]) -> str:
    """Return the limits of a number in words, empty where there are none: `0.05 to 3`."""
    low = [f"{_number_words(number(schema, 'minimum'))}"] if "minimum" in schema else []
    high = [f"{_number_words(number(schema, 'maximum'))}"] if "maximum" in schema else []
    parts = [f"{low[0]} to {high[0]}"] if low and high else [f"at least {each}" for each in low]
    parts += [] if low else [f"at most {each}" for each in high]
    if "exclusiveMinimum" in schema:
        parts.append(f"more than {_number_words(number(schema, 'exclusiveMinimum'))}")
    if "exclusiveMaximum" in schema:
        parts.append(f"less than {_number_words(number(schema, 'exclusiveMaximum'))}")
    return " and ".join(parts)


def number(schema: Mapping[str, JsonValue], keyword: str) -> float:
    """Return the number of a keyword; NaN where it is none."""
    value = schema[keyword]
    return value if isinstance(value, int | float) else math.nan


def _number_words(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) and not is_huge(value) else repr(value)


def _with_unit(words: str, unit: object) -> str:
    if not isinstance(unit, str) or not unit:
        return words
    return f"{words}{'' if unit in {'%', '°'} else ' '}{unit}"


def either(words: Iterable[object], last: str = "or") -> str:
    """Join words as a person does: `a, b or c`; the rest of many is counted."""
    each = list(dict.fromkeys(str(word) for word in words))
    if len(each) > MAX_VALUES:
        each = [*each[: MAX_VALUES - 1], f"{len(each) - MAX_VALUES + 1} more"]
    return each[0] if len(each) == 1 else f"{', '.join(each[:-1])} {last} {each[-1]}" if each else "nothing"
