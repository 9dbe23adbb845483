"""What measured speeds mean: advice on figures that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from naila.inference.speed import Figures, KeptKv, ThreadSpeed
from naila.ports import EnginePlan, ModelHeader
from naila.server.advice import Advice, Talk, advise, carried, rate

HEADER = ModelHeader(
    path=Path("m.gguf"),
    name="m",
    architecture="llama",
    file_bytes=5 * 10**9,
    n_layers=32,
    n_ctx_train=131_072,
    n_embd=4096,
    n_heads=32,
    n_kv_heads=8,
    head_dim_k=128,
    head_dim_v=128,
    n_vocab=128_256,
)
PLAN = EnginePlan(
    n_threads=3,
    n_threads_batch=4,
    n_gpu_layers=0,
    n_ctx=4096,
    n_cells=32_768,
    n_sequences=48,
    n_batch=63,
    use_mmap=True,
    acceleration="cpu",
    needed_bytes=6 * 10**9,
    available_bytes=8 * 10**9,
    reasons={},
)
FIGURES = Figures(
    load_s=1.0,
    reading={16: 90.0, 32: 100.0, 63: 100.0},
    threads=(ThreadSpeed(1, 30, 6), ThreadSpeed(2, 60, 10), ThreadSpeed(3, 80, 12), ThreadSpeed(4, 100, 12)),
    prefix_tokens=200,
    own_tokens=60,
    new_tokens=25,
    together={1: 12.0, 2: 20.0, 4: 30.0, 8: 40.0},
    turn_ms=300.0,
    busy_turn_ms=900.0,
    burst_ms=(1500.0, 3100.0),
    abort_ms=50.0,
    kept=KeptKv(260, 34_000_000, 60.0, 4.0),
    cut=(),
)


def found(about: str, figures: Figures = FIGURES, plan: EnginePlan = PLAN, robots: int = 8) -> list[Advice]:
    return [advice for advice in advise(figures, plan, HEADER, Talk(), robots) if advice.about == about]


def test_threads_that_are_as_good_as_any_stay() -> None:
    (advice,) = found("LLM_THREADS")
    assert (advice.value, advice.is_change) == ("as it is", False)
    assert advice.why.startswith("3, 4 to read: ")


def test_threads_that_are_clearly_faster_are_advised() -> None:
    crowded = replace(FIGURES, threads=(ThreadSpeed(1, 80, 14), ThreadSpeed(3, 60, 5), ThreadSpeed(4, 60, 4)))
    (advice,) = found("LLM_THREADS", crowded)
    assert (advice.value, advice.is_change) == ("1", True)
    assert "a turn takes 3.2 s instead of 8.4" in advice.why


def test_threads_that_were_not_among_those_compared_are_not_defended() -> None:
    (advice,) = found("LLM_THREADS", plan=replace(PLAN, n_threads=64, n_threads_batch=64))
    assert (advice.value, advice.is_change) == ("4", True)


def test_a_gpu_needs_no_advice_on_threads() -> None:
    assert found("LLM_THREADS", replace(FIGURES, threads=())) == []


def test_a_step_that_holds_the_others_up_is_made_shorter() -> None:
    (advice,) = found("LLM_BATCH_SIZE")
    assert (advice.value, advice.is_change) == ("32", True)
    assert "waits 0.63 s at most, with 32 0.32 s" in advice.why


@pytest.mark.parametrize(
    "reading",
    [
        pytest.param({16: 190.0, 63: 200.0}, id="short enough"),
        pytest.param({16: 40.0, 63: 100.0}, id="shorter is slower"),
        pytest.param({4: 99.0, 63: 100.0}, id="shorter than there are robots"),
    ],
)
def test_a_step_stays_as_it_is(reading: dict[int, float]) -> None:
    (advice,) = found("LLM_BATCH_SIZE", replace(FIGURES, reading=reading))
    assert not advice.is_change


def test_cells_for_all_conversations_are_advised_where_memory_allows() -> None:
    plan = replace(PLAN, n_cells=4096)
    (advice,) = found("LLM_KV_CELLS", plan=plan)
    assert (advice.value, advice.is_change) == ("5632", True)  # 200, and 8 times 10 turns of 65, in steps of 256
    assert "201 MB more" in advice.why
    (halved,) = found("LLM_KV_CELLS", plan=replace(plan, kv_type="q8_0"))
    assert "107 MB more" in halved.why
    (advice,) = found("LLM_KV_CELLS", plan=replace(plan, available_bytes=6_100_000_000))
    assert not advice.is_change
    assert "about 5 conversations" in advice.why
    assert "read back from disk in 4 ms" in advice.why


def test_enough_cells_stay() -> None:
    (advice,) = found("LLM_KV_CELLS")
    assert advice.why == "32768 cells keep about 50 conversations of 10 turns in memory"


def test_robots_are_carried_by_what_is_written_together() -> None:
    # A turn of 25 / 100 + 40 / 40 = 1.25 s; 21 s of 30 may be busy.
    assert carried(FIGURES, Talk()) == 16
    # As long as there are few, they write as fast as so few together: 25 / 100 + 40 / 5 s, then 40 / 6.
    assert carried(replace(FIGURES, together={1: 5.0, 2: 6.0, 8: 40.0}), Talk()) == 3
    assert carried(replace(FIGURES, together={1: 1.0}), Talk()) == 0


def test_too_many_robots_are_told_so() -> None:
    assert found("robots")[0].why.endswith("more than 8 is extrapolated")
    (advice,) = found("robots", robots=20)
    assert advice.value == "about 16"
    assert "20 need a smaller model" in advice.why
    assert found("robots", replace(FIGURES, together={1: 1.0}))[0].value == "not one"


def test_first_words_are_put_in_words() -> None:
    assert [advice.value for advice in found("first word")] == ["under 1 s", "under 1 s", "over 3 s"]
    computed = found("first word", replace(FIGURES, burst_ms=None))[-1]
    assert (computed.value, computed.why) == (
        "under 3 s",
        "2.0 s: the last of 8 that ask at the same moment (computed)",
    )
    alone = found("first word", replace(FIGURES, burst_ms=None, busy_turn_ms=None), robots=1)
    assert [advice.why for advice in alone] == ["300 ms: one robot asks and nobody else is there"]


def test_the_answer_is_compared_with_speech() -> None:
    (advice,) = found("whole answer")
    assert advice.value == "faster than speech"
    assert "takes 3.3 s, 8 s when 8 are written together: 5 tokens/s each" in advice.why
    (advice,) = found("whole answer", replace(FIGURES, together={1: 3.0}))
    assert (advice.value, advice.why) == (
        "slower than speech",
        "an answer of 40 tokens takes 13 s: 3 tokens/s each, speech has about 4",
    )


def test_speeds_have_as_many_digits_as_they_deserve() -> None:
    assert [rate(speed) for speed in (0.1234, 9.876, 99.9, 123.4, 49_436.6)] == [
        "0.123",
        "9.88",
        "99.9",
        "123",
        "49,437",
    ]
