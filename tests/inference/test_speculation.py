"""Guesses: where they come from, and when they stop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.inference.prefix_cache import as_tokens
from naila.inference.speculation import PromptLookup, StepCost


def test_what_followed_before_is_guessed() -> None:
    assert list(PromptLookup(None).guess(as_tokens([1, 2, 3, 4, 5, 9, 1, 2, 3]), 3)) == [4, 5, 9]


def test_the_latest_place_counts() -> None:
    assert list(PromptLookup(None).guess(as_tokens([1, 2, 3, 4, 1, 2, 3, 7, 1, 2, 3]), 1)) == [7]


def test_nothing_is_guessed_where_nothing_is_known() -> None:
    assert list(PromptLookup(None).guess(as_tokens(range(50)), 5)) == []


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(-1, 8))
def test_a_guess_always_stood_behind_the_same_words(tokens: list[int], room: int) -> None:
    guess = list(PromptLookup(None).guess(as_tokens(tokens), room))
    assert len(guess) <= max(room, 0)
    if guess:
        wanted = [*tokens[-3:], *guess]
        assert any(tokens[i : i + len(wanted)] == wanted for i in range(len(tokens) - 3))


def test_guesses_stop_where_they_cost_more_than_they_bring() -> None:
    cost = StepCost()
    cost.learn(1, 0.010)
    cost.learn(63, 0.010 + 62 * 0.004)
    assert cost.row == pytest.approx(0.4)
    lookup = PromptLookup(cost)
    tokens = as_tokens([1, 2, 3, 4, 5, 1, 2, 3])
    for _ in range(8):
        assert len(lookup.guess(tokens, 2)) == 2
        lookup.learn(2, 0)
    assert list(lookup.guess(tokens, 2)) == []


def test_no_guess_is_made_where_a_row_costs_a_step() -> None:
    assert list(PromptLookup(StepCost()).guess(as_tokens([1, 2, 3, 4, 1, 2, 3]), 2)) == []


def test_a_step_with_reading_stays_short() -> None:
    cost = StepCost()
    assert cost.affordable(63) == 32
    cost.learn(1, 0.006)
    cost.learn(63, 0.006 + 62 * 0.005)
    assert cost.affordable(63) == 22
    slow = StepCost()
    slow.learn(1, 0.222)
    slow.learn(63, 0.222 + 62 * 0.043)
    assert slow.affordable(63) == 8
