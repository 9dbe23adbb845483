"""The language model service on the real SmolLM2."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from naila.errors import (
    ContextOverflowError,
    DeadlineExceededError,
    GenerationCancelledError,
    GenerationError,
    ModelLoadError,
    ModelNotFoundError,
    ModelNotLoadedError,
    UnsupportedSchemaError,
)
from naila.events import JsonValue
from naila.inference import worker_host
from naila.inference.gguf import read_header
from naila.inference.kv_store import KeepPlan
from naila.inference.prompt import fit
from naila.inference.sampling import Sampling
from naila.inference.worker_host import WorkerHost
from naila.ports import Cancellation, ChatMessage, EnginePlan, Generation, ModelHeader, SamplingOptions, TextPiece
from naila.services.llm_service import LlmService
from support.plans import small_plan
from support.robots import until

pytestmark = pytest.mark.model

SYSTEM = ChatMessage("system", "You are a friendly robot. Answer in one short sentence.")
HELLO = [SYSTEM, ChatMessage("user", "Hello, how are you?")]
GREEDY = SamplingOptions(temperature=0, max_tokens=24)
LONG = [SYSTEM, ChatMessage("user", "Tell me a very long story about a robot and the sea.")]


def plan_for(header: ModelHeader) -> EnginePlan:
    return small_plan(n_sequences=8, reasons={"threads": "one, for a test"})


@pytest.fixture(params=["thread", "process"])
async def llm(model_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[LlmService]:
    service = LlmService(
        choose=lambda: read_header(model_path),
        plan=plan_for,
        max_tokens=64,
        sampling=Sampling(temperature=0),
        worker=request.param,
    )
    await service.load_model()
    yield service
    await service.unload_model()


async def test_it_answers_with_exact_usage(llm: LlmService) -> None:
    answer = await llm.generate_chat(HELLO, GREEDY)
    assert answer.text
    assert answer.finish_reason in {"stop", "length"}
    assert answer.usage.prompt_tokens > 20
    assert 0 < answer.usage.completion_tokens <= 24
    assert answer.model == "SmolLM2-135M-Instruct.Q4_1"


async def test_the_pieces_are_the_text(llm: LlmService) -> None:
    items = [item async for item in llm.generate_streaming(HELLO, GREEDY)]
    pieces, end = items[:-1], items[-1]
    assert isinstance(end, Generation)
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextPiece)) == end.text


async def test_the_same_prompt_again_is_not_read_again_and_answers_the_same(llm: LlmService) -> None:
    first = await llm.generate_chat(HELLO, GREEDY)
    again = await llm.generate_chat(HELLO, GREEDY)
    assert first.usage.cached_tokens == 0
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1
    assert again.text == first.text


async def test_truncation_is_told_from_completion(llm: LlmService) -> None:
    answer = await llm.generate_chat(LONG, SamplingOptions(temperature=0, max_tokens=5))
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 5


async def test_a_stop_string_ends_the_answer_and_is_not_in_it(llm: LlmService) -> None:
    whole = await llm.generate_chat(HELLO, GREEDY)
    word = whole.text.split()[2]
    cut = await llm.generate_chat(HELLO, SamplingOptions(temperature=0, max_tokens=24, stop=(word,)))
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(word)]


async def test_a_seed_repeats_the_draw(llm: LlmService) -> None:
    hot = SamplingOptions(temperature=1.2, seed=7, max_tokens=16)
    assert (await llm.generate_chat(HELLO, hot)).text == (await llm.generate_chat(HELLO, hot)).text


async def test_an_answer_is_held_to_its_schema(llm: LlmService) -> None:
    schema: dict[str, JsonValue] = {
        "type": "object",
        "properties": {"mood": {"enum": ["happy", "sad"]}, "energy": {"type": "integer", "minimum": 0, "maximum": 10}},
        "required": ["mood", "energy"],
    }
    bound = SamplingOptions(temperature=0, max_tokens=60, json_schema=schema)
    answer, free = await asyncio.gather(llm.generate_chat(HELLO, bound), llm.generate_chat(HELLO, GREEDY))
    Draft202012Validator(schema).validate(json.loads(answer.text))
    assert answer.finish_reason == "stop"
    assert not free.text.startswith("{")
    cut = await llm.generate_chat(HELLO, replace(bound, max_tokens=5))
    assert cut.finish_reason == "length"
    assert answer.text.startswith(cut.text)


async def test_a_schema_that_cannot_be_held_to_is_refused(llm: LlmService) -> None:
    with pytest.raises(UnsupportedSchemaError) as caught:
        await llm.generate_chat(HELLO, SamplingOptions(json_schema={"type": "string", "pattern": "^a$"}))
    assert caught.value.keyword == "pattern"
    with pytest.raises(GenerationError, match="stop strings"):
        await llm.generate_chat(HELLO, SamplingOptions(json_schema={"type": "string"}, stop=("\n",)))


async def test_raw_completion_needs_no_chat_format(llm: LlmService) -> None:
    answer = await llm.generate("The capital of France is", SamplingOptions(temperature=0, max_tokens=4))
    assert "Paris" in answer.text


async def test_cancelling_keeps_what_was_written(llm: LlmService) -> None:
    cancellation = Cancellation()
    pieces: list[str] = []

    async def read() -> None:
        async for item in llm.generate_streaming(
            LONG, SamplingOptions(temperature=0, max_tokens=500), cancellation=cancellation
        ):
            assert isinstance(item, TextPiece)
            pieces.append(item.text)
            if len(pieces) == 3:
                cancellation.cancel()

    with pytest.raises(GenerationCancelledError) as caught:
        await read()
    assert caught.value.partial.text == "".join(pieces)
    assert caught.value.partial.usage.completion_tokens >= 3
    assert (await llm.generate_chat(HELLO, GREEDY)).text


async def test_a_deadline_stops_inside_a_long_prefill(llm: LlmService) -> None:
    story = [SYSTEM, ChatMessage("user", "once upon a time " * 180)]
    plain = await llm.generate_chat(HELLO, GREEDY)
    cancellation = Cancellation()
    asyncio.get_running_loop().call_later(0.02, cancellation.cancel, "deadline")
    with pytest.raises(DeadlineExceededError) as caught:
        await llm.generate_chat(story, SamplingOptions(max_tokens=200), cancellation=cancellation)
    assert caught.value.partial.usage.completion_tokens == 0
    assert (await llm.generate_chat(HELLO, GREEDY)).text == plain.text


async def test_a_consumer_that_leaves_stops_the_engine(llm: LlmService) -> None:
    stream = llm.generate_streaming(LONG, SamplingOptions(temperature=0, max_tokens=900))
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(10):
        assert (await llm.generate_chat(HELLO, GREEDY)).text


async def test_requests_at_once_are_all_answered_alike(llm: LlmService) -> None:
    answers = await asyncio.gather(*(llm.generate_chat(HELLO, GREEDY) for _ in range(4)))
    assert len({answer.text for answer in answers}) == 1


async def test_a_history_that_is_too_long_loses_its_oldest_turns(llm: LlmService) -> None:
    history = [
        message
        for number in range(60)
        for message in (ChatMessage("user", f"Remember the number {number}."), ChatMessage("assistant", "I will."))
    ]
    answer = await llm.generate_chat([SYSTEM, *history, ChatMessage("user", "Which numbers?")], GREEDY)
    assert 0 < answer.dropped_messages < 120
    assert answer.dropped_messages % 2 == 0
    assert answer.usage.prompt_tokens <= 1024 * 0.75


async def test_one_message_that_is_too_long_is_refused_with_the_limit(llm: LlmService) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        await llm.generate_chat([SYSTEM, ChatMessage("user", "word " * 3000)], GREEDY)
    assert caught.value.tokens > caught.value.limit == 1000


async def test_without_a_model_it_says_so(model_path: Path) -> None:
    service = LlmService(choose=lambda: read_header(model_path), plan=plan_for)
    assert not service.is_loaded
    with pytest.raises(ModelNotLoadedError):
        await service.generate_chat(HELLO)


async def test_a_missing_file_leaves_it_unloaded(tmp_path: Path) -> None:
    service = LlmService(choose=lambda: read_header(tmp_path / "none.gguf"), plan=plan_for)
    with pytest.raises(ModelNotFoundError):
        await service.load_model()
    assert not service.is_loaded


async def test_a_file_without_weights_is_refused_with_llama_cpps_words(llama3_vocab: Path) -> None:
    service = LlmService(choose=lambda: read_header(llama3_vocab), plan=plan_for)
    with pytest.raises(ModelLoadError, match=r"llama\.cpp cannot load"):
        await service.load_model()
    assert not service.is_loaded


async def test_unloading_ends_what_runs_as_cancelled(model_path: Path) -> None:
    service = LlmService(choose=lambda: read_header(model_path), plan=plan_for)
    await service.load_model()
    stream = service.generate_streaming(LONG, SamplingOptions(temperature=0, max_tokens=900))
    await anext(stream)
    await service.unload_model()

    with pytest.raises(GenerationCancelledError):
        async for _ in stream:
            pass
    assert not service.is_loaded


LONG_PREFIXES = [[ChatMessage("system", f"You are robot {i}. " + "word " * 700)] for i in range(4)]


def engines() -> list[psutil.Process]:
    """Return the engine processes of this test run: not what its fixtures started."""
    return [child for child in psutil.Process().children() if is_engine(child)]


def is_engine(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[1:2] == ["-c"]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


async def reading_prefixes(monkeypatch: pytest.MonkeyPatch) -> WorkerHost:
    """Wait until an engine reads prefixes in."""
    started: asyncio.Queue[WorkerHost] = asyncio.Queue()
    ask = WorkerHost.ask

    async def asked(self: WorkerHost, *args: object) -> object:
        started.put_nowait(self)
        return await ask(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(WorkerHost, "ask", asked)
    return await started.get()


async def test_an_engine_that_dies_over_the_prefixes_is_a_model_that_cannot_be_loaded(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = LlmService(choose=lambda: read_header(model_path), plan=plan_for, prefixes=LONG_PREFIXES)
    loading = asyncio.create_task(service.load_model())
    host = await reading_prefixes(monkeypatch)
    os.kill(host.pid, signal.SIGKILL)
    with pytest.raises(ModelLoadError, match="died of SIGKILL"):
        await loading
    assert not service.is_loaded
    assert engines() == []


@pytest.mark.parametrize("worker", ["thread", "process"])
async def test_a_prefix_that_is_too_long_is_left_out(model_path: Path, worker: Literal["thread", "process"]) -> None:
    too_long = [[SYSTEM, ChatMessage("user", "word " * 3000)]]
    service = LlmService(choose=lambda: read_header(model_path), plan=plan_for, prefixes=too_long, worker=worker)
    await service.load_model()
    assert service.is_loaded
    await service.unload_model()


@pytest.mark.parametrize("way", ["cancelled", "unloaded"])
async def test_a_load_given_up_over_the_prefixes_leaves_no_engine(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    service = LlmService(choose=lambda: read_header(model_path), plan=plan_for, prefixes=LONG_PREFIXES)
    loading = asyncio.create_task(service.load_model())
    await reading_prefixes(monkeypatch)
    assert len(engines()) == 1
    if way == "cancelled":
        loading.cancel()
    else:
        await service.unload_model()
    with pytest.raises(asyncio.CancelledError if way == "cancelled" else ModelLoadError):
        await loading
    assert not service.is_loaded
    assert engines() == []


@pytest.mark.parametrize("way", ["cancelled", "unloaded"])
async def test_a_load_that_hangs_can_be_given_up(model_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    shares: asyncio.Queue[float] = asyncio.Queue()

    def progress(share: float) -> bool:
        shares.put_nowait(share)
        return True

    hangs = "import time; print('{\"progress\": 1.0}', flush=True); time.sleep(60)"
    service = LlmService(choose=lambda: read_header(model_path), plan=plan_for, on_progress=progress)
    with monkeypatch.context() as patch:
        patch.setattr(worker_host, "_BOOT", hangs)
        loading = asyncio.create_task(service.load_model())
        await shares.get()
        async with asyncio.timeout(3):
            if way == "cancelled":
                loading.cancel()
            await asyncio.gather(service.unload_model(), service.unload_model())
            with pytest.raises(asyncio.CancelledError if way == "cancelled" else ModelLoadError):
                await loading
    await until(lambda: engines() == [], 5)  # it was killed; its end may take a moment
    await service.load_model()
    assert service.is_loaded
    await service.unload_model()


@pytest.mark.parametrize("way", ["cancelled", "unloaded"])
async def test_a_load_in_this_process_can_be_given_up(model_path: Path, way: str) -> None:
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    def progress(_: float) -> bool:
        loop.call_soon_threadsafe(begun.set)
        return True

    service = LlmService(choose=lambda: read_header(model_path), plan=plan_for, worker="thread", on_progress=progress)
    loading = asyncio.create_task(service.load_model())
    await begun.wait()
    if way == "cancelled":
        loading.cancel()
    else:
        await service.unload_model()
    with pytest.raises(asyncio.CancelledError if way == "cancelled" else ModelLoadError):
        await loading
    assert not service.is_loaded


@pytest.mark.parametrize(("forgotten", "files"), [("r3/x", 1), ("r2/x", 0)])
@pytest.mark.parametrize("worker", ["thread", "process"])
async def test_what_is_forgotten_while_the_engine_closes_is_not_kept(
    model_path: Path, tmp_path: Path, worker: Literal["thread", "process"], forgotten: str, files: int
) -> None:
    keep = KeepPlan(folder=tmp_path, budget_bytes=10**9)
    service = LlmService(choose=lambda: read_header(model_path), plan=plan_for, keep=keep, worker=worker)
    await service.load_model()
    secret = [ChatMessage("user", "My secret is 4711. " * 10)]
    await service.generate_chat(secret, SamplingOptions(max_tokens=4), session="r2/x")
    unloading = asyncio.create_task(service.unload_model())
    await asyncio.sleep(0)
    await service.forget(forgotten)
    await unloading
    assert sum(name.endswith(".kv") for _, _, names in os.walk(tmp_path) for name in names) == files


@given(st.integers(0, 30), st.integers(4, 200), st.integers(1, 12))
def test_what_is_kept_fits_and_is_the_newest(turns: int, limit: int, words: int) -> None:
    history = [m for i in range(turns) for m in (ChatMessage("user", f"u{i}"), ChatMessage("assistant", f"a{i}"))]
    messages = [ChatMessage("system", "s"), *history, ChatMessage("user", "now")]
    kept: list[list[ChatMessage]] = []

    def encode(conversation: object) -> list[int]:
        assert isinstance(conversation, list)
        kept.append(conversation)
        return [1] * (len(conversation) * words)

    if 2 * words > limit:
        with pytest.raises(ContextOverflowError):
            fit(messages, limit, encode)
        return
    tokens, dropped = fit(messages, limit, encode)
    assert len(tokens) <= limit
    assert kept[-1] == [messages[0], *messages[1 + dropped :]]
    assert dropped == 0 or kept[-1][1].role == "user"
