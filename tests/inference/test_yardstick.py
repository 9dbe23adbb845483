"""Measuring, on a tiny model of random weights: what is counted is what was done."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from naila.errors import EngineFailedError, ModelLoadError
from naila.inference.engine import Engine
from naila.inference.job import EngineLimits
from naila.inference.model import Model
from naila.inference.sampling import Sampling
from naila.inference.shape import SHAPES
from naila.inference.shape_file import write_shape
from naila.inference.writers import Writers
from naila.inference.yardstick import Pace, Yardstick
from naila.ports import EnginePlan
from support.plans import small_plan

PACE = Pace(seconds=0.05, rounds=1)
PLAN = small_plan()
PROMPTS = {f"robot{number}/t": array("i", [number + 1] * 20) for number in range(3)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shapes") / "tiny.gguf"
    write_shape(SHAPES["tiny"], path)
    return path


@pytest.fixture
def engine(tiny: Path) -> Iterator[Engine]:
    model = Model(tiny, PLAN)
    engine = Engine(model, EngineLimits(running=8, speculation="off"))
    yield engine
    engine.close()
    model.close()


def measure(path: Path, folder: Path, plan: EnginePlan = PLAN, *, conversations: int = 4) -> dict[str, object]:
    said: list[str] = []
    with Yardstick(
        path, plan, PACE, conversations=conversations, new_tokens=25, sampling=Sampling(), say=said.append
    ) as yardstick:
        figures = yardstick.measure([1, 2], folder)
    assert said
    assert list(folder.iterdir()) == []
    return asdict(figures)


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict | tuple | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


def test_everything_is_measured(tiny: Path, tmp_path: Path) -> None:
    figures = measure(tiny, tmp_path)
    assert figures["cut"] == ()
    figures.pop("abort_ms")  # so small a model may be done before it is cancelled
    assert None not in figures.values()
    assert all(math.isfinite(number) and number > 0 for number in numbers(figures))
    assert list(figures["reading"]) == [16, 32, 63]  # type: ignore[call-overload]
    assert list(figures["together"]) == [1, 2, 4]  # type: ignore[call-overload]
    assert (figures["prefix_tokens"], figures["own_tokens"]) == (200, 60)
    assert figures["kept"]["tokens"] >= 260  # type: ignore[index]


def test_one_conversation_has_no_others(tiny: Path, tmp_path: Path) -> None:
    figures = measure(tiny, tmp_path, conversations=1)
    assert (figures["busy_turn_ms"], figures["burst_ms"]) == (None, None)


def test_little_room_makes_conversations_short_and_is_said(tiny: Path, tmp_path: Path) -> None:
    figures = measure(tiny, tmp_path, replace(PLAN, n_ctx=256, n_cells=256), conversations=32)
    assert figures["prefix_tokens"] < 60  # type: ignore[operator]
    assert len(figures["cut"]) == 2  # type: ignore[arg-type]
    assert max(figures["together"]) == 12  # type: ignore[call-overload]


def test_a_plan_without_room_to_measure_is_refused(tiny: Path) -> None:
    with pytest.raises(ModelLoadError, match="LLM_BATCH_SIZE"):
        Yardstick(
            tiny, replace(PLAN, n_batch=4, n_sequences=4), PACE, conversations=1, new_tokens=25, sampling=Sampling()
        )


def test_a_gpu_has_no_threads_to_compare(tiny: Path, tmp_path: Path) -> None:
    figures = measure(tiny, tmp_path, replace(PLAN, n_gpu_layers=3))
    assert figures["threads"] == ()
    assert figures["cut"] == ("threads were not compared: the model is on the GPU",)


def test_writers_write_in_every_step(engine: Engine) -> None:
    before = engine.figures.steps
    writers = Writers(engine, PROMPTS, Sampling(temperature=0), max_tokens=10)
    writers.start(0.3)
    assert writers.wait() > 0
    steps = engine.figures.steps - before
    # All but the first read, and the few steps in which prompts are read in.
    assert engine.figures.jobs > 3 * steps - 20


def test_writers_go_on_when_the_model_draws_its_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("naila.inference.tokens.Vocabulary.is_end", lambda *_: True)
    writers = Writers(engine, PROMPTS, Sampling(), max_tokens=10)
    writers.start(0.2)
    assert writers.wait() > 50
    assert engine.load == (0, 0)


def test_writers_stop_when_told(engine: Engine) -> None:
    writers = Writers(engine, PROMPTS, Sampling(), max_tokens=1000)
    writers.start()
    assert writers.stop() >= 0
    assert engine.load == (0, 0)


def test_a_failure_of_the_engine_is_the_writers(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("naila.inference.batch.Batch.decode", lambda *_: -3)
    writers = Writers(engine, PROMPTS, Sampling(), max_tokens=10)
    writers.start(5)
    with pytest.raises(EngineFailedError, match="-3"):
        writers.wait()
