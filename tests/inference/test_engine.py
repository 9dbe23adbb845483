"""The engine on the real model: the same answers whoever else is there, and no way to wedge it."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from naila.errors import ContextOverflowError, EngineBusyError, EngineFailedError, GenerationError
from naila.inference.batch import Batch
from naila.inference.engine import Engine
from naila.inference.grammar import gbnf
from naila.inference.job import EngineLimits
from naila.inference.kv import NativeKv
from naila.inference.kv_store import KeepPlan, open_store
from naila.inference.model import Model
from naila.inference.prefix_cache import as_tokens
from naila.inference.request import Completion, Request
from naila.inference.sampling import Grammar, Sampling
from naila.ports import ChatMessage, StopCause
from support.often import HowOften
from support.plans import small_plan

pytestmark = pytest.mark.model
log = logging.getLogger(__name__)

SYSTEM = ChatMessage("system", "You are a friendly robot. Answer in one short sentence.")
QUESTIONS = [
    "Hello, how are you?",
    "What is the capital of France?",
    "Tell me a story about a robot that finds a shell at the beach and wants to give it to a friend.",
    "Why?",
    "Count to ten.",
    "What do you like to eat, if robots eat anything at all, which I doubt but would like to hear you explain?",
    "Who was Ada Lovelace?",
    "Name three colours.",
]


class Rig:
    """An engine and what a caller needs around it."""

    def __init__(
        self,
        path: Path,
        limits: EngineLimits | None = None,
        keep: KeepPlan | None = None,
        *,
        text_every_s: float = 0.0,
        **room: int,
    ) -> None:
        limits = replace(limits or EngineLimits(), text_every_s=text_every_s)  # 0: a piece is a token
        planned = small_plan(**room)
        self.model = Model(path, planned)
        self.engine = Engine(self.model, limits, open_store(keep, path, planned) if keep is not None else None)

    def close(self) -> None:
        self.engine.close()
        self.model.close()

    def prompt(self, *words: str) -> list[int]:
        """Return the tokens of a conversation: what the user says and, in turn, what was answered."""
        roles = ("user", "assistant") * len(words)
        messages = [ChatMessage(role, text) for role, text in zip(roles, words, strict=False)]  # type: ignore[arg-type]
        return self.model.vocabulary.encode(self.model.chat_format.render([SYSTEM, *messages]))

    def ask(self, prompt: list[int], *, max_tokens: int = 16, session: str | None = None) -> Answer:
        """Submit a greedy request."""
        answer = Answer(self, prompt, max_tokens, session)
        self.engine.submit(answer.request)
        return answer


class Answer:
    """A request and what came of it."""

    def __init__(self, rig: Rig, prompt: list[int], max_tokens: int, session: str | None) -> None:
        self.rig = rig
        self.pieces: list[str] = []
        self.ends = 0
        self._end: Future[Completion | GenerationError] = Future()
        self.first = threading.Event()
        self.request = Request(
            prompt=as_tokens(prompt),
            max_tokens=max_tokens,
            sampling=Sampling(temperature=0),
            owner=(session or "").partition("/")[0],
            session=session,
            on_text=self._on_text,
            on_end=self._on_end,
        )

    def _on_text(self, text: str) -> None:
        self.pieces.append(text)
        self.first.set()

    def _on_end(self, end: Completion | GenerationError) -> None:
        self.ends += 1
        if self.ends == 1:
            self._end.set_result(end)

    def end(self) -> Completion:
        """Wait for the end."""
        end = self._end.result(100)
        assert isinstance(end, Completion), end
        return end

    def text(self) -> str:
        """Wait for the whole text."""
        self.end()
        return "".join(self.pieces)


class Reference:
    """llama.cpp alone, without the engine: how sure it is of a token, and how much it differs from itself."""

    def __init__(self, path: Path) -> None:
        self.model = Model(path, small_plan(n_cells=2048, n_sequences=2))
        self._batch = Batch(63)

    def close(self) -> None:
        self._batch.close()
        self.model.close()

    def logits(self, tokens: list[int], *, scrambled: bool = False) -> npt.NDArray[np.float32]:
        """Return the logits after some tokens; scrambled: with their cells in another order in the KV cache."""
        kv, half, junk = NativeKv(self.model), len(tokens) // 2, len(tokens) // 3
        for sequence in (0, 1):
            kv.trim(sequence, 0)
        if scrambled:
            self._read([100] * junk, sequence=1)
        self._read(tokens[:half])
        kv.trim(1, 0)
        index = self._read(tokens[half:], start=half)
        row = llama_cpp.llama_get_logits_ith(self.model.context, index)
        return np.ctypeslib.as_array(row, shape=(self.model.vocabulary.size,)).copy()

    def is_near_tie(self, tokens: list[int]) -> bool:
        """Tell whether the best two next tokens are closer than llama.cpp is to itself in another cell order."""
        plain = self.logits(tokens)
        noise = float(np.abs(plain - self.logits(tokens, scrambled=True)).max())
        second, first = np.sort(plain)[-2:]
        return bool(first - second <= 2 * noise)

    def _read(self, tokens: list[int], *, start: int = 0, sequence: int = 0) -> int:
        index = 0
        for at in range(0, len(tokens), 63):
            self._batch.clear()
            index = self._batch.add(tokens[at : at + 63], position=start + at, sequence=sequence, outputs=1)
            assert self._batch.decode(self.model.context) == 0
        return index


@pytest.fixture(scope="module")
def reference(model_path: Path) -> Iterator[Reference]:
    made = Reference(model_path)
    yield made
    made.close()


def assert_same(reference: Reference, prompt: list[int], one: Answer, other: Answer) -> None:
    """Check that two answers are the same, or part where llama.cpp itself is undecided.

    Evicted and rolled-back cells are filled again in another order, and a sum in another order is rounded otherwise.
    """
    one.end()
    other.end()
    if one.pieces == other.pieces:
        return
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one.pieces, other.pieces, strict=False))
    same = len(list(pairs))
    written = [token for piece in one.pieces[:same] for token in reference.model.vocabulary.encode_text(piece)]
    assert reference.is_near_tie([*prompt, *written]), (one.pieces, other.pieces)


@pytest.fixture(scope="module")
def rig(model_path: Path) -> Iterator[Rig]:
    made = Rig(model_path)
    yield made
    made.close()


def test_answers_are_the_same_token_for_token_batched_or_alone(rig: Rig) -> None:
    prompts = [rig.prompt(question) for question in QUESTIONS]
    alone = [rig.ask(prompt).text() for prompt in prompts]
    together = [rig.ask(prompt) for prompt in prompts]
    assert [answer.text() for answer in together] == alone


def test_answers_are_the_same_cached_or_not(rig: Rig, reference: Reference) -> None:
    turns = [rig.prompt(*QUESTIONS[:length]) for length in (1, 3, 5, 7)]
    warm = []
    for prompt in turns:
        warm.append(rig.ask(prompt, session="a/1"))
        warm[-1].end()
    assert warm[-1].end().usage.cached_tokens > 0
    for prompt, before in zip(turns, warm, strict=True):
        rig.engine.forget("a/1")
        rig.engine.forget("b/1")
        assert_same(reference, prompt, before, rig.ask(prompt, session="b/1"))


def test_answers_are_the_same_beside_cancelled_neighbours(rig: Rig, reference: Reference) -> None:
    prompts = [rig.prompt(question) for question in QUESTIONS]
    alone = [rig.ask(prompt) for prompt in prompts[:4]]
    assert all(answer.text() for answer in alone)
    kept = [rig.ask(prompt) for prompt in prompts[:4]]
    for neighbour in [rig.ask(prompt * 3, max_tokens=200) for prompt in prompts[4:]]:
        rig.engine.cancel(neighbour.request, "cancelled")
        assert neighbour.end().finish_reason == "cancelled"
    for prompt, one, other in zip(prompts, alone, kept, strict=False):
        assert_same(reference, prompt, one, other)


def test_a_short_question_is_answered_while_a_long_story_is_read(rig: Rig) -> None:
    story = rig.ask(rig.prompt("once upon a time " * 200), max_tokens=1)
    question = rig.ask(rig.prompt("Why?"), max_tokens=4)
    assert question.end().total_ms < story.end().total_ms


def test_the_system_prompt_is_read_once_for_the_whole_fleet(model_path: Path) -> None:
    rig = Rig(model_path)
    opening = rig.model.vocabulary.encode(rig.model.chat_format.render([SYSTEM]))
    pin(rig, opening)
    for device in ("first", "second"):
        answer = rig.ask(rig.prompt(f"Where are you, {device}?"), session=f"{device}/1").end()
        assert answer.usage.cached_tokens >= len(opening) - 4
    rig.close()


def test_what_one_device_said_is_not_shared_with_another(model_path: Path) -> None:
    rig = Rig(model_path)
    opening = rig.model.vocabulary.encode(rig.model.chat_format.render([SYSTEM]))
    pin(rig, opening)
    secret = rig.prompt("The code of the door is seven four one nine two.")
    rig.ask(secret, session="owner/1").end()
    guess = rig.ask(secret, session="thief/1").end()
    assert guess.usage.cached_tokens <= len(opening)
    rig.close()


def test_more_conversations_than_sequences_are_all_answered(model_path: Path) -> None:
    rig = Rig(model_path, n_sequences=3)
    answers = [rig.ask(rig.prompt(f"Say the number {n}."), max_tokens=4, session=f"r{n}/1") for n in range(12)]
    assert all(answer.end().finish_reason in {"stop", "length"} for answer in answers)
    rig.close()


def test_more_conversations_than_cells_are_all_answered_as_if_alone(model_path: Path, reference: Reference) -> None:
    rig = Rig(model_path, n_cells=160, n_ctx=160)
    prompts = [rig.prompt(question) for question in QUESTIONS]
    together = [rig.ask(prompt, max_tokens=50) for prompt in prompts]
    assert all(answer.end() for answer in together)
    assert rig.engine.figures.preempted > 0
    for prompt, before in zip(prompts, together, strict=True):
        assert_same(reference, prompt, before, rig.ask(prompt, max_tokens=50))
    rig.close()


def test_too_many_waiting_requests_are_refused_as_busy(model_path: Path) -> None:
    rig = Rig(model_path, EngineLimits(running=1, waiting=2))
    answers = [rig.ask(rig.prompt("Hello"), max_tokens=8) for _ in range(3)]
    with pytest.raises(EngineBusyError, match="3 requests"):
        rig.ask(rig.prompt("Hello"))
    assert all(answer.end() for answer in answers)
    assert rig.ask(rig.prompt("Hello"), max_tokens=2).end()
    rig.close()


@pytest.mark.parametrize("length", [0, 1024, 5000])
def test_a_prompt_that_can_never_fit_is_refused(rig: Rig, length: int) -> None:
    with pytest.raises(ContextOverflowError):
        rig.ask([5] * length)


def test_an_answer_ends_where_the_context_does(model_path: Path) -> None:
    rig = Rig(model_path, n_cells=256, n_ctx=256)
    answer = rig.ask([5] * 247, max_tokens=500)
    assert answer.end().finish_reason in {"length", "stop"}
    assert answer.end().usage.completion_tokens <= 10
    rig.close()


def test_reading_in_only_makes_the_next_request_warm(rig: Rig) -> None:
    prompt = rig.prompt("A transcript that still grows, and grows")
    assert rig.ask(prompt, max_tokens=0, session="p/1").end().usage.completion_tokens == 0
    assert rig.ask(prompt, session="p/1").end().usage.cached_tokens == len(prompt) - 1


def test_text_comes_at_once_and_then_in_pieces_that_are_worth_a_message(model_path: Path) -> None:
    rig = Rig(model_path, text_every_s=60)
    answer = rig.ask(rig.prompt("Tell me a story about a robot."), max_tokens=24)
    first = Rig(model_path)
    single = first.ask(first.prompt("Tell me a story about a robot."), max_tokens=24)
    assert answer.text() == single.text()
    assert len(single.pieces) > 12
    assert [answer.pieces[0], len(answer.pieces)] == [single.pieces[0], 2]
    rig.close()
    first.close()


def test_closing_ends_everything_once(model_path: Path) -> None:
    rig = Rig(model_path, EngineLimits(running=2))
    answers = [rig.ask(rig.prompt(question), max_tokens=500) for question in QUESTIONS]
    answers[0].first.wait(30)
    rig.close()
    assert [answer.end().finish_reason for answer in answers] == ["cancelled"] * len(answers)
    assert [answer.ends for answer in answers] == [1] * len(answers)


@pytest.mark.timeout(900)
def test_random_requests_all_end_once_give_their_cells_back_and_leave_memory_flat(
    model_path: Path, how_often: HowOften
) -> None:
    rounds = how_often(1, 40)
    rig = Rig(model_path, EngineLimits(running=12, waiting=1000), n_cells=700, n_sequences=8, n_ctx=300)
    chance = random.Random(7)
    resident: list[int] = []
    for _ in range(rounds):
        answers = []
        for number in range(50):
            prompt = [chance.randrange(20, 40_000) for _ in range(chance.randint(1, 90))]
            answer = rig.ask(prompt, max_tokens=chance.randint(0, 12), session=f"r{number % 20}/1")
            if chance.random() < 0.3:
                cause: StopCause = chance.choice(("cancelled", "deadline"))
                threading.Timer(chance.random() * 3, rig.engine.cancel, (answer.request, cause)).start()
            answers.append(answer)
        reasons = {answer.end().finish_reason for answer in answers}
        assert reasons <= {"stop", "length", "cancelled", "deadline"}
        assert [answer.ends for answer in answers] == [1] * 50
        resident.append(psutil.Process().memory_info().rss)
    for number in range(20):
        rig.engine.forget(f"r{number}/1")
    rig.ask([7, 8, 9], max_tokens=0).end()
    assert rig.engine.cache_figures.cells_used <= 3
    assert rig.engine.load == (0, 0)
    rig.close()
    warm = resident[min(9, rounds - 1)]
    log.info("%d requests: %d bytes resident when warm, %d at the end", 50 * rounds, warm, resident[-1])
    assert resident[-1] - warm < 8_000_000


def test_a_conversation_is_as_warm_after_a_restart_as_before(model_path: Path, tmp_path: Path) -> None:
    keep = KeepPlan(folder=tmp_path, budget_bytes=10**9)
    story = "once upon a time there was a robot, and " * 12
    rig = Rig(model_path, keep=keep)
    before = rig.ask(rig.prompt(story), session="r2/default").text()
    rig.close()
    rig = Rig(model_path, keep=keep)
    again = rig.ask(rig.prompt(story), session="r2/default")
    assert again.text() == before
    assert again.end().usage.cached_tokens == len(rig.prompt(story)) - 1
    assert rig.engine.restored == 1
    rig.close()


def test_a_conversation_that_left_memory_is_read_back_from_disk(model_path: Path, tmp_path: Path) -> None:
    rig = Rig(model_path, keep=KeepPlan(folder=tmp_path, budget_bytes=10**9), n_sequences=2)
    for device in ("a", "b", "c"):
        rig.ask(rig.prompt(f"{device} " * 60), session=f"{device}/1").end()
    back = rig.ask(rig.prompt("a " * 60, "Yes?", "And now?"), session="a/1").end()
    assert back.usage.cached_tokens > 60
    assert rig.engine.restored >= 1
    rig.close()


def test_a_forgotten_conversation_is_forgotten_on_disk_too(model_path: Path, tmp_path: Path) -> None:
    rig = Rig(model_path, keep=KeepPlan(folder=tmp_path, budget_bytes=10**9))
    rig.ask(rig.prompt("remember " * 60), session="a/1").end()
    rig.close()
    assert list(tmp_path.rglob("*.kv"))
    rig = Rig(model_path, keep=KeepPlan(folder=tmp_path, budget_bytes=10**9))
    rig.engine.forget("a/")
    rig.ask([7, 8, 9], max_tokens=0).end()
    rig.close()
    assert not list(tmp_path.rglob("*.kv"))


COPY = "Repeat after me, word for word: the quick brown fox jumps over the lazy dog near the river bank."


def test_answers_are_the_same_with_guesses_and_without(model_path: Path, reference: Reference) -> None:
    plain = Rig(model_path, EngineLimits(speculation="off"))
    guessing = Rig(model_path, EngineLimits(speculation="always"))
    for question in [COPY, *QUESTIONS]:
        prompt = plain.prompt(question)
        assert_same(reference, prompt, plain.ask(prompt, max_tokens=40), guessing.ask(prompt, max_tokens=40))
    assert guessing.engine.figures.taken > 0
    assert guessing.engine.figures.guessed > guessing.engine.figures.taken
    assert plain.engine.figures.guessed == 0
    plain.close()
    guessing.close()


def test_wrong_guesses_leave_no_trace_in_the_cache(model_path: Path) -> None:
    rig = Rig(model_path, EngineLimits(speculation="always"))
    prompt = rig.prompt(COPY)
    answer = rig.ask(prompt, max_tokens=30, session="a/1")
    used = answer.end().usage
    rig.ask([7, 8, 9], max_tokens=0).end()
    held = max(len(slot.tokens) for slot in rig.engine.slots)
    assert held <= used.prompt_tokens + used.completion_tokens
    rig.close()


def test_a_grammar_that_cannot_be_written_fails_alone(rig: Rig) -> None:
    neighbour = rig.ask(rig.prompt("Count to ten."), max_tokens=30)
    neighbour.first.wait(30)
    # SmolLM2's vocabulary has no token for two of this character's bytes.
    hopeless = Answer(rig, rig.prompt("Say it."), 8, None)
    hopeless.request.grammar = Grammar(gbnf({"const": "\U00040000"}), rig.model.vocabulary)
    rig.engine.submit(hopeless.request)
    with pytest.raises(AssertionError, match="EngineFailedError"):
        hopeless.end()
    assert neighbour.end().finish_reason in {"stop", "length"}
    assert rig.ask(rig.prompt("Hello"), max_tokens=4).text()


def pin(rig: Rig, tokens: list[int]) -> None:
    """Read in what many prompts begin with."""
    opening = Answer(rig, tokens, 0, None)
    opening.request.is_prefix = True
    rig.engine.submit(opening.request)
    opening.end()


def test_pinned_openings_give_way_to_work_that_has_no_room(model_path: Path) -> None:
    rig = Rig(model_path, n_cells=512, n_ctx=512)
    for first in (1000, 2000):
        pin(rig, list(range(first, first + 150)))
    answer = rig.ask(list(range(3000, 3405)), max_tokens=40)
    assert answer.end().finish_reason in {"stop", "length"}
    assert rig.engine.figures.preempted <= 2
    rig.close()


def test_what_is_held_already_is_read_in_without_a_step(model_path: Path) -> None:
    rig = Rig(model_path)
    prompt = rig.prompt("Tell me about the sea")
    for _ in range(2):
        assert rig.ask(prompt, max_tokens=0, session="r1/1").end().finish_reason == "length"
    assert rig.engine.figures.tokens == len(prompt)
    rig.close()


def test_a_closed_engine_takes_nothing_in(model_path: Path) -> None:
    rig = Rig(model_path)
    prompt = rig.prompt("Hello")
    rig.engine.close()
    with pytest.raises(EngineFailedError, match="closed"):
        rig.ask(prompt)
    rig.model.close()


def test_an_engine_that_was_idle_for_long_does_not_count_as_stalled(model_path: Path) -> None:
    rig = Rig(model_path)
    rig.ask([7, 8, 9], max_tokens=1).end()
    time.sleep(3.0)  # the idle time itself is what is tested
    answer = rig.ask(list(range(1000, 1200)), max_tokens=8)
    stalls = []
    while not answer.ends:
        stalls.append(rig.engine.stalled_for())
        time.sleep(0.005)
    assert max(stalls) < 2.9
    rig.close()


def test_others_go_on_beside_somebody_who_asks_and_cancels_all_the_time(rig: Rig) -> None:
    victim = rig.ask(rig.prompt("Tell me a very long story about the sea."), max_tokens=30)
    while not victim.ends:
        nuisance = rig.ask(rig.prompt("once upon a time " * 50), max_tokens=50)
        time.sleep(0.01)
        rig.engine.cancel(nuisance.request, "cancelled")
        nuisance.end()
    assert victim.end().finish_reason in {"stop", "length"}
    assert victim.end().total_ms < 30_000


def test_a_long_read_does_not_hold_up_who_writes(model_path: Path) -> None:
    rig = Rig(model_path)
    rig.ask(list(range(1000, 1100)), max_tokens=20).end()  # the engine learns what a row costs
    writer = rig.ask(rig.prompt("Count to fifty."), max_tokens=60)
    writer.first.wait(30)
    before = rig.engine.figures.steps
    reader = rig.ask(list(range(2000, 2700)), max_tokens=1)
    reader.end()
    steps = rig.engine.figures.steps - before
    assert steps > 700 / 63 + 1 or writer.ends
    rig.close()
