import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.errors import ContractError
from naila.mqtt import wire

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refusal(text: str) -> str:
    with pytest.raises(ContractError) as caught:
        wire.loads(text)
    assert caught.value.code == "bad_payload"
    return str(caught.value)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_objects_survive_the_wire(value: dict[str, object]) -> None:
    assert wire.loads(wire.decode_text(wire.dumps(value), max_bytes=10**9)) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ('{"a": 1} x', "Extra data at line 1 column 10"),
        ("{'a': 1}", "line 1 column 2"),
        ("", "not valid JSON"),
        ("[1]", "must be a JSON object, got an array"),
        ('"x"', "got a string"),
        ("5", "got a number"),
        ("null", "got null"),
        ("true", "got a boolean"),
        ("NaN", "NaN is not a finite number"),
        ('{"a": {"b": [1, NaN]}}', "a.b[1]: NaN"),
        ('{"a": -Infinity}', "a: -Infinity"),
        ('{"a": 1e999}', "a: the number 1e999 is not finite"),
        ('{"a": 1, "a": 2}', "a: the key stands there twice"),
        ('{"o": {"k": 1, "k": 2}}', "o.k: the key"),
        ('{"a": "\\ud800"}', "a: holds half a surrogate pair"),
        ('{"\\udfff": 1}', "a key holds half a surrogate pair"),
        ('{"a": 9223372036854775808}', "a: the integer 9223372036854775808 does not fit in 64 bits"),
        ('{"a": ' + "9" * 5000 + "}", "5000 characters"),
        ('{"a": "tab\there"}', "not valid JSON"),
        ('{"line\\nbreak": NaN}', "line\\nbreak: NaN"),
        ('{"' + "k" * 5000 + '": NaN}', "kk… (5000 characters): NaN"),
    ],
)
def test_what_json_lets_through_is_refused_with_its_place(text: str, says: str) -> None:
    assert says in refusal(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a": ' + "[" * 32 + "]" * 32 + "}"])
def test_nesting_is_bounded(text: str) -> None:
    assert "nested deeper than 32 levels" in refusal(text)


def test_depth_32_is_allowed_and_brackets_in_strings_are_text() -> None:
    deep = '{"a": ' + "[" * 31 + "]" * 31 + "}"
    assert wire.loads(deep)
    assert wire.loads(json.dumps({"text": '"' + "[{" * 1000 + "\\"})) == {"text": '"' + "[{" * 1000 + "\\"}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("text", ['{"' + '\\"' * 200_000 + "\\", '"' * 200_001, '{"a":"' + "\\" * 200_001])
def test_strings_that_never_end_cost_no_time(text: str) -> None:
    refusal(text)


@pytest.mark.parametrize("text", ['{"a": [' + "[], " * 20_000 + "[]]}", '{"a": [' + "{}, " * 15_000 + "{}]}"])
def test_a_hostile_object_is_read_in_little_time(text: str) -> None:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        wire.loads(text)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.025


@given(st.text() | st.text(alphabet='{}[]",:\\u0123456789eE+-.ntfNaIity ', max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        value = wire.loads(text)
    except ContractError as error:
        assert error.code == "bad_payload"  # noqa: PT017 - raising is one of two right outcomes
    else:
        assert isinstance(value, dict)


def test_size_is_counted_in_bytes() -> None:
    assert wire.decode_text("é".encode(), max_bytes=2) == "é"
    with pytest.raises(ContractError, match="has 2 bytes, the limit is 1") as caught:
        wire.decode_text("é".encode(), max_bytes=1)
    assert caught.value.code == "too_large"


def test_what_is_not_utf8_is_refused_and_a_byte_order_mark_is_dropped() -> None:
    with pytest.raises(ContractError, match="not UTF-8 \\(byte 1\\)"):
        wire.decode_text(b"a\xff", max_bytes=10)
    assert wire.decode_text(b"\xef\xbb\xbf{}", max_bytes=10) == "{}"


def test_only_finite_numbers_are_written() -> None:
    assert wire.dumps({"a": "é", "b": [1]}) == '{"a":"é","b":[1]}'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        wire.dumps({"a": math.nan})
