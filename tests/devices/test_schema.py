"""What devices may declare of their arguments, and arguments against it."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from naila.devices.schema import Violation, allowed_words, check_parameters, violations
from naila.errors import ContractError

PATH = "capabilities: actions[2].parameters"
DRIVE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "distance": {"type": "number", "minimum": 0.05, "maximum": 3, "unit": "m"},
        "direction": {"type": "string", "enum": ["forward", "backward"], "default": "forward"},
        "times": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["distance"],
}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
PIECES = st.sampled_from(
    [
        ("type", "number"), ("type", "integer"), ("type", "string"), ("type", "boolean"), ("type", ["number", "null"]),
        ("minimum", 1), ("maximum", 3), ("exclusiveMaximum", 2.5), ("multipleOf", 0.5), ("enum", ["a", 2]),
        ("const", 1), ("maxLength", 3), ("default", 2), ("unit", "m"), ("anyOf", [{"type": "null"}, {"const": 2}]),
    ]
)  # fmt: skip


def one(schema: dict[str, Any], **arguments: object) -> Violation:
    (found,) = violations(schema, arguments)  # type: ignore[arg-type]
    return found


def with_property(schema: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}}


def test_arguments_that_fit_are_fine() -> None:
    schema = check_parameters(DRIVE, PATH)
    assert violations(schema, {"distance": 0.05, "direction": "backward", "times": 3.0}) == ()


def test_a_checked_schema_is_closed() -> None:
    assert check_parameters(DRIVE, PATH)["additionalProperties"] is False


def test_a_number_outside_its_range_is_told_with_units() -> None:
    assert one(DRIVE, distance=10) == Violation(
        argument="distance",
        code="out_of_range",
        asked="10 m",
        allowed="0.05 to 3 m",
        message="distance must be 0.05 to 3 m, not 10 m",
    )


def test_a_word_that_is_not_among_the_allowed_is_out_of_range() -> None:
    found = one(DRIVE, distance=1, direction="sideways")
    assert (found.code, found.asked, found.allowed) == ("out_of_range", "sideways", "forward or backward")


@pytest.mark.parametrize("value", [True, "1", None, [1], {"m": 1}, math.nan, math.inf, b"1", 1j])
def test_what_is_no_number_is_a_bad_argument(value: object) -> None:
    found = one(DRIVE, distance=value)
    assert (found.argument, found.code) == ("distance", "bad_arguments")


@pytest.mark.parametrize("value", [1e300, -1e300, 10**30, 10**5000], ids=["float", "negative", "int", "long"])
def test_a_huge_number_is_out_of_range_even_where_nothing_limits_it(value: float) -> None:
    assert one(with_property({"type": "number"}), x=value).code == "out_of_range"


def test_half_a_time_is_no_whole_number() -> None:
    assert one(DRIVE, distance=1, times=2.5).message == "times must be a whole number, 1 to 5, not 2.5"


def test_a_missing_argument_is_named_with_what_it_must_be() -> None:
    assert one(DRIVE).message == "distance is missing: it must be 0.05 to 3 m"


def test_an_extra_key_is_refused_even_where_the_schema_forgot_to_say_so() -> None:
    found = one(check_parameters(DRIVE, PATH), distance=1, force=True)
    assert (found.argument, found.code, found.allowed) == ("force", "bad_arguments", "distance, direction and times")


def test_an_extra_key_inside_an_argument_is_refused() -> None:
    schema = with_property({"type": "array", "items": {"type": "object", "properties": {"y": {"type": "number"}}}})
    assert one(check_parameters(schema, PATH), x=[{"y": 1}, {"z": 1}]).argument == "x[1].z"


def test_a_multiple_is_meant_in_decimals() -> None:
    schema = with_property({"type": "number", "multipleOf": 0.1})
    assert violations(schema, {"x": 0.3}) == ()
    assert one(schema, x=0.35).code == "out_of_range"


def test_the_alternative_that_was_meant_is_told() -> None:
    schema = {
        "type": "object",
        "anyOf": [
            {
                "type": "object",
                "properties": {"name": {"const": name}, "value": value},
                "required": ["name", "value"],
            }
            for name, value in (
                ("speed", {"type": "number", "maximum": 1, "unit": "m/s"}),
                ("lit", {"type": "boolean"}),
            )
        ],
    }
    checked = check_parameters(schema, PATH)  # type: ignore[arg-type]
    assert violations(checked, {"name": "lit", "value": True}) == ()
    assert one(checked, name="speed", value=5).message == "value must be at most 1 m/s, not 5 m/s"
    assert one(checked, name="colour", value=5).message == "name must be speed or lit, not colour"
    assert one(checked, name="lit", value=True, now=1).argument == "now"


def test_an_argument_that_may_be_null_is_told_by_its_range() -> None:
    schema = with_property({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]})
    assert violations(schema, {"x": None}) == ()
    assert one(schema, x=2).code == "out_of_range"


def test_references_within_the_schema_are_written_out() -> None:
    schema = {**with_property({"$ref": "#/$defs/Side", "default": "left"}), "$defs": {"Side": {"enum": ["left"]}}}
    assert check_parameters(schema, PATH)["properties"] == {"x": {"enum": ["left"], "default": "left"}}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([], ": must be a JSON Schema object"),
        ({}, ": must say what it is, by type, enum, const, anyOf or oneOf"),
        ({"type": "string"}, ": must have type object"),
        ({"anyOf": [{"type": "object"}]}, ": must have type object"),
        ({"type": "object", "anyOf": [{"type": "string"}]}, ".anyOf[0]: must have type object"),
        ({"type": "object", "additionalProperties": True}, ".additionalProperties: must be false"),
        ({"type": "object", "required": ["x"]}, ".required: names x, which properties does not"),
        ({"type": "object", "minProperties": 1}, ".minProperties: is not supported"),
        ({"type": "object", "properties": {" x": {"type": "null"}}}, ".properties: has the name"),
        (with_property(True), ".properties.x: must be a JSON Schema object"),
        (with_property({}), ".properties.x: must say what it is"),
        (with_property({"type": "text"}), ".properties.x.type: must be null, boolean, integer"),
        (with_property({"type": "number", "maximun": 3}), ".properties.x.maximun: is not supported"),
        (with_property({"type": "string", "maximum": 3}), ".properties.x.maximum: means nothing beside type string"),
        (with_property({"type": "number", "maximum": "3"}), ".properties.x.maximum: must be a number"),
        (with_property({"type": "number", "maximum": math.nan}), ".properties.x.maximum: must be a number"),
        (with_property({"type": "number", "minimum": 4, "maximum": 3}), ".properties.x: allows nothing: 4 to 3"),
        (with_property({"type": "number", "minimum": 3, "exclusiveMaximum": 3}), ".properties.x: allows nothing"),
        (with_property({"type": "number", "multipleOf": 0}), ".properties.x.multipleOf: must be more than 0"),
        (with_property({"type": "string", "pattern": "(a+)+$"}), ".properties.x.pattern: is refused"),
        (with_property({"type": "string", "format": "date"}), ".properties.x.format: is not enforced"),
        (with_property({"type": "string", "minLength": 2, "maxLength": 1}), ".properties.x.minLength: is above"),
        (with_property({"enum": []}), ".properties.x.enum: must be an array of 1 to 256"),
        (with_property({"enum": [[1]]}), ".properties.x.enum: must hold strings"),
        (with_property({"type": "string", "enum": ["a", 1]}), ".properties.x.enum: holds 1, which is not of type"),
        (with_property({"enum": [1], "minimum": 0}), ".properties.x.minimum: means nothing beside enum"),
        (with_property({"enum": [1], "const": 1}), ".properties.x: has enum and const"),
        (with_property({"type": "array"}), ".properties.x.items: is missing"),
        (with_property({"type": "number", "maximum": 3, "default": 9}), ".properties.x.default: must be at most 3"),
        (with_property({"type": "number", "unit": 3}), ".properties.x.unit: must be a string"),
        (with_property({"type": "number", "unit": "m\n"}), ".properties.x.unit: must not hold control"),
        (with_property({"type": "number", "description": "\u202e"}), ".properties.x.description: must not hold"),
        (with_property({"$ref": "https://example.org/schema"}), ".properties.x.$ref: must be #/$defs/"),
        (with_property({"$ref": "#"}), ".properties.x.$ref: must be #/$defs/"),
        (with_property({"$dynamicRef": "#x"}), ".properties.x.$dynamicRef: is not supported"),
        ({**with_property({"$ref": "#/$defs/a"}), "$defs": {"a": {"$ref": "#/$defs/a"}}}, ".$defs.a.$ref: refers to a"),
        ({**with_property({"type": "null"}), "$schema": "http://json-schema.org/draft-04/schema#"}, ".$schema: must"),
        (with_property({"type": "string", "description": "x" * 17_000}), ": has 17"),
        ({"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(65)}}, ".properties: has 65"),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_refused_with_its_path(schema: Any, message: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_parameters(schema, PATH)
    assert caught.value.code == "bad_payload"
    assert str(caught.value).startswith(f"{PATH}{message}")


def test_a_schema_that_grows_by_references_is_refused() -> None:
    definitions = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 8} for n in range(7)}
    schema = {**with_property({"$ref": "#/$defs/d0"}), "$defs": {**definitions, "d7": {"type": "null"}}}
    with pytest.raises(ContractError, match="one schema too many"):
        check_parameters(schema, PATH)


def test_a_deep_schema_is_refused() -> None:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(3000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ContractError):
        check_parameters(with_property(schema), PATH)


@pytest.mark.parametrize("arguments", [{"x": ["y" * 4000] * 8}, {"x": "y" * 5000}, {"x": "\ud800"}, {"x": "\0"}])
def test_what_is_too_large_or_no_text_is_refused(arguments: dict[str, Any]) -> None:
    schema = with_property({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    assert one(schema, **arguments).code == "bad_arguments"


def test_arguments_without_an_end_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert one(with_property({"type": "array", "items": {"type": "null"}}), x=loop).code == "bad_arguments"


def test_a_schema_that_was_never_checked_reaches_nothing_outside() -> None:
    assert one(with_property({"$ref": "https://example.org/schema"}), x=1).code == "bad_arguments"


@given(JUNK)
def test_no_declaration_raises_anything_else(junk: Any) -> None:
    for schema in (junk, with_property(junk), {"type": "object", "properties": junk, "$defs": junk}):
        try:
            checked = check_parameters(schema, PATH)
        except ContractError:
            continue
        Draft202012Validator.check_schema(checked)


@given(st.lists(PIECES, min_size=1, max_size=4).map(dict), SCALARS)
def test_what_passes_is_valid_by_the_standard_too(pieces: dict[str, Any], value: Any) -> None:
    try:
        checked = check_parameters(with_property(pieces), PATH)
    except ContractError:
        return
    Draft202012Validator.check_schema(checked)
    if not violations(checked, {"x": value}):
        assert Draft202012Validator(checked).is_valid({"x": value})


@given(st.dictionaries(st.sampled_from(["distance", "direction", "times", "x"]) | st.text(max_size=3), JUNK))
def test_no_arguments_raise_and_what_passes_is_safe(arguments: dict[str, Any]) -> None:
    if violations(check_parameters(DRIVE, PATH), arguments):
        return
    assert arguments.keys() <= DRIVE["properties"].keys()
    assert 0.05 <= arguments["distance"] <= 3
    assert arguments.get("direction", "forward") in {"forward", "backward"}
    json.dumps(arguments, allow_nan=False)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "number", "minimum": 0.05, "maximum": 3.0, "unit": "m"}, "0.05 to 3 m"),
        ({"type": "integer", "minimum": 0, "maximum": 100, "unit": "%"}, "0 to 100%"),
        ({"type": "number", "minimum": 1}, "at least 1"),
        ({"type": "number", "maximum": 1}, "at most 1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "at most 1 and more than 0"),
        ({"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.1}, "0 to 1, in steps of 0.1"),
        ({"type": "number", "unit": "m"}, "a number in m"),
        ({"type": "integer"}, "a whole number"),
        ({"enum": ["dock", "door", "table", "window"]}, "dock, door, table or window"),
        ({"enum": list(range(100))}, f"{', '.join(map(str, range(23)))} or 77 more"),
        ({"const": True}, "true"),
        ({"type": "boolean"}, "true or false"),
        ({"type": "string", "maxLength": 9}, "text of at most 9 characters"),
        ({"type": ["string", "null"]}, "text or null"),
        ({"type": "array", "items": {"type": "boolean"}}, "a list of values, each true or false"),
        ({"anyOf": [{"type": "null"}, {"enum": ["a"]}]}, "null or a"),
        (None, "a value"),
    ],
)
def test_what_is_allowed_in_words(schema: Any, words: str) -> None:
    assert allowed_words(schema) == words


def test_words_are_one_short_line_whatever_a_device_wrote() -> None:
    for value in itertools.chain(map(chr, range(0x20)), ["\u202e", "\ud800", "x" * 1000]):
        found = one(DRIVE, distance=1, direction=f"a{value}b")
        assert found.message.isprintable()
        assert len(found.message) < 200
