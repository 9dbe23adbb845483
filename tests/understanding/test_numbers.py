"""Numbers in words and figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.understanding.numbers import NUMBER_WORDS, number_at


@pytest.mark.parametrize(
    ("said", "value", "length"),
    [
        ("20", 20, 1),
        ("1.5", 1.5, 1),
        ("0,5", 0.5, 1),
        ("1,000", 1000, 1),
        ("3/4", 0.75, 1),
        ("one", 1, 1),
        ("twenty five", 25, 2),
        ("one hundred and twenty meters", 120, 4),
        ("hundred", 100, 1),
        ("two thousand five", 2005, 3),
        ("one point five", 1.5, 3),
        ("point five", 0.5, 2),
        ("forty five point two five", 45.25, 5),
        ("- 20", -20, 2),
        ("minus forty five", -45, 3),
        ("negative ten degrees", -10, 2),
        ("one two three", 1, 1),
        ("twenty and a half", 20, 1),
    ],
)
def test_a_number_is_read(said: str, value: float, length: int) -> None:
    found = number_at(said.split(), 0)
    assert found is not None
    assert found[0] == pytest.approx(value)
    assert found[1] == length


@pytest.mark.parametrize("said", ["meters", "minus", "-", "point", "and", "a hundred", "9" * 40, "1/0", "٣"])
def test_what_is_no_number_is_none(said: str) -> None:
    assert number_at(said.split(), 0) is None


@given(st.lists(st.sampled_from([*sorted(NUMBER_WORDS), "and", "point", "minus", "-", "a", "7", "1,5"]), min_size=1))
def test_any_words_give_a_finite_number_or_none(words: list[str]) -> None:
    found = number_at(words, 0)
    assert found is None or (abs(found[0]) <= 1e9 and 1 <= found[1] <= len(words))
