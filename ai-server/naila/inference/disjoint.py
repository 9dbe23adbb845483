"""Whether two JSON Schemas can match the same value: what `oneOf` forbids and `anyOf` allows.

For the schemas that `naila.inference.grammar` supports, and has checked.
"""

from __future__ import annotations

import json
from typing import Any

from naila.errors import UnsupportedSchemaError

Schema = dict[str, Any]  # as json.loads made it; every value is looked at before it is used


class Comparison:
    """Compares schemas, up to a number of comparisons: each with each is many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit

    def are_disjoint(self, one: Schema, other: Schema) -> bool:
        """Tell whether it is certain that no value matches both.

        Raises:
            UnsupportedSchemaError: the limit is reached.
        """
        self._left -= 1
        if self._left < 0:
            why = f"`oneOf` takes more than {self._limit} comparisons of alternatives, which is the limit; try `anyOf`"
            raise UnsupportedSchemaError(why, keyword="oneOf")
        for a, b in ((one, other), (other, one)):
            if (inner := a.get("anyOf", a.get("oneOf"))) is not None:
                return all(self.are_disjoint(each, b) for each in inner)
        for a, b in ((one, other), (other, one)):
            if (values := _values(a)) is not None:
                if (others := _values(b)) is not None:
                    return {*map(_key, values)}.isdisjoint(map(_key, others))
                return not any(is_of(value, name) for value in values for name in types(b))
        shared = _kinds(one) & _kinds(other)
        if shared != {"object"}:
            return not shared
        both = set(one.get("required", [])) & set(other.get("required", []))
        return any(self.are_disjoint(one["properties"][name], other["properties"][name]) for name in both)


def types(schema: Schema) -> list[str]:
    """Return the types that a schema states."""
    stated = schema["type"]
    return stated if isinstance(stated, list) else [stated]


def is_of(value: object, name: str) -> bool:
    """Tell whether a value is of a type of JSON Schema. Floats without a fraction must have become integers."""
    match value:
        case None:
            return name == "null"
        case bool():
            return name == "boolean"
        case int():
            return name in {"integer", "number"}
        case float():
            return name == "number"
        case str():
            return name == "string"
    return name == ("array" if isinstance(value, list) else "object")


def _kinds(schema: Schema) -> set[str]:
    return {"number" if name == "integer" else name for name in types(schema)}


def _values(schema: Schema) -> list[object] | None:
    """Return all the values that match, where they are listed."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return values if isinstance(values, list) else None


def _key(value: object) -> object:
    """Return something that is the same for the same JSON, and only for that: True is not 1."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else (type(value), value)
