"""JSON Schema to the grammar (GBNF) that binds an answer to it.

What a schema says is either bound exactly or refused by name: an answer that ended by itself (`stop`) is JSON and valid
against its schema. One that was cut (`length`, `cancelled`, `deadline`) need not be either. llama-cpp-python's own
converter is not used: it ignores `minimum` and whatever stands beside `anyOf`, and writes raw newlines into strings.

Bound more tightly than JSON Schema would have it, which leaves every answer valid:

- Objects have the properties that are named, in the order in which they are named, and no others.
- White space is at most one space behind a colon or a comma: it costs tokens.
- Integers without bounds stay within ±(2⁵³ - 1), which every JSON parser reads exactly. Numbers with bounds have up to
  6 decimals, 15 digits in all, no exponent, and stay under 10⁹ where one bound is missing.
- `oneOf` only with alternatives of which no two can match the same value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import combinations
from typing import Final

from naila.errors import UnsupportedSchemaError
from naila.events import JsonValue
from naila.inference.disjoint import Comparison, Schema, is_of, types
from naila.inference.number_range import between

MAX_SCHEMA_BYTES: Final = 16 * 1024
MAX_DEPTH: Final = 16
MAX_GRAMMAR_BYTES: Final = 128 * 1024
MAX_REPETITION: Final = 1024  # llama.cpp takes more than 2000 for "any number"
MAX_REPETITIONS: Final = 4096  # in all: llama.cpp makes a rule of each
MAX_COMPARISONS: Final = 4096  # in all, for `oneOf`

_CACHED: Final = 128

_ANNOTATIONS: Final = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$comment"})
_RANGE: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "null": frozenset(),
    "boolean": frozenset(),
    "integer": _RANGE,
    "number": _RANGE,
    "string": frozenset({"minLength", "maxLength"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}

# One character of a string, as RFC 8259 has it, but no half of a surrogate pair without the other.
_HEX: Final = "[0-9A-Fa-f]"
_ESCAPED: Final = (
    rf'["\\/bfnrt] | "u" ( [0-9A-CE-Fa-ce-f] {_HEX}{{3}} | [Dd] [0-7] {_HEX}{{2}}'
    rf' | [Dd] [89ABab] {_HEX}{{2}} "\\u" [Dd] [C-Fc-f] {_HEX}{{2}} )'
)
_CHAR: Final = rf'[\x20\x21\x23-\x5B\x5D-\uD7FF\uE000-\U0010FFFF] | "\\" ( {_ESCAPED} )'
_SPACE: Final = '" "?'

_KNOWN: Final = _ANNOTATIONS.union(["type", "enum", "const", "anyOf", "oneOf"], *_KEYWORDS.values())


def gbnf(schema: Mapping[str, JsonValue]) -> str:
    """Return the grammar of a schema, with the start symbol `root`. Schemas met before are remembered.

    Raises:
        UnsupportedSchemaError: it is too large, malformed, or says what a grammar cannot hold an answer to.
    """
    try:
        text = json.dumps(dict(schema), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as exc:
        raise UnsupportedSchemaError(f"the schema is no JSON: {exc}") from exc
    if size > MAX_SCHEMA_BYTES:
        raise UnsupportedSchemaError(f"the schema has {size} bytes, and {MAX_SCHEMA_BYTES} are the limit")
    try:
        return _gbnf(text)
    except RecursionError as exc:
        raise UnsupportedSchemaError("the schema holds a value that is nested too deep") from exc


@lru_cache(_CACHED)
def _gbnf(text: str) -> str:
    writer = _Writer()
    root = writer.value(json.loads(text, parse_float=_number), "#", 1)
    grammar = writer.text(root)
    if (size := len(grammar.encode())) > MAX_GRAMMAR_BYTES:
        raise UnsupportedSchemaError(f"the schema's grammar has {size} bytes, and {MAX_GRAMMAR_BYTES} are the limit")
    return grammar


class _Writer:
    """Writes rules; the same rule twice is one rule."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._repetitions = 0
        self._comparison = Comparison(MAX_COMPARISONS)

    def text(self, root: str) -> str:
        """Return the grammar that starts with a rule."""
        rules = "".join(f"{name} ::= {body}\n" for body, name in self._names.items())
        return f"root ::= {root}\n{rules}"

    def value(self, schema: object, path: str, depth: int) -> str:
        """Return the rule of the values that a schema at a path allows."""
        if not isinstance(schema, dict):
            raise UnsupportedSchemaError(f"{path} is no object", path=path)
        if depth > MAX_DEPTH:
            raise UnsupportedSchemaError(f"{path} lies deeper than {MAX_DEPTH} schemas", path=path)
        for keyword in schema:
            if keyword not in _KNOWN:
                raise UnsupportedSchemaError(f"`{keyword}` at {path} is not supported", keyword=keyword, path=path)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._choice(schema, keyword, path, depth)
        for keyword in ("enum", "const"):
            if keyword in schema:
                return self._literals(schema, keyword, path)
        names = _types(schema, path)
        _only(schema, {"type"}.union(*(_KEYWORDS[name] for name in names)), path)
        return self._any_of(self._typed(name, schema, path, depth) for name in names)

    def _rule(self, body: str) -> str:
        return self._names.setdefault(body, f"r{len(self._names)}")

    def _any_of(self, rules: Iterable[str]) -> str:
        return self._rule(" | ".join(dict.fromkeys(rules)))

    def _choice(self, schema: Schema, keyword: str, path: str, depth: int) -> str:
        _only(schema, {keyword}, path)
        path = f"{path}/{keyword}"
        alternatives = schema[keyword]
        if not isinstance(alternatives, list) or not alternatives:
            raise UnsupportedSchemaError(f"{path} is no list of schemas", keyword=keyword, path=path)
        rules = [self.value(each, f"{path}/{number}", depth + 1) for number, each in enumerate(alternatives)]
        if keyword == "oneOf":
            for (i, one), (j, other) in combinations(enumerate(alternatives), 2):
                if not self._comparison.are_disjoint(one, other):
                    why = f"{path}: a value may match both alternatives {i} and {j}; `anyOf` allows that"
                    raise UnsupportedSchemaError(why, keyword=keyword, path=path)
        return self._any_of(rules)

    def _literals(self, schema: Schema, keyword: str, path: str) -> str:
        _only(schema, {keyword, "type"}, path)
        values = schema[keyword] if keyword == "enum" else [schema[keyword]]
        if not isinstance(values, list) or not values:
            raise UnsupportedSchemaError(f"{path}/enum is no list of values", keyword=keyword, path=path)
        if "type" in schema:
            names = _types(schema, path)
            for value in values:
                if not any(is_of(value, name) for name in names):
                    why = f"{path}/{keyword} holds {json.dumps(value)}, which is not of its type"
                    raise UnsupportedSchemaError(why, keyword=keyword, path=path)
        return self._any_of(_literal(value) for value in values)

    def _typed(self, name: str, schema: Schema, path: str, depth: int) -> str:
        match name:
            case "object":
                return self._object(schema, path, depth)
            case "array":
                return self._array(schema, path, depth)
            case "string":
                least, most = self._counts(schema, "Length", path)
                return rf'"\"" {_times(self._rule(_CHAR), least, most)} "\""'
            case "integer" | "number":
                return self._rule(_within(schema, name, path))
        return '"null"' if name == "null" else '"true" | "false"'

    def _object(self, schema: Schema, path: str, depth: int) -> str:
        if schema.get("additionalProperties", False) is not False:
            why = f"{path}: of `additionalProperties`, only false is supported: an answer holds what is named"
            raise UnsupportedSchemaError(why, keyword="additionalProperties", path=path)
        properties, required = schema.get("properties"), schema.get("required", [])
        if not isinstance(properties, dict):
            raise UnsupportedSchemaError(f"{path}: an object needs `properties`", keyword="properties", path=path)
        if not isinstance(required, list) or not all(isinstance(each, str) for each in required):
            raise UnsupportedSchemaError(f"{path}/required is no list of names", keyword="required", path=path)
        if unknown := [each for each in required if each not in properties]:
            why = f"{path}/required names {unknown[0]!r}, which `properties` does not"
            raise UnsupportedSchemaError(why, keyword="required", path=path)
        space, pairs = self._rule(_SPACE), {}
        for name, value in properties.items():
            rule = self.value(value, f"{path}/properties/{name}", depth + 1)
            pairs[self._rule(f'{_literal(name)} ":" {space} {rule}')] = name in required
        return f'"{{" {self._pairs(pairs, space)} "}}"'

    def _pairs(self, pairs: Mapping[str, bool], space: str) -> str:
        """Return a sequence of pairs, each of them required or not, with commas between those that are there."""
        if any(pairs.values()):
            parts, follows = [], False
            for pair, is_required in pairs.items():
                text = f'"," {space} {pair}' if follows else pair if is_required else f'{pair} "," {space}'
                parts.append(text if is_required else f"({text})?")
                follows = follows or is_required
            return " ".join(parts)
        starts, rest = [], ""
        for pair in reversed(list(pairs)):
            starts.append(f"{pair} {rest}")
            rest = self._rule(f'("," {space} {pair})? {rest}')
        return f"({' | '.join(reversed(starts))})?" if starts else ""

    def _array(self, schema: Schema, path: str, depth: int) -> str:
        if "items" not in schema:
            raise UnsupportedSchemaError(f"{path}: an array needs `items`", keyword="items", path=path)
        item = self.value(schema["items"], f"{path}/items", depth + 1)
        least, most = self._counts(schema, "Items", path)
        if most == 0:
            return '"[]"'
        more = self._rule(f'"," {self._rule(_SPACE)} {item}')
        items = f"{item} {_times(more, max(least - 1, 0), None if most is None else most - 1)}"
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'

    def _counts(self, schema: Schema, what: str, path: str) -> tuple[int, int | None]:
        least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}")
        for keyword, count in ((f"min{what}", least), (f"max{what}", most)):
            if keyword in schema and (type(count) is not int or not 0 <= count <= MAX_REPETITION):
                why = f"{path}/{keyword} is no whole number from 0 to {MAX_REPETITION}"
                raise UnsupportedSchemaError(why, keyword=keyword, path=path)
        if most is not None and least > most:
            raise UnsupportedSchemaError(f"{path}: min{what} is above max{what}", keyword=f"min{what}", path=path)
        self._repetitions += least if most is None else most
        if self._repetitions > MAX_REPETITIONS:
            raise UnsupportedSchemaError(
                f"the schema's lengths and counts add up to more than {MAX_REPETITIONS}", path=path
            )
        return least, most


