"""The assembly of an answer's text."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from naila.inference.text import TextAssembler


def assemble(chunks: list[bytes], stop: tuple[str, ...] = ()) -> tuple[str, bool]:
    assembler = TextAssembler(stop)
    text = "".join([*(assembler.feed(chunk) for chunk in chunks), assembler.finish()])
    return text, assembler.stopped


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(bounds)]


@given(st.text(), st.lists(st.integers(0, 1000)))
def test_any_split_of_the_bytes_gives_the_same_text(text: str, cuts: list[int]) -> None:
    assert assemble(split(text.encode(), cuts))[0] == text


@given(st.text(alphabet="abxy", max_size=30), st.text(alphabet="abxy", min_size=1, max_size=4), st.lists(st.integers()))
def test_nothing_of_a_stop_string_or_after_it_is_shown(text: str, stop: str, cuts: list[int]) -> None:
    shown, stopped = assemble(split(text.encode(), cuts), (stop,))
    assert stopped == (stop in text)
    assert shown == (text[: text.index(stop)] if stop in text else text)


def test_the_first_of_several_stop_strings_wins() -> None:
    assert assemble([b"one two three"], ("three", "two")) == ("one ", True)


def test_what_may_become_a_stop_string_is_held_back() -> None:
    assembler = TextAssembler(("<end>",))
    assert assembler.feed(b"hello <en") == "hello "
    assert assembler.feed(b"emy") == "<enemy"


def test_half_a_character_at_the_end_is_replaced() -> None:
    assert assemble([b"caf\xc3"]) == ("caf\ufffd", False)


def test_a_character_split_over_tokens_is_shown_once_it_is_whole() -> None:
    assembler = TextAssembler()
    assert [assembler.feed(bytes([byte])) for byte in "€".encode()] == ["", "", "€"]
