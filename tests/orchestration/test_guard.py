from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.orchestration.guard import HEADERS, TEMPLATE_PIECES, StreamGuard, cut_at_sentence, find_loop

TEXT = st.lists(
    st.sampled_from([*TEMPLATE_PIECES, *HEADERS, "Hello", " ", "\n", ". ", "<", "|", "[", "###", "x", "User:", "ha "])
    | st.text(max_size=5),
    max_size=40,
).map("".join)


def through(*pieces: str) -> str:
    guard = StreamGuard()
    said = "".join(guard.feed(piece) for piece in pieces) + guard.finish()
    assert said == guard.text
    return said


@given(TEXT, st.lists(st.integers(0, 400), max_size=20))
def test_how_it_is_cut_into_pieces_makes_no_difference(text: str, cuts: list[int]) -> None:
    bounds = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    assert through(*pieces) == through(text) == through(*text)


@given(TEXT)
def test_no_template_piece_comes_through(text: str) -> None:
    said = through(*text)
    assert not any(piece in f"\n{said}" for piece in TEMPLATE_PIECES)


@given(TEXT)
def test_what_comes_through_was_in_the_text_and_has_no_stray_blanks(text: str) -> None:
    said = through(text)
    assert said in text
    assert said == said.strip()


def test_no_template_piece_hides_inside_another() -> None:
    # Else which of two is found first would depend on how the text is cut.
    assert not any(a in b for a in TEMPLATE_PIECES for b in TEMPLATE_PIECES if a != b)


@pytest.mark.parametrize("piece", TEMPLATE_PIECES)
def test_the_answer_ends_at_a_template_piece(piece: str) -> None:
    guard = StreamGuard()
    assert guard.feed(f"Hello there. {piece} and more") == "Hello there."
    assert guard.ended


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_before_the_answer_is_taken_off(header: str) -> None:
    assert through(f"\n{header}\nHello.") == "Hello."


@pytest.mark.parametrize(
    "text", ["a < b", "I <3 you", "[in short] yes", "# Title\n## Part", "x |> y", "User: is a word"]
)
def test_what_only_looks_alike_comes_through(text: str) -> None:
    assert through(f"So: {text}") == f"So: {text}"


def test_only_what_may_become_a_template_piece_is_held_back() -> None:
    guard = StreamGuard()
    assert guard.feed("Hello <|im_") == "Hello"
    assert guard.feed("possible") == " <|im_possible"


@pytest.mark.parametrize("text", ["Fine.<|im_e", "Fine.<|", "Fine.[INS", "Fine.</"])
def test_half_a_template_piece_at_the_end_is_dropped(text: str) -> None:
    assert through(text).startswith("Fine.")
    assert "<|" not in through(text)


def test_a_repeated_sentence_ends_the_answer() -> None:
    guard = StreamGuard()
    guard.feed("Sure. " + "I'm a robot and I am here to help you. " * 9)
    assert guard.looped
    assert guard.once == "Sure. I'm a robot and I am here to help you."


def test_a_loop_is_noticed_before_it_is_long() -> None:
    assert len(through("I love it so much that " * 100)) < 130


@pytest.mark.parametrize(
    "text",
    [
        "ha ha ha ha ha ha ha ha",
        "No, no, no, no!",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28",
        "7 x 1 = 7\n7 x 2 = 14\n7 x 3 = 21\n7 x 4 = 28\n7 x 5 = 35\n7 x 6 = 42\n7 x 7 = 49\n7 x 8 = 56\n7 x 9 = 63",
        "- Take an egg.\n- Take some milk.\n- Take some flour.\n- Take a pan.\n- Take a fork.\n- Take a plate.",
        "Row, row, row your boat gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
    ],
)
def test_ordinary_repetition_is_left_alone(text: str) -> None:
    assert through(text) == text


def test_a_numbered_loop_is_a_loop() -> None:
    assert find_loop("".join(f"{n}. You can help me with that.\n" for n in range(1, 9))) is not None


def test_a_long_answer_costs_little() -> None:
    text = " ".join(f"word{n * 7919 % 1000}" for n in range(10_000))
    started = time.perf_counter()
    through(*(text[n : n + 4] for n in range(0, len(text), 4)))
    assert time.perf_counter() - started < 2  # 20,000 pieces: 0.1 ms each would already be too slow


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("One. Two and", "One."),
        ("One! Two? Three", "One! Two?"),
        ("no end in sight", "no end in sight"),
        ("It is 3.14 and", "It is 3.14 and"),
        ('He said "Go." And then', 'He said "Go."'),
        ("Yes. Ask Dr. Who", "Yes."),
        ("Do this:\n1. Open", "Do this:\n1. Open"),
        ("好。然后", "好。"),
        ("", ""),
    ],
)
def test_a_truncated_text_is_cut_at_its_last_whole_sentence(text: str, cut: str) -> None:
    assert cut_at_sentence(text) == cut