def _types(schema: Schema, path: str) -> list[str]:
    names = types(schema) if "type" in schema else []
    if not names or not all(isinstance(name, str) and name in _KEYWORDS for name in names):
        why = f"{path}/type must be one or more of {', '.join(_KEYWORDS)}"
        raise UnsupportedSchemaError(why, keyword="type", path=path)
    return names


def _only(schema: Schema, supported: Iterable[str], path: str) -> None:
    """Refuse what is neither supported here nor an annotation."""
    supported = set(supported)
    for keyword in schema:
        if keyword not in supported and keyword not in _ANNOTATIONS:
            why = f"`{keyword}` at {path} is not supported beside {', '.join(sorted(supported & schema.keys()))}"
            raise UnsupportedSchemaError(why, keyword=keyword, path=path)


def _number(text: str) -> int | float:
    """Read a number as JSON Schema does, for which 1.0 is 1."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _literal(value: object) -> str:
    """Return the terminal that is a value's JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _times(rule: str, least: int, most: int | None) -> str:
    return "" if most == 0 else f"{rule}{{{least},{'' if most is None else most}}}"


def _within(schema: Schema, name: str, path: str) -> str:
    for keyword in _RANGE & schema.keys():
        if type(schema[keyword]) not in {int, float}:
            raise UnsupportedSchemaError(f"{path}/{keyword} is no number", keyword=keyword, path=path)
    lows = [(schema[each], each != "minimum") for each in ("minimum", "exclusiveMinimum") if each in schema]
    highs = [(schema[each], each != "maximum") for each in ("maximum", "exclusiveMaximum") if each in schema]
    pattern = between(lows, highs, is_integer=name == "integer")
    if not pattern:
        raise UnsupportedSchemaError(f"{path}: no {name} that can be written lies within the bounds", path=path)
    return pattern
