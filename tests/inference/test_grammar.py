"""JSON Schema to grammar: what is bound is bound exactly, and what cannot be bound is refused by name.

The grammars are asked by llama.cpp itself, over the real vocabulary of SmolLM2; noise stands in for the model, since
it says what no model would.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from naila.errors import GenerationError, UnsupportedSchemaError
from naila.inference import grammar
from naila.inference.grammar import gbnf
from naila.inference.sampling import Grammar
from naila.inference.tokens import Vocabulary
from support.vocabularies import vocabulary_of

pytestmark = pytest.mark.model

Schema = dict[str, Any]
slow = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ANSWER: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "An action",
    "type": "object",
    "properties": {
        "action": {"enum": ["drive", "turn", "stop"], "description": "what to do"},
        "angle": {"type": "integer", "minimum": -180, "maximum": 180, "default": 0},
        "speed": {"type": "number", "minimum": 0, "maximum": 1.5},
        "say": {"type": ["string", "null"], "maxLength": 12},
        "path": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            "maxItems": 3,
        },
        "sure": {"type": "boolean"},
    },
    "required": ["action", "speed", "sure"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def vocabulary(model_path: Path) -> Vocabulary:
    return vocabulary_of(model_path)


def end_of(vocabulary: Vocabulary) -> int:
    return next(token for token in vocabulary.special.values() if vocabulary.is_end(token))


def matches(vocabulary: Vocabulary, schema: Schema, text: str) -> bool:
    """Tell whether the grammar lets a text be written, from beginning to end."""
    bound = Grammar(gbnf(schema), vocabulary)
    for token in [*vocabulary.encode_text(text), end_of(vocabulary)]:
        if not bound.allows(token):
            return False
        bound.accept(token)
    return True


def likeliest(candidates: npt.NDArray[Any]) -> int:
    return int(candidates["id"][candidates["logit"].argmax()])


def noise(vocabulary: Vocabulary, schema: Schema, seed: int, most: int = 400) -> str | None:
    """Write what the grammar allows, whatever chance says; None where it does not come to an end."""
    bound = Grammar(gbnf(schema), vocabulary)
    chance = np.random.default_rng(seed)
    written = b""
    for _ in range(most):
        token = bound.choose(chance.normal(size=vocabulary.size).astype(np.float32), likeliest)
        bound.accept(token)
        if vocabulary.is_end(token):
            return written.decode()
        written += vocabulary.decode(token)
    return None


def assert_valid(schema: Mapping[str, Any], text: str) -> None:
    value = json.loads(text)
    Draft202012Validator(schema).validate(value)


names = st.text('ab"\\ é\n😀{', max_size=3)
literals = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.floats(-9, 9), names)
bounds = st.one_of(st.integers(-1500, 1500), st.decimals(-20, 20, places=3).map(float))


@st.composite
def numbers(draw: st.DrawFn) -> Schema:
    low, high = sorted([draw(bounds), draw(bounds)])
    low_word = draw(st.sampled_from(["minimum", "exclusiveMinimum", None]))
    high_word = draw(st.sampled_from(["maximum", "exclusiveMaximum", None]))
    schema: Schema = {"type": draw(st.sampled_from(["integer", "number"]))}
    if low_word:
        schema[low_word] = low
    if high_word:
        schema[high_word] = high
    return schema


@st.composite
def counted(draw: st.DrawFn, word: str, most: int) -> Schema:
    least, most = sorted([draw(st.integers(0, most)), draw(st.integers(0, most))])
    return {f"min{word}": least, f"max{word}": most}


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[Schema]) -> Schema:
    properties = draw(st.dictionaries(names, values, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    return {"type": "object", "properties": properties, "required": required}


leaves = st.one_of(
    st.sampled_from([{"type": "null"}, {"type": "boolean"}, {"type": ["boolean", "null"]}]),
    numbers(),
    st.builds(lambda counts: {"type": "string", **counts}, counted("Length", 6)),
    st.builds(lambda counts: {"type": ["string", "null"], **counts}, counted("Length", 6)),
    st.builds(lambda values: {"enum": values}, st.lists(literals, min_size=1, max_size=4)),
    st.builds(lambda value: {"const": value}, st.lists(literals, max_size=2)),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        objects(inner),
        st.builds(lambda items, counts: {"type": "array", "items": items, **counts}, inner, counted("Items", 3)),
        st.builds(lambda each: {"anyOf": each}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda each: {"oneOf": each}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=5,
)


@slow
@given(schemas, st.integers(0, 2**32))
def test_whatever_is_written_within_a_grammar_is_valid(model_path: Path, schema: Schema, seed: int) -> None:
    try:
        gbnf(schema)
    except UnsupportedSchemaError as exc:
        event = str(exc)
        assume("match both" not in event and "within the bounds" not in event)
        raise
    text = noise(vocabulary_of(model_path), schema, seed)
    assert text is not None
    assert_valid(schema, text)


@slow
@given(
    numbers(), st.one_of(st.integers(-1600, 1600), st.decimals(-21, 21, places=3).map(lambda value: float(value) + 0.0))
)
def test_a_number_can_be_written_where_it_lies_within_the_bounds(
    model_path: Path, schema: Schema, value: float
) -> None:
    schema["minimum"] = schema.get("minimum", -1600)
    can_be_written = False
    with contextlib.suppress(UnsupportedSchemaError):  # where no number lies within the bounds
        can_be_written = matches(vocabulary_of(model_path), schema, json.dumps(value))
    is_written_as_integer = schema["type"] == "number" or isinstance(value, int)
    assert can_be_written == (is_written_as_integer and Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize("seed", range(8))
def test_an_action_is_always_valid(vocabulary: Vocabulary, seed: int) -> None:
    text = noise(vocabulary, ANSWER, seed)
    assert text is not None
    assert_valid(ANSWER, text)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (ANSWER, '{"action": "turn", "angle": -90, "speed": 0.25, "sure": true}'),
        (ANSWER, '{"action":"stop","speed":0,"say":null,"path":[[1,2], [3, 4]],"sure":false}'),
        ({"type": "string"}, '"a \\"quoted\\" \\n \\u00e9 \\ud83d\\ude00 é 😀"'),
        ({"type": "string", "maxLength": 2}, '"é😀"'),
        ({"type": "number"}, "-12.5e-3"),
        ({"type": "integer"}, "-9007199254740991"),
        ({"type": "array", "items": {"type": "null"}}, "[]"),
        ({"type": "object", "properties": {}}, "{}"),
        ({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}}, '{"b": 2}'),
        ({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["b"]}, '{"b": 2}'),
        ({"const": {"a": ["\n", 'x"\\', 1.5]}}, '{"a":["\\n","x\\"\\\\",1.5]}'),
        ({"enum": ["<|im_end|>"]}, '"<|im_end|>"'),
        ({"oneOf": [{"type": "integer"}, {"enum": ["max"]}]}, '"max"'),
    ],
)
def test_it_can_be_written(vocabulary: Vocabulary, schema: Schema, text: str) -> None:
    assert matches(vocabulary, schema, text)
    assert_valid(schema, text)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (ANSWER, '{"action": "fly", "speed": 1, "sure": true}'),
        (ANSWER, '{"action": "stop", "speed": 1.6, "sure": true}'),
        (ANSWER, '{"action": "stop", "sure": true}'),
        (ANSWER, '{"action": "stop", "speed": 1, "sure": true, "and": 1}'),
        (ANSWER, '{"action": "stop", "speed": 1, "sure": true,}'),
        (ANSWER, '{"action": "stop", "speed": 1, "sure": true'),
        ({"type": "string"}, '"a\nb"'),
        ({"type": "string"}, '"\\ud83d"'),
        ({"type": "string"}, '"\\x"'),
        ({"type": "string", "maxLength": 2}, '"abc"'),
        ({"type": "string", "minLength": 2}, '"a"'),
        ({"type": "integer"}, "1.0"),
        ({"type": "integer"}, "01"),
        ({"type": "integer"}, "9007199254740992"),
        ({"type": "integer", "exclusiveMinimum": 3}, "3"),
        ({"type": "number"}, "1e999"),
        ({"type": "number"}, "NaN"),
        ({"type": "null"}, "null\n"),
        ({"type": "array", "items": {"type": "null"}, "minItems": 1}, "[]"),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, "[null]"),
    ],
)
def test_it_cannot_be_written(vocabulary: Vocabulary, schema: Schema, text: str) -> None:
    assert not matches(vocabulary, schema, text)


def test_a_control_token_is_no_way_to_write_its_spelling(vocabulary: Vocabulary) -> None:
    bound = Grammar(gbnf({"type": "string"}), vocabulary)
    bound.accept(vocabulary.encode_text('"')[0])
    assert vocabulary.silent
    assert not any(map(bound.allows, vocabulary.silent))
    logits = np.zeros(vocabulary.size, np.float32)
    logits[sorted(vocabulary.silent)] = 9
    assert bound.choose(logits, likeliest) not in vocabulary.silent


def test_bytes_that_are_no_text_are_not_written(vocabulary: Vocabulary) -> None:
    byte = {vocabulary.decode(token): token for token in range(vocabulary.size)}
    bound = Grammar(gbnf({"type": "string"}), vocabulary)
    bound.accept(byte[b'"'])
    bound.accept(byte[b"\xe0"])
    # An overlong quotation mark, which llama.cpp would take for one.
    assert not bound.allows(byte[b"\x80"])
    assert not bound.allows(byte[b'"'])
    logits = np.zeros(vocabulary.size, np.float32)
    logits[[byte[b"\x80"], byte[b"\x81"]]] = 9
    token = bound.choose(logits, likeliest)
    assert vocabulary.decode(token)[0] >= 0xA0
    assert not bound.allows(next(t for t in vocabulary.special.values() if vocabulary.is_end(t)))


def string(**more: object) -> Schema:
    return {"type": "string", **more}


@pytest.mark.parametrize(
    ("schema", "keyword", "path"),
    [
        (string(pattern="^a+$"), "pattern", "#"),
        (string(format="date"), "format", "#"),
        ({"$ref": "#/$defs/a"}, "$ref", "#"),
        ({"type": "object", "properties": {"a": string(pattern="a")}}, "pattern", "#/properties/a"),
        ({"type": "array", "items": {"anyOf": [string(), {"not": {}}]}}, "not", "#/items/anyOf/1"),
        ({"type": "array", "items": string(), "uniqueItems": True}, "uniqueItems", "#"),
        ({"type": "array"}, "items", "#"),
        ({"type": "array", "items": string(), "minItems": 3, "maxItems": 2}, "minItems", "#"),
        ({"type": "object"}, "properties", "#"),
        ({"type": "object", "properties": {}, "additionalProperties": True}, "additionalProperties", "#"),
        ({"type": "object", "properties": {}, "additionalProperties": {}}, "additionalProperties", "#"),
        ({"type": "object", "properties": {}, "patternProperties": {}}, "patternProperties", "#"),
        ({"type": "object", "properties": {}, "required": ["a"]}, "required", "#"),
        ({"type": "object", "properties": {}, "required": "a"}, "required", "#"),
        ({"type": "object", "properties": []}, "properties", "#"),
        ({"type": "object", "properties": {"a": True}}, None, "#/properties/a"),
        ({"type": "number", "multipleOf": 2}, "multipleOf", "#"),
        ({"type": "number", "minimum": "1"}, "minimum", "#"),
        ({"type": "number", "minimum": True}, "minimum", "#"),
        ({"type": "integer", "minimum": 0.1, "maximum": 0.9}, None, "#"),
        ({"type": "integer", "minimum": 2**60}, None, "#"),
        ({"type": "integer", "maxLength": 2}, "maxLength", "#"),
        ({"anyOf": [string()], "maxLength": 2}, "maxLength", "#"),
        ({"anyOf": []}, "anyOf", "#/anyOf"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf", "#/oneOf"),
        ({"oneOf": [{"enum": ["a", "b"]}, {"const": "b"}]}, "oneOf", "#/oneOf"),
        ({"enum": []}, "enum", "#"),
        ({"enum": [1], "const": 1}, "const", "#"),
        ({"type": "string", "enum": ["a", 1]}, "enum", "#"),
        ({"type": "string", "const": None}, "const", "#"),
        (string(minLength=-1), "minLength", "#"),
        (string(maxLength=1025), "maxLength", "#"),
        (string(maxLength="2"), "maxLength", "#"),
        ({"type": "text"}, "type", "#"),
        ({"type": []}, "type", "#"),
        ({"type": [1]}, "type", "#"),
        ({"type": ["string", ["null"]]}, "type", "#"),
        ({"description": "anything"}, "type", "#"),
        ({}, "type", "#"),
    ],
)
def test_what_cannot_be_bound_is_refused_by_name(schema: Schema, keyword: str | None, path: str) -> None:
    with pytest.raises(UnsupportedSchemaError) as caught:
        gbnf(schema)
    assert (caught.value.keyword, caught.value.path) == (keyword, path)
    assert path in str(caught.value)
    assert keyword is None or keyword in str(caught.value)
    assert isinstance(caught.value, GenerationError)


def nested(depth: int) -> Schema:
    return {"type": "array", "items": nested(depth - 1)} if depth else string()


def deep_list(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


ranges = {f"p{i}": {"type": "number", "minimum": -i - 0.25, "maximum": i + 0.5} for i in range(200)}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (string(description="x" * 20_000), r"20\d\d\d bytes, and 16384 are the limit"),
        (nested(16), "deeper than 16"),
        ({"type": "object", "properties": ranges}, r"grammar has \d+ bytes, and 131072"),
        ({"anyOf": [string(maxLength=1000, title=str(i)) for i in range(5)]}, "more than 4096"),
        ({"oneOf": [{"const": i} for i in range(100)]}, "more than 4096 comparisons"),
        ({"const": float("nan")}, "no JSON"),
        ({"const": b"bytes"}, "no JSON"),
        ({"const": "\ud800"}, "no JSON"),
        ({"const": 10**5000}, "no JSON"),
        ({"const": deep_list(100_000)}, "no JSON"),
    ],
)
def test_each_bound_is_named(schema: Schema, message: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=message):
        gbnf(schema)


@pytest.mark.parametrize("depth", range(100, 1001, 20))
def test_a_value_of_any_depth_is_taken_or_refused(depth: int) -> None:
    with contextlib.suppress(UnsupportedSchemaError):
        assert "[" * depth in gbnf({"const": deep_list(depth)})


def test_the_largest_that_is_let_through_is_taken_by_llama_cpp(vocabulary: Vocabulary) -> None:
    assert matches(vocabulary, nested(15), "[" * 15 + '"x"' + "]" * 15)
    assert matches(vocabulary, {"type": "array", "items": string(maxLength=1024), "minItems": 1024}, "[" + "]") is False
    many = {"type": "array", "items": {"type": "boolean"}, "minItems": 1024, "maxItems": 1024}
    assert matches(vocabulary, many, json.dumps([True] * 1024))
    assert not matches(vocabulary, many, json.dumps([True] * 1023))
    names = {f"p{i}": {"type": "null"} for i in range(600)}
    assert matches(vocabulary, {"type": "object", "properties": names}, '{"p599": null}')


def test_a_schema_met_before_is_remembered_and_the_order_of_properties_counts() -> None:
    one: Schema = {"type": "object", "properties": {"a": string(), "b": string()}}
    other: Schema = {"type": "object", "properties": {"b": string(), "a": string()}}
    assert gbnf(one) is gbnf(json.loads(json.dumps(one)))
    assert gbnf(one) != gbnf(other)
    assert grammar._gbnf.cache_info().hits > 0


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "null"}, {"type": ["integer", "string"]}]},
        {"oneOf": [{"enum": [1, 2]}, {"enum": [3]}, {"type": "string"}]},
        {"oneOf": [{"anyOf": [{"const": 1}, {"const": "1"}]}, {"const": True}]},
        {
            "oneOf": [
                {"type": "object", "properties": {"action": {"const": name}}, "required": ["action"]}
                for name in ("drive", "stop")
            ]
        },
    ],
)
def test_one_of_is_taken_where_no_two_alternatives_can_match(vocabulary: Vocabulary, schema: Schema) -> None:
    text = noise(vocabulary, schema, 1)
    assert text is not None
    assert_valid(schema, text)


def test_one_of_is_refused_where_the_difference_is_optional() -> None:
    alternatives: list[Any] = [
        {"type": "object", "properties": {"action": {"const": name}}} for name in ("drive", "stop")
    ]
    with pytest.raises(UnsupportedSchemaError, match="alternatives 0 and 1; `anyOf` allows that"):
        gbnf({"oneOf": alternatives})
