"""The JSON Schema of an action's arguments, as a device declares it: read, checked, and made plain.

A closed part of JSON Schema 2020-12: each keyword is either enforced or refused by name, so that no limit that a device
wrote down is silently left out. Refused are `pattern` and `patternProperties` (a regular expression can run for ever),
`$ref` to anything but `#/$defs/…`, `$dynamicRef`, `format`, `not`, `allOf`, `if` and every unknown word; `unit` and the
usual annotations are allowed. `#/$defs/…` is written out where it is used.

Tighter than the standard in three things: objects have no keys but the declared ones, a value says what it is (`type`,
`enum`, `const`, `anyOf` or `oneOf`), and numbers stay within ±(2⁵³ - 1), which every JSON parser reads exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from naila.devices.schema_words import MAX_NUMBER, either, is_huge, number, range_words, value_words
from naila.errors import ContractError
from naila.events import JsonValue
from naila.fleet import MAX_NAME_CHARS, is_clean

MAX_SCHEMA_BYTES: Final = 16 * 1024
MAX_SCHEMA_DEPTH: Final = 8
MAX_SCHEMAS: Final = 512  # in all, `$ref` written out
MAX_PROPERTIES: Final = 64
MAX_CHOICES: Final = 256
MAX_UNIT_CHARS: Final = 32
MAX_TEXT_CHARS: Final = 1000
MAX_STRING_CHARS: Final = 4096

Schema = Mapping[str, JsonValue]

_DIALECTS: Final = frozenset(
    {
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
    }
)
_RANGE: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "null": frozenset(),
    "boolean": frozenset(),
    "integer": _RANGE,
    "number": _RANGE,
    "string": frozenset({"minLength", "maxLength"}),
    "array": frozenset({"items", "minItems", "maxItems", "uniqueItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}
_TEXTS: Final = frozenset({"title", "description", "$comment", "unit"})
_ANNOTATIONS: Final = _TEXTS | {"default", "examples", "deprecated", "readOnly", "writeOnly"}
CHOICES: Final = ("anyOf", "oneOf")
_KNOWN: Final = _ANNOTATIONS.union({"type", "enum", "const", "$ref", *CHOICES}, *_KEYWORDS.values())
_AT_ROOT: Final = frozenset({"$schema", "$defs"})
_REFUSED: Final = {
    "pattern": "is refused, since a regular expression can run for ever: use enum or maxLength",
    "patternProperties": "is refused, since a regular expression can run for ever: name every property",
    "format": "is not enforced, and so refused: say it in description",
    "$defs": "must stand at the top of the schema",
}


def read_parameters(schema: JsonValue, path: str) -> dict[str, JsonValue]:
    """Return the schema of an action's arguments as it is enforced: `$ref` written out, every object closed.

    Args:
        schema: as declared.
        path: where it stands, for messages: `capabilities: actions[2].parameters`.

    Raises:
        ContractError: `bad_payload`: it is no schema of an object, or holds what cannot be enforced; names the path.
    """
    if not isinstance(schema, dict):
        raise wrong(path, "must be a JSON Schema object")
    if (size := size_of(schema)) > MAX_SCHEMA_BYTES:
        raise wrong(path, f"has {size} bytes, the limit is {MAX_SCHEMA_BYTES}")
    dialect = schema.get("$schema")
    if dialect is not None and (not isinstance(dialect, str) or dialect.rstrip("#") not in _DIALECTS):
        raise wrong(f"{path}.$schema", "must be https://json-schema.org/draft/2020-12/schema, or be left out")
    definitions = schema.get("$defs", {})
    if not isinstance(definitions, dict):
        raise wrong(f"{path}.$defs", "must be an object")
    rest = {keyword: value for keyword, value in schema.items() if keyword not in _AT_ROOT}
    reading = _SchemaReading(definitions)
    for name, definition in definitions.items():
        reading.schema(definition, f"{path}.$defs.{value_words(name)}", 1, frozenset({name}))
    checked = reading.schema(rest, path, 0, frozenset())
    if checked.get("type") != "object" or "enum" in checked or "const" in checked:
        raise wrong(path, "must have type object: it describes the arguments by name")
    for keyword in CHOICES:
        alternatives = checked.get(keyword)
        for index, each in enumerate(alternatives if isinstance(alternatives, list) else ()):
            if not isinstance(each, dict) or each.get("type") != "object":
                raise wrong(f"{path}.{keyword}[{index}]", "must have type object: it describes the arguments by name")
    return checked


class _SchemaReading:
    """Reads one declared schema: every schema inside it is checked and copied. Counts them, since `$ref` multiplies."""

    def __init__(self, definitions: Mapping[str, JsonValue]) -> None:
        self._definitions: Final = definitions
        self._left = MAX_SCHEMAS

    def schema(self, schema: JsonValue, path: str, depth: int, within: frozenset[str]) -> dict[str, JsonValue]:
        """Return a checked copy; `within` names the definitions that are being written out."""
        if not isinstance(schema, dict):
            raise wrong(path, "must be a JSON Schema object")
        self._left -= 1
        if self._left < 0:
            raise wrong(path, f"is one schema too many: the limit is {MAX_SCHEMAS}, definitions written out")
        if depth > MAX_SCHEMA_DEPTH:
            raise wrong(path, f"is nested too deeply: the limit is {MAX_SCHEMA_DEPTH}")
        for keyword in schema:
            if keyword not in _KNOWN:
                known = ", ".join(sorted(_KNOWN))
                raise wrong(
                    f"{path}.{value_words(keyword)}", _REFUSED.get(keyword, f"is not supported; known: {known}")
                )
        if "$ref" in schema:
            return self._referred(schema, path, depth, within)
        checked = {**schema, **self._structure(schema, path, depth, within)}
        _check_annotations(checked, path)
        return checked

    def _referred(
        self, schema: dict[str, JsonValue], path: str, depth: int, within: frozenset[str]
    ) -> dict[str, JsonValue]:
        reference = schema["$ref"]
        name = reference.removeprefix("#/$defs/") if isinstance(reference, str) else ""
        if name == reference or name not in self._definitions:
            raise wrong(f"{path}.$ref", "must be #/$defs/ and a name that stands there")
        if name in within:
            raise wrong(f"{path}.$ref", f"refers to {value_words(name)} from within it, which never ends")
        if beside := sorted(schema.keys() - _ANNOTATIONS - {"$ref"}):
            raise wrong(f"{path}.{beside[0]}", "must not stand beside $ref")
        found = self.schema(self._definitions[name], path, depth, within | {name})
        merged = {**found, **{keyword: value for keyword, value in schema.items() if keyword != "$ref"}}
        _check_annotations(merged, path)
        return merged

    def _structure(
        self, schema: dict[str, JsonValue], path: str, depth: int, within: frozenset[str]
    ) -> dict[str, JsonValue]:
        """Return what of the schema had to be made anew."""
        kinds = _kinds(schema, path)
        choices = [keyword for keyword in (*CHOICES, "enum", "const") if keyword in schema]
        if not kinds and not choices:
            raise wrong(path, "must say what it is, by type, enum, const, anyOf or oneOf")
        if len(choices) > 1:
            raise wrong(path, f"has {' and '.join(choices)}, but only one of them is possible")
        suitable = frozenset() if choices else frozenset[str]().union(*(_KEYWORDS[kind] for kind in kinds))
        for keyword in sorted(schema.keys() - _ANNOTATIONS - {"type", *choices} - suitable):
            beside = choices[0] if choices else f"type {' or '.join(kinds)}"
            raise wrong(f"{path}.{keyword}", f"means nothing beside {beside}")
        if choices and choices[0] in CHOICES:
            return {choices[0]: self._alternatives(schema[choices[0]], f"{path}.{choices[0]}", depth, within)}
        if choices:
            _check_values(schema, kinds, path)
            return {}
        made: dict[str, JsonValue] = {}
        if "object" in kinds:
            made |= self._object(schema, path, depth, within)
        if "array" in kinds:
            if "items" not in schema:
                raise wrong(f"{path}.items", "is missing: an array says what is in it")
            made["items"] = self.schema(schema["items"], f"{path}.items", depth + 1, within)
            _check_counts(schema, "Items", path)
            if not isinstance(schema.get("uniqueItems", False), bool):
                raise wrong(f"{path}.uniqueItems", "must be true or false")
        _check_counts(schema, "Length", path)
        _check_range(schema, path)
        return made

    def _alternatives(self, values: JsonValue, path: str, depth: int, within: frozenset[str]) -> list[JsonValue]:
        if not isinstance(values, list) or not values:
            raise wrong(path, "must be an array of schemas, not an empty one")
        return [self.schema(each, f"{path}[{index}]", depth + 1, within) for index, each in enumerate(values)]

    def _object(
        self, schema: dict[str, JsonValue], path: str, depth: int, within: frozenset[str]
    ) -> dict[str, JsonValue]:
        if schema.get("additionalProperties", False) is not False:
            raise wrong(f"{path}.additionalProperties", "must be false: what is not declared is never sent")
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise wrong(f"{path}.properties", "must be an object")
        if len(properties) > MAX_PROPERTIES:
            raise wrong(f"{path}.properties", f"has {len(properties)} entries, the limit is {MAX_PROPERTIES}")
        for name in properties:
            check_name(name, f"{path}.properties")
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise wrong(f"{path}.required", "must be an array of names")
        if unknown := [each for each in required if each not in properties]:
            raise wrong(f"{path}.required", f"names {value_words(unknown[0])}, which properties does not")
        return {
            "properties": {
                name: self.schema(value, f"{path}.properties.{name}", depth + 1, within)
                for name, value in properties.items()
            },
            "required": list(required),
            "additionalProperties": False,
        }


def _kinds(schema: Schema, path: str) -> tuple[str, ...]:
    if "type" not in schema:
        return ()
    value = schema["type"]
    kinds = value if isinstance(value, list) else [value]
    if not kinds or not all(isinstance(kind, str) and kind in _KEYWORDS for kind in kinds):
        raise wrong(f"{path}.type", f"must be {either(_KEYWORDS)}")
    return tuple(str(kind) for kind in kinds)


def _check_values(schema: Schema, kinds: Sequence[str], path: str) -> None:
    where = f"{path}.{'enum' if 'enum' in schema else 'const'}"
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    if not isinstance(values, list) or not 0 < len(values) <= MAX_CHOICES:
        raise wrong(where, f"must be an array of 1 to {MAX_CHOICES} values")
    for value in values:
        if isinstance(value, dict | list) or _is_unfit(value):
            raise wrong(where, "must hold strings, numbers, true, false or null")
        if kinds and not any(_is_of(value, kind) for kind in kinds):
            raise wrong(where, f"holds {value_words(value)}, which is not of type {' or '.join(kinds)}")


def _check_range(schema: Schema, path: str) -> None:
    for keyword in sorted(_RANGE & schema.keys()):
        value = schema[keyword]
        if isinstance(value, bool) or not isinstance(value, int | float) or _is_unfit(value):
            raise wrong(f"{path}.{keyword}", f"must be a number from -{MAX_NUMBER} to {MAX_NUMBER}")
        if keyword == "multipleOf" and value <= 0:
            raise wrong(f"{path}.multipleOf", "must be more than 0")
    lows = [number(schema, keyword) for keyword in ("minimum", "exclusiveMinimum") if keyword in schema]
    highs = [number(schema, keyword) for keyword in ("maximum", "exclusiveMaximum") if keyword in schema]
    is_open = _is_binding(schema, "exclusiveMinimum", lows, max) or _is_binding(schema, "exclusiveMaximum", highs, min)
    if lows and highs and (max(lows) > min(highs) or (is_open and max(lows) >= min(highs))):
        raise wrong(path, f"allows nothing: {range_words(schema)}")


def _is_binding(
    schema: Schema, keyword: str, bounds: Sequence[float], tightest: Callable[[Sequence[float]], float]
) -> bool:
    return keyword in schema and bool(bounds) and number(schema, keyword) == tightest(bounds)


def _check_counts(schema: Schema, what: str, path: str) -> None:
    counts = {}
    for keyword in (f"min{what}", f"max{what}"):
        count = schema.get(keyword, 0)
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_STRING_CHARS:
            raise wrong(f"{path}.{keyword}", f"must be a whole number from 0 to {MAX_STRING_CHARS}")
        counts[keyword] = count
    if f"max{what}" in schema and counts[f"min{what}"] > counts[f"max{what}"]:
        raise wrong(f"{path}.min{what}", f"is above max{what}")


def _check_annotations(schema: Schema, path: str) -> None:
    for keyword in sorted(_TEXTS & schema.keys()):
        text: JsonValue = schema[keyword]
        limit = MAX_UNIT_CHARS if keyword == "unit" else MAX_TEXT_CHARS
        if not isinstance(text, str) or len(text) > limit:
            raise wrong(f"{path}.{keyword}", f"must be a string of at most {limit} characters")
        check_clean(text if keyword == "unit" else " ".join(text.split()), f"{path}.{keyword}")


def _is_of(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and value == int(value))
    return kind == ("null" if value is None else "string")


def _is_unfit(value: object) -> bool:
    """Tell whether a scalar cannot be sent: a huge or infinite number, or text that is no text."""
    if isinstance(value, int | float):
        return is_huge(value)
    return isinstance(value, str) and (len(value) > MAX_STRING_CHARS or not is_clean(value))


def check_name(name: str, path: str) -> None:
    """Refuse what is no name of an argument, a field or a parameter."""
    if not name.strip() or name != name.strip() or len(name) > MAX_NAME_CHARS or not is_clean(name):
        raise wrong(
            path,
            f"has the name {value_words(name)!r}: a name has 1 to {MAX_NAME_CHARS} characters, no control "
            "characters, and no space at its ends",
        )


def check_clean(text: str, path: str) -> None:
    """Refuse text that is not what it looks like."""
    if not is_clean(text):
        raise wrong(path, "must not hold control characters, nor invisible ones")


def size_of(value: object) -> int:
    """Return the bytes of a value as JSON; more than any limit where it has no JSON."""
    try:
        return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (RecursionError, TypeError, ValueError):
        return MAX_SCHEMA_BYTES + 1


def wrong(path: str, rule: str) -> ContractError:
    """Return the refusal of what stands at a path."""
    return ContractError("bad_payload", f"{path}: {rule}")
