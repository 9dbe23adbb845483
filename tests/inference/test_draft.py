"""A draft model guesses for a larger one: nothing changes but the number of steps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from naila.errors import GenerationError
from naila.inference.draft import PLACES, Draft, open_draft
from naila.inference.engine import Engine
from naila.inference.host import LocalHost
from naila.inference.job import EngineLimits
from naila.inference.model import Model
from naila.inference.prefix_cache import as_tokens
from naila.inference.request import Completion, Request
from naila.inference.sampling import Sampling
from naila.inference.shape import SHAPES
from naila.inference.shape_file import write_shape
from naila.inference.speculation import StepCost
from naila.ports import ChatMessage
from support.plans import small_plan

pytestmark = pytest.mark.model

QUESTIONS = ("Tell me a story about a robot and a shell.", "Count to ten.", "What is ice made of?")


@pytest.fixture
def model(model_path: Path) -> Iterator[Model]:
    model = Model(model_path, small_plan())
    yield model
    model.close()


@pytest.fixture
def draft(model: Model, model_path: Path) -> Draft:
    draft = open_draft(str(model_path), small_plan(), model)
    assert draft is not None
    return draft


def prompt(model: Model, question: str) -> list[int]:
    return model.vocabulary.encode(model.chat_format.render([ChatMessage("user", question)]))


def answers(engine: Engine, model: Model, sampling: Sampling) -> list[tuple[str, int]]:
    """Let the engine answer the questions one after another; return texts and tokens drawn."""
    said: list[tuple[str, int]] = []
    for question in QUESTIONS:
        pieces: list[str] = []
        end: Future[Completion | GenerationError] = Future()
        tokens = as_tokens(prompt(model, question))
        engine.submit(
            Request(prompt=tokens, max_tokens=40, sampling=sampling, on_text=pieces.append, on_end=end.set_result)
        )
        completion = end.result(60)
        assert isinstance(completion, Completion)
        said.append(("".join(pieces), completion.usage.completion_tokens))
    return said


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(temperature=0.8, seed=7)])
def test_answers_are_the_same_with_a_draft_and_take_fewer_steps(
    model: Model, draft: Draft, model_path: Path, sampling: Sampling
) -> None:
    other = Model(model_path, small_plan())
    plain = Engine(other, EngineLimits(speculation="off"))
    expected = answers(plain, other, sampling)
    plain.close()
    other.close()
    guessing = Engine(model, EngineLimits(speculation="always"), draft=draft)
    assert answers(guessing, model, sampling) == expected
    assert guessing.figures.taken > 20
    assert guessing.figures.steps < 0.7 * plain.figures.steps
    guessing.close()


def test_a_draft_reads_no_more_than_one_batch_at_a_time(draft: Draft) -> None:
    tokens = as_tokens(range(100, 300))
    place = draft.claim()
    assert place is not None
    reads = 0
    while not draft.write_on(place, tokens, 3):
        reads += 1
        assert reads < 5
    assert reads == 3
    assert len(draft.write_on(place, tokens + as_tokens([5]), 3)) == 3
    draft.close()


def test_places_are_few_and_come_back(draft: Draft) -> None:
    guessers = [draft.guesser(None) for _ in range(PLACES + 1)]
    tokens = as_tokens([100, 200, 300])
    assert [bool(guesser.guess(tokens, 2)) for guesser in guessers] == [True] * PLACES + [False]
    guessers[0].close()
    assert guessers[-1].guess(tokens, 2)
    draft.close()


def test_a_draft_that_costs_a_step_is_given_up(draft: Draft) -> None:
    cost = StepCost()
    cost.learn(1, 1e-6)
    cost.learn(63, 1e-6 + 62 * 1e-8)
    guesser = draft.guesser(cost)
    tokens = as_tokens([100, 200, 300])
    assert guesser.guess(tokens, 2)
    assert not guesser.guess(tokens, 2)
    assert draft.claim() is not None
    draft.close()


def test_a_draft_with_another_vocabulary_is_refused(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "other.gguf"
    write_shape(SHAPES["tiny"], path)
    with caplog.at_level(logging.WARNING):
        assert open_draft(str(path), small_plan(), model) is None
    assert "its vocabulary is not that of" in caplog.text


def test_a_draft_that_is_not_there_costs_nothing_but_a_line(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert open_draft(str(tmp_path / "missing.gguf"), small_plan(), model) is None
    assert "LLM_DRAFT_MODEL" in caplog.text


async def test_where_nothing_is_guessed_no_draft_is_loaded(
    model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = EngineLimits(speculation="off", draft=str(tmp_path / "missing.gguf"))
    with caplog.at_level(logging.WARNING):
        host = await LocalHost.start(model_path, small_plan(), limits=limits, keep=None)
    await host.close()
    assert "LLM_DRAFT_MODEL" not in caplog.text
