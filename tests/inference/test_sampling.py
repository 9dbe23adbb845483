"""Drawing tokens, freely and bound by a grammar, from the real SmolLM2."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from naila.errors import EngineFailedError, GenerationError
from naila.inference.batch import Batch
from naila.inference.engine import Engine
from naila.inference.grammar import gbnf
from naila.inference.job import EngineLimits
from naila.inference.kv import NativeKv
from naila.inference.model import Model
from naila.inference.prefix_cache import as_tokens
from naila.inference.request import Completion, Request
from naila.inference.sampling import Grammar, Sampler, Sampling
from naila.ports import ChatMessage
from support.plans import small_plan

pytestmark = pytest.mark.model

Schema = dict[str, Any]

GREEDY = Sampling(temperature=0)
ACTION: Schema = {
    "type": "object",
    "properties": {
        "action": {"enum": ["drive", "turn", "stop"]},
        "angle": {"type": "integer", "minimum": -180, "maximum": 180},
        "say": {"type": "string", "maxLength": 20},
    },
    "required": ["action", "angle"],
}
POINTS: Schema = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 2, "maxItems": 2},
    "minItems": 1,
    "maxItems": 3,
}
MOOD: Schema = {"enum": ["happy", "sad", "no idea"]}
SPEED: Schema = {
    "type": "object",
    "properties": {"speed": {"type": "number", "minimum": 0, "maximum": 1.5}},
    "required": ["speed"],
}
PERHAPS: Schema = {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 1, "maximum": 10}]}
SCHEMAS = [ACTION, POINTS, MOOD, SPEED, PERHAPS]


@pytest.fixture(scope="module")
def model(model_path: Path) -> Iterator[Model]:
    made = Model(model_path, small_plan())
    yield made
    made.close()


def prompt(model: Model, words: str) -> list[int]:
    messages = [ChatMessage("system", "You are a robot. Answer in JSON."), ChatMessage("user", words)]
    return model.vocabulary.encode(model.chat_format.render(messages))


class Desk:
    """A model that has read a prompt, and reads what is drawn."""

    def __init__(self, model: Model, words: str = "Turn left, please.") -> None:
        self.model = model
        self._batch = Batch(63)
        self._held = 0
        NativeKv(model).trim(0, 0)
        self.read(prompt(model, words))

    def read(self, tokens: list[int]) -> None:
        self._batch.clear()
        self._batch.add(as_tokens(tokens), position=self._held, sequence=0, outputs=1)
        assert self._batch.decode(self.model.context) == 0
        self._held += len(tokens)

    def logits(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        row = llama_cpp.llama_get_logits_ith(self.model.context, -1)
        return np.ctypeslib.as_array(row, shape=(self.model.vocabulary.size,)).copy()

    def write(self, sampler: Sampler, most: int = 120) -> str:
        written = b""
        for _ in range(most):
            token = sampler.sample(self.model.context)
            if self.model.vocabulary.is_end(token):
                break
            written += self.model.vocabulary.decode(token)
            self.read([token])
        return written.decode()


def bound(model: Model, schema: Schema) -> Grammar:
    return Grammar(gbnf(schema), model.vocabulary)


def assert_valid(schema: Schema, text: str) -> None:
    Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(seed=1), Sampling(temperature=2, top_p=1, top_k=0, seed=2), Sampling(top_k=1, seed=3)]
)
def test_whatever_the_sampling_the_answer_is_valid(model: Model, schema: Schema, sampling: Sampling) -> None:
    sampler = Sampler(sampling, bound(model, schema))
    assert_valid(schema, Desk(model).write(sampler))
    sampler.close()


def test_a_greedy_token_is_the_likeliest_of_all_that_may_be_next(model: Model) -> None:
    desk, sampler, beside = Desk(model), Sampler(GREEDY, bound(model, ACTION)), bound(model, ACTION)
    redrawn = 0
    while True:
        logits = desk.logits()
        token = sampler.sample(model.context)
        allowed = [
            t for t in np.argsort(-logits).tolist()[: 1 + int((logits >= logits[token]).sum())] if beside.allows(t)
        ]
        assert token == allowed[0]
        redrawn += token != int(logits.argmax())
        beside.accept(token)
        if model.vocabulary.is_end(token):
            break
        desk.read([token])
    assert redrawn > 0
    sampler.close()


def test_a_seed_repeats_a_bound_draw(model: Model) -> None:
    texts = set()
    for _ in range(2):
        sampler = Sampler(Sampling(temperature=1.5, seed=5), bound(model, ACTION))
        texts.add(Desk(model).write(sampler))
        sampler.close()
    assert len(texts) == 1


def test_seeds_differ_within_what_is_allowed(model: Model) -> None:
    moods = set()
    for seed in range(12):
        sampler = Sampler(Sampling(temperature=2, top_p=1, seed=seed), bound(model, MOOD))
        moods.add(Desk(model).write(sampler))
        sampler.close()
    assert len(moods) > 1
    assert moods <= {'"happy"', '"sad"', '"no idea"'}


def test_a_grammar_that_the_vocabulary_cannot_follow_is_an_error(model: Model) -> None:
    # U+40000 begins with a byte for which SmolLM2 has no token.
    sampler = Sampler(GREEDY, bound(model, {"const": "\U00040000"}))
    with pytest.raises(EngineFailedError, match="no token that the grammar allows"):
        Desk(model).write(sampler)
    sampler.close()


def test_a_grammar_that_is_none_is_refused(model: Model) -> None:
    with pytest.raises(GenerationError, match=r"llama\.cpp refused the grammar"):
        Grammar("root ::= nowhere", model.vocabulary)


def test_a_grammar_is_freed_once_by_whoever_comes_first(model: Model) -> None:
    grammar = bound(model, MOOD)
    sampler = Sampler(GREEDY, grammar)
    sampler.close()
    sampler.close()
    grammar.close()
    forgotten = weakref.ref(bound(model, MOOD))
    gc.collect()
    assert forgotten() is None


class Answer:
    """A request to an engine and what came of it."""

    def __init__(self, engine: Engine, model: Model, words: str, schema: Schema | None, sampling: Sampling) -> None:
        self.schema = schema
        self.text = ""
        self._end: Future[Completion | GenerationError] = Future()
        request = Request(
            prompt=as_tokens(prompt(model, words)),
            max_tokens=120 if schema else 20,
            sampling=sampling,
            grammar=bound(model, schema) if schema else None,
            on_text=self._on_text,
            on_end=self._end.set_result,
        )
        engine.submit(request)

    def _on_text(self, text: str) -> None:
        self.text += text

    def end(self) -> Completion:
        end = self._end.result(60)
        assert isinstance(end, Completion), end
        return end


@pytest.fixture(scope="module")
def engine(model_path: Path) -> Iterator[tuple[Engine, Model]]:
    model = Model(model_path, small_plan())
    made = Engine(model)
    yield made, model
    made.close()
    model.close()


@pytest.mark.parametrize("temperature", [0, 1])
def test_bound_and_free_requests_run_together(engine: tuple[Engine, Model], temperature: float) -> None:
    answers = [
        Answer(*engine, f"Number {number}: tell me.", schema, Sampling(temperature=temperature, seed=number))
        for number, schema in enumerate([*SCHEMAS, None, *SCHEMAS, None, None])
    ]
    for answer in answers:
        reason = answer.end().finish_reason
        if answer.schema is not None:
            assert reason == "stop"
            assert_valid(answer.schema, answer.text)


def test_guesses_do_not_change_a_bound_answer(engine: tuple[Engine, Model], model: Model) -> None:
    words = json.dumps([[12, 34], [12, 34], [12, 34]])
    plain = Answer(*engine, words, POINTS, GREEDY)
    plain.end()
    NativeKv(model).trim(0, 0)
    guessing = Engine(model, EngineLimits(speculation="always"))
    guessed = Answer(guessing, model, words, POINTS, GREEDY)
    guessed.end()
    guessing.close()
    assert guessing.figures.guessed > 0
    assert_valid(POINTS, guessed.text)
    assert guessed.text == plain.text


def test_a_bound_answer_is_the_same_alone_and_beside_others(engine: tuple[Engine, Model]) -> None:
    alone = Answer(*engine, "Turn left, please.", ACTION, GREEDY)
    alone.end()
    together = [Answer(*engine, "Turn left, please.", schema, GREEDY) for schema in (ACTION, MOOD, None)]
    for answer in together:
        answer.end()
    assert together[0].text == alone.text
