"""Hypothesis against every target, and each input that ever broke one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, Fuzzed, clean_up
from support.often import HowOften

CASES = sorted((Path(__file__).parent / "cases").glob("*/*"))


@pytest.fixture(scope="module", autouse=True)
def _files() -> Iterator[None]:
    yield
    clean_up()


def run(target: Fuzzed, data: bytes) -> None:
    """Let a target take an input, in time. Seconds of the processor: the machine may be busy."""
    started = time.process_time()
    target.run(data)
    assert time.process_time() - started < 2 * target.seconds


def mutated(seed: bytes) -> st.SearchStrategy[bytes]:
    """Return the seed with pieces taken out and others put in."""
    cuts = st.tuples(st.integers(0, len(seed)), st.integers(0, 40), st.binary(max_size=40) | st.sampled_from(NASTY))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        data = seed
        for at, gone, new in changes:
            data = data[:at] + new + data[at + gone :]
        return data

    return st.lists(cuts, min_size=1, max_size=4).map(apply)


NASTY = [
    *(b"[" * 2000, b'{"a":' * 2000, b"9" * 5000, b"1e999", b"-0.0", b"NaN", b"\\ud800", b"\xed\xa0\x80", b"\xff"),
    *(
        b"\x00",
        b"\xe2\x80\xae",
        b"2001-99-99",
        b"&a [*a]",
        b"!!python/name:x ",
        b"{{",
        b"%s{0}",
        b"a" * 3000,
        b"? [a]\n: b\n",
    ),
    *(b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\r\n\r\n", b"\xf0\x9f\xa4\x96"),
]


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_taken(name: str, how_often: HowOften) -> None:
    target = TARGETS[name]
    anything = st.binary(max_size=400) | st.one_of(*map(mutated, target.seeds or [b""]))

    @settings(
        # A few of those that take long: reading the lexicon takes half a second.
        max_examples=how_often(max(3, round(40 / max(1.0, target.seconds**2))), 5000),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(anything)
    def holds(data: bytes) -> None:
        run(target, data[: target.max_bytes])

    holds()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_sound_is_taken(name: str) -> None:
    for seed in TARGETS[name].seeds:
        run(TARGETS[name], seed)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_what_broke_it_once_does_not_again(case: Path) -> None:
    run(TARGETS[case.parent.name], case.read_bytes())


def test_every_case_has_its_target() -> None:
    assert {case.parent.name for case in CASES} <= TARGETS.keys()
