"""Amounts with their units, as people say them."""

from __future__ import annotations

import pytest

from naila.config.lexicon import load_lexicon
from naila.understanding.quantities import Amount, Measures, Units
from naila.understanding.words import Vocabulary


@pytest.fixture(scope="module")
def units() -> Units:
    return Units(load_lexicon())


@pytest.fixture(scope="module")
def measures(units: Units) -> Measures:
    return Measures(load_lexicon(), units)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(load_lexicon())


def amounts(measures: Measures, vocabulary: Vocabulary, said: str) -> list[Amount]:
    return [token.amount for token in measures.tokens(vocabulary.words(said)) if token.amount]


@pytest.mark.parametrize(
    ("said", "value", "unit"),
    [
        ("two and a half meters", 2.5, "meter"),
        ("half a meter", 0.5, "meter"),
        ("half a metre", 0.5, "meter"),
        ("a half meter", 0.5, "meter"),
        ("a quarter turn", 0.25, "turn"),
        ("three quarters of a meter", 0.75, "meter"),
        ("a meter and a half", 1.5, "meter"),
        ("one and a half meters", 1.5, "meter"),
        ("1½ m", 1.5, "meter"),
        ("a couple of meters", 2, "meter"),
        ("0,5 m", 0.5, "meter"),
        ("50cm", 50, "centimeter"),
        ('20"', 20, "inch"),
        ("minus 45 degrees", -45, "degree"),
        ("-20°", -20, "degree"),
        ("a full turn", 1, "turn"),
        ("2 full turns", 2, "turn"),
        ("two feet six inches", 2.5, "foot"),
        ("1 hour 30 minutes", 1.5, "hour"),
        ("one meter and twenty centimeters", 1.2, "meter"),
        ("five foot and six inches", 5.5, "foot"),
        ("one minute and thirty seconds", 1.5, "minute"),
        ("20 cm/s", 20, "centimeter / second"),
        ("30 meters per second", 30, "meter / second"),
        ("every half second", 0.5, "second"),
        ("every second", 1, "second"),
        ("every 200 ms", 200, "millisecond"),
        ("50%", 50, "percent"),
        ("fifty per cent", 50, "percent"),
        ("21 degrees celsius", 21, "degree_Celsius"),
        ("70°F", 70, "degree_Fahrenheit"),
        ("an inch", 1, "inch"),
    ],
)
def test_an_amount_has_a_unit(measures: Measures, vocabulary: Vocabulary, said: str, value: float, unit: str) -> None:
    (amount,) = amounts(measures, vocabulary, said)
    assert amount.value == pytest.approx(value)
    assert amount.unit == unit


@pytest.mark.parametrize(
    ("said", "times"),
    [("once", 1), ("twice", 2), ("three times", 3), ("a dozen times", 12), ("half a dozen times", 6), ("5x", 5)],
)
def test_times_are_counted(measures: Measures, vocabulary: Vocabulary, said: str, times: int) -> None:
    (amount,) = amounts(measures, vocabulary, said)
    assert amount.counted
    assert amount.value == times


@pytest.mark.parametrize("said", ["a bit", "a little", "just a little bit", "slightly", "a tad"])
def test_a_bit_is_vague(measures: Measures, vocabulary: Vocabulary, said: str) -> None:
    assert amounts(measures, vocabulary, said)[-1].vague


@pytest.mark.parametrize("said", ["take a photo", "the second one is", "half brightness", "make a turn", "a lot"])
def test_what_measures_nothing_has_no_unit(measures: Measures, vocabulary: Vocabulary, said: str) -> None:
    assert all(amount.unit is None for amount in amounts(measures, vocabulary, said))


@pytest.mark.parametrize(
    ("value", "unit", "into", "converted"),
    [
        (20, "centimeter", "meter", 0.2),
        (1, "turn", "degree", 360),
        (3.6, "kilometer / hour", "meter / second", 1),
        (212, "degree_Fahrenheit", "degree_Celsius", 100),
        (1, "meter", "second", None),
    ],
)
def test_units_convert(units: Units, value: float, unit: str, into: str, converted: float | None) -> None:
    found = units.convert(value, unit, into)
    assert found is None if converted is None else found == pytest.approx(converted)


@pytest.mark.parametrize(
    ("declared", "unit"),
    [("m", "meter"), ("deg", "degree"), ("°C", "degree_Celsius"), ("%", "percent"), ("m/s", "meter / second")],
)
def test_declared_units_are_known(units: Units, declared: str, unit: str) -> None:
    assert units.declared(declared) == unit


@pytest.mark.parametrize("declared", ["9**9**9**9", "__import__", "m" * 1000, "", None, "wobble", "1e400", "\0"])
def test_a_hostile_unit_is_no_unit(units: Units, declared: str | None) -> None:
    assert units.declared(declared) is None
