from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from naila.agents.attention import Attention
from naila.agents.orchestrator import Orchestrator
from naila.agents.stops import Stops
from naila.config.patterns import load_patterns
from naila.config.personas import load_personas
from naila.errors import ContextOverflowError, ContractError, EngineFailedError, ModelLoadError
from naila.events import Intent, Reply
from naila.orchestration import response_generator
from naila.ports import Cancellation, ChatMessage, Fact, Recollection, Turn
from support.fakes import (
    FakeApprovals,
    FakeClock,
    FakeFleet,
    FakeLanguageModel,
    FakeMemory,
    FakePublisher,
    FakeReader,
    an_intent,
)

CONFIG = Path(__file__).parents[2] / "config"
BOOK = load_patterns(CONFIG / "patterns.yaml")
PERSONAS = load_personas(CONFIG / "personas")
NAILA = PERSONAS["naila"]
LOOP = ["I am here to help you with that. "] * 40


@dataclass
class Stage:
    """An orchestrator among fakes."""

    model: FakeLanguageModel = field(default_factory=FakeLanguageModel)
    memory: FakeMemory = field(default_factory=FakeMemory)
    publisher: FakePublisher = field(default_factory=FakePublisher)
    clock: FakeClock = field(default_factory=FakeClock)
    cancellation: Cancellation = field(default_factory=Cancellation)
    timeout_s: float = 60.0
    fleet: FakeFleet = field(default_factory=FakeFleet)
    reader: FakeReader = field(default_factory=FakeReader)
    approvals: FakeApprovals = field(default_factory=FakeApprovals)

    def __post_init__(self) -> None:
        self.orchestrator = Orchestrator(
            personas=PERSONAS,
            persona="naila",
            phrasebook=BOOK,
            model=self.model,
            memory=self.memory,
            publisher=self.publisher,
            clock=self.clock,
            timeout_s=self.timeout_s,
            max_tokens=100,
            fleet=self.fleet,
            reader=self.reader,
            approvals=self.approvals,
            stops=Stops(self.fleet, self.clock, on_stop=lambda _device_id, _request: None),
            attention=Attention(self.clock),
            max_actions=3,
        )

    async def handle(self, intent: Intent) -> Reply:
        reply = await self.orchestrator.handle(intent, cancellation=self.cancellation, received_at=999.0)
        assert reply is not None
        return reply

    async def say(self, text: str, **changes: object) -> Reply:
        reply = await self.handle(an_intent(text, **{"id": f"q{len(self.memory.turns)}", **changes}))
        if changes.get("stream"):
            items = [item for item in self.publisher.stream if item.id == reply.id]
            assert "".join(item.text for item in items) == reply.text
            assert [item.seq for item in items] == list(range(len(items)))
            assert [item.done for item in items] == [False] * (len(items) - 1) + [True]
            assert items[-1].text == ""
        return reply


async def test_the_model_answers() -> None:
    reply = await Stage().say("Why is the sky blue?")
    assert (reply.text, reply.source, reply.degraded, reply.finish_reason) == ("All is well.", "llm", False, "stop")
    assert (reply.intent, reply.model, reply.usage.completion_tokens) == ("question", "fake", 3)


async def test_a_follow_up_has_the_first_turn_in_its_prompt() -> None:
    stage = Stage()
    await stage.say("Why is the sky blue?")
    await stage.say("And why is it red in the evening?")
    assert [message.content for message in stage.model.asked[1][-3:-1]] == ["Why is the sky blue?", "All is well."]


async def test_the_prompt_begins_as_it_ended() -> None:
    stage = Stage()
    texts = ["My name is Ada.", "(odd) start", "What should I do today?", "move on", "Hello", "I like tea", "why?"]
    for text in texts:
        await stage.say(text, context={"battery": 81})
    for earlier, later in zip(stage.model.asked, stage.model.asked[1:], strict=False):
        assert later[: len(earlier)] == earlier


async def test_the_system_prompt_is_the_same_for_every_device() -> None:
    stage = Stage()
    await stage.say("Hello", device_id="a", context={"battery": 1})
    await stage.say("What should I do today?", device_id="b", user_id="u")
    assert stage.model.asked[0][:-1] == stage.model.asked[1][:-1]
    assert stage.model.asked[0][0] == ChatMessage("system", NAILA.system_prompt)


async def test_a_fact_is_told_once_while_it_is_in_sight() -> None:
    stage = Stage(memory=FakeMemory(facts={"likes": "tea"}))
    await stage.say("What should I drink?")
    await stage.say("And what should I eat?")
    last = [message.content for message in stage.model.asked[-1]]
    assert sum("I like tea." in content for content in last) == 1


async def test_a_question_about_the_world_is_asked_without_facts() -> None:
    stage = Stage(memory=FakeMemory(facts={"likes": "tea"}))
    await stage.say("What is the capital of France?")
    assert stage.model.asked[0][-1].content == "What is the capital of France?"


async def test_readings_and_the_date_are_told_where_they_matter() -> None:
    stage = Stage()
    await stage.say("Is the shop open today?", context={"battery": 81})
    note = stage.model.asked[0][-1].content.splitlines()[0]
    assert note == "(It is Friday, 20 November 2026, 12:34. battery=81.)"


async def test_a_new_name_is_not_told_beside_the_old_one() -> None:
    stage = Stage(memory=FakeMemory(facts={"name": "Bob"}))
    await stage.say("My name is Ada.")
    assert stage.model.asked[0][-1].content == "(Say: Nice to meet you, Ada!)\nMy name is Ada."


async def test_a_name_and_what_is_liked_are_remembered() -> None:
    stage = Stage()
    await stage.say("My name is Ada and I like tea.")
    assert stage.memory.facts == {"name": "Ada", "likes": "tea"}


@pytest.mark.parametrize(
    ("text", "facts", "said"),
    [("What's my name?", {"name": "Ada"}, "Ada"), ("What do I like?", {"likes": "tea; chess"}, "tea and chess")],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_known_for_sure_is_not_asked_of_the_model(
    text: str, facts: dict[str, str], said: str, stream: bool
) -> None:
    stage = Stage(memory=FakeMemory(facts=facts))
    reply = await stage.say(text, stream=stream)
    assert said in reply.text
    assert (reply.source, reply.degraded, stage.model.asked) == ("pattern", False, [])


async def test_without_a_model_a_known_name_is_known_too() -> None:
    stage = Stage(model=FakeLanguageModel(is_loaded=False), memory=FakeMemory(facts={"name": "Ada"}))
    reply = await stage.say("What's my name?")
    assert "Ada" in reply.text
    assert (reply.source, reply.degraded) == ("pattern", True)


async def test_what_is_not_known_is_for_the_model() -> None:
    stage = Stage(memory=FakeMemory(facts={"likes": "tea"}))
    reply = await stage.say("What's my name?")
    assert (reply.source, len(stage.model.asked)) == ("llm", 1)


async def test_its_own_name_is_said_even_if_the_model_gets_it_wrong() -> None:
    stage = Stage(model=FakeLanguageModel(answers=[["I am ", "Bob."]]))
    reply = await stage.say("Who are you?", stream=True)
    assert NAILA.name in reply.text
    assert "Bob" not in reply.text
    assert (reply.source, reply.degraded, len(stage.model.asked)) == ("pattern", False, 2)


async def test_what_was_tried_with_the_model_is_remembered_with_its_note() -> None:
    # Its cache holds the words with the note: the next prompt has to begin the same.
    stage = Stage(model=FakeLanguageModel(answers=[["Bob."]]))
    await stage.say("Who are you?", context={"battery": 81})
    assert stage.memory.turns[0].note == f"(battery=81. {NAILA.guidance['identity']})"


async def test_its_own_name_is_streamed_as_soon_as_the_model_says_it() -> None:
    stage = Stage(model=FakeLanguageModel(answers=[["I ", "am", f" {NAILA.name}. ", "Right?"]]))
    reply = await stage.say("Who are you?", stream=True)
    assert (reply.text, reply.source) == (f"I am {NAILA.name}. Right?", "llm")
    assert [item.text for item in stage.publisher.stream] == [f"I am {NAILA.name}.", " Right?", ""]


async def test_the_clock_answers_time_and_date_not_the_model() -> None:
    stage = Stage()
    reply = await stage.say("What time is it?", stream=True)
    assert (reply.text, reply.source, reply.degraded, stage.model.asked) == ("It's 12:34.", "pattern", False, [])


async def test_and_tomorrow_goes_on_from_the_date() -> None:
    stage = Stage()
    await stage.say("What day is it?")
    assert (await stage.say("And tomorrow?")).text == "Tomorrow is Saturday, 21 November 2026."


async def test_a_streamed_answer_says_where_sentences_end() -> None:
    stage = Stage(model=FakeLanguageModel(answers=[["One", ".", " Two", " and", "!"]]))
    await stage.say("Why is the sky blue?", stream=True)
    assert [(item.text, item.sentence_end) for item in stage.publisher.stream] == [
        ("One", False),
        (".", True),
        (" Two", False),
        (" and", False),
        ("!", True),
        ("", False),
    ]


async def test_nothing_is_streamed_unasked() -> None:
    stage = Stage()
    await stage.say("Hello")
    assert stage.publisher.published == []


async def test_a_truncated_answer_is_cut_at_a_sentence() -> None:
    stage = Stage(model=FakeLanguageModel(answers=[["One. ", "Two ", "thr"]], finish_reason="length"))
    reply = await stage.say("Why is the sky blue?")
    assert (reply.text, reply.finish_reason) == ("One.", "length")


async def test_a_streamed_truncated_answer_stands() -> None:
    stage = Stage(model=FakeLanguageModel(answers=[["One. ", "Two ", "thr"]], finish_reason="length"))
    assert (await stage.say("Why is the sky blue?", stream=True)).text == "One. Two thr"


async def test_a_loop_is_ended_and_said_once() -> None:
    stage = Stage(model=FakeLanguageModel(answers=[LOOP]))
    reply = await stage.say("Why is the sky blue?")
    assert (reply.text, reply.finish_reason) == ("I am here to help you with that.", "length")
    assert reply.usage.completion_tokens < len(LOOP)


async def test_a_streamed_loop_is_ended_too() -> None:
    stage = Stage(model=FakeLanguageModel(answers=[LOOP]))
    assert len((await stage.say("Why is the sky blue?", stream=True)).text) < 200


async def test_a_leaked_template_piece_ends_the_answer() -> None:
    stage = Stage(model=FakeLanguageModel(answers=[["Blue.", "<|im", "_end|>", "user: more"]]))
    reply = await stage.say("Why is the sky blue?", stream=True)
    assert (reply.text, reply.finish_reason, reply.source) == ("Blue.", "stop", "llm")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_answer_is_replaced(stream: bool) -> None:
    stage = Stage(model=FakeLanguageModel(answers=[[" ", "\n"]]))
    reply = await stage.say("Why is the sky blue?", stream=stream)
    assert reply.text in BOOK.replies["no_answer"]
    assert (reply.source, reply.degraded) == ("pattern", False)


@pytest.mark.parametrize("stream", [False, True])
async def test_without_a_model_a_pattern_answers_and_says_so(stream: bool) -> None:
    stage = Stage(model=FakeLanguageModel(is_loaded=False))
    reply = await stage.say("Why is the sky blue?", stream=stream)
    assert reply.text.endswith(NAILA.degraded)
    assert (reply.source, reply.degraded, reply.model) == ("pattern", True, None)
    assert stage.memory.turns[0].reply_text == reply.text


async def test_without_a_model_the_clock_still_answers() -> None:
    reply = await Stage(model=FakeLanguageModel(is_loaded=False)).say("What time is it?")
    assert (reply.text, reply.degraded) == ("It's 12:34.", True)


@pytest.mark.parametrize("failure", [EngineFailedError("broken"), ModelLoadError("gone")])
@pytest.mark.parametrize(("stream", "said"), [(False, 0), (True, 0), (False, 2)])
async def test_a_model_that_fails_unheard_is_replaced(failure: ModelLoadError, stream: bool, said: int) -> None:
    stage = Stage(model=FakeLanguageModel(fails_after=said, failure=failure))
    reply = await stage.say("Why is the sky blue?", stream=stream)
    assert reply.text.endswith(NAILA.degraded)
    assert not reply.text.startswith("All")
    assert (reply.source, reply.degraded) == ("pattern", True)


async def test_a_model_that_fails_in_mid_sentence_is_excused() -> None:
    stage = Stage(model=FakeLanguageModel(fails_after=2, failure=EngineFailedError("broken")))
    reply = await stage.say("Why is the sky blue?", stream=True)
    assert reply.text == f"All is {NAILA.interrupted}"
    assert (reply.source, reply.degraded) == ("llm", True)


async def test_a_text_too_long_for_the_model_is_said_to_be() -> None:
    failure = ContextOverflowError("too long", tokens=9000, limit=4096)
    reply = await Stage(model=FakeLanguageModel(fails_after=0, failure=failure)).say("Why?" * 1000)
    assert reply.text in BOOK.replies["too_long"]
    assert not reply.degraded


async def test_a_cancelled_answer_is_what_was_said_until_then() -> None:
    stage = Stage(model=FakeLanguageModel(hold_after=1))
    task = asyncio.create_task(stage.say("Why is the sky blue?", stream=True))
    await stage.model.holding.wait()
    stage.cancellation.cancel()
    reply = await task
    assert (reply.text, reply.finish_reason, reply.usage.completion_tokens) == ("All", "cancelled", 1)


async def test_cancelled_before_a_word_stays_empty_and_out_of_the_prompt() -> None:
    stage = Stage(model=FakeLanguageModel(hold_after=0))
    task = asyncio.create_task(stage.say("Why is the sky blue?"))
    await stage.model.holding.wait()
    stage.cancellation.cancel()
    assert (await task).text == ""
    recollection = Recollection(turns=tuple(stage.memory.turns))
    assert "Why is the sky blue?" not in str(response_generator.build_messages(NAILA, recollection, "", "Hi"))


async def test_cancelled_before_it_began() -> None:
    stage = Stage()
    stage.cancellation.cancel()
    reply = await stage.say("Hello", stream=True)
    assert (reply.text, reply.finish_reason, stage.model.asked) == ("", "cancelled", [])


async def test_cancelled_when_all_was_said_changes_nothing() -> None:
    stage = Stage()

    class Late(FakeMemory):
        async def remember(self, turn: Turn, facts: Sequence[Fact], reply: Reply) -> None:
            stage.cancellation.cancel()
            await super().remember(turn, facts, reply)

    stage.memory = Late()
    stage.__post_init__()
    reply = await stage.say("Why is the sky blue?")
    assert (reply.text, reply.finish_reason) == ("All is well.", "stop")


async def test_the_models_time_is_limited() -> None:
    stage = Stage(model=FakeLanguageModel(answers=[["One. ", "Two ", "three"]], hold_after=2), timeout_s=0.5)
    reply = await stage.say("Why is the sky blue?")
    assert (reply.text, reply.finish_reason) == ("One.", "deadline")


async def test_an_answer_is_not_wanted_for_ever() -> None:
    stage = Stage(model=FakeLanguageModel(hold_after=0))
    reply = await stage.say("Why is the sky blue?", expires_in_ms=1010)  # of which 1000 passed in the queue
    assert reply.finish_reason == "deadline"
    assert reply.text in BOOK.replies["timed_out"]


async def test_an_answer_wanted_too_early_is_refused() -> None:
    with pytest.raises(ContractError, match="expires_in_ms: 500 ms were over") as caught:
        await Stage().say("Hello", expires_in_ms=500)
    assert caught.value.code == "expired"


async def test_a_model_that_does_not_stop_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_generator, "STOP_GRACE_S", 0.01)
    stage = Stage(model=FakeLanguageModel(hold_after=1, deaf=True), timeout_s=0.5)
    assert (await stage.say("Why is the sky blue?")).degraded


async def test_an_unknown_persona_is_refused_by_name() -> None:
    with pytest.raises(ContractError, match="persona: 'hal' is not known, only engineer, naila") as caught:
        await Stage().say("Hello", persona="hal")
    assert (caught.value.code, caught.value.request_id) == ("bad_payload", "q0")


async def test_a_refused_request_leaves_no_timer_behind() -> None:
    stage = Stage(timeout_s=0)
    with pytest.raises(ContractError):
        await stage.say("Hello", persona="hal")
    await asyncio.sleep(0.001)
    assert stage.cancellation.cause is None


async def test_the_persona_asked_for_answers() -> None:
    stage = Stage()
    await stage.say("Hello", persona="storyteller")
    assert "Nilo" in stage.model.asked[0][0].content


async def test_a_broken_memory_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    reply = await Stage(memory=FakeMemory(broken=True)).say("Hello")
    assert reply.text == "All is well."
    assert "memory cannot be written" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
async def test_what_nobody_foresaw_is_logged_and_answered(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Surprise(FakeMemory):
        def _check(self) -> None:
            raise ZeroDivisionError

    reply = await Stage(memory=Surprise()).say("Hello", stream=stream)
    assert reply.text in BOOK.replies["failed"]
    assert reply.degraded
    assert "turn q0 of r2 failed" in caplog.text


async def test_a_growing_transcript_is_read_in_as_the_beginning_of_its_turns_prompt() -> None:
    stage = Stage(memory=FakeMemory(facts={"likes": "tea"}))
    await stage.say("My name is Ada.")
    await stage.orchestrator.read_in(an_intent("What should I drink", partial=True, context={"battery": 81}))
    await stage.say("What should I drink with my cake?", context={"battery": 81})
    (read,), asked = stage.model.read, stage.model.asked[-1]
    assert read[:-1] == asked[:-1]
    assert read[-1].content == "(My name is Ada. battery=81.)\nWhat should I drink"
    assert asked[-1].content == f"{read[-1].content} with my cake?"
    assert stage.model.sessions == ["r2/default"] * 3


async def test_reading_in_leaves_no_trace() -> None:
    stage = Stage()
    await stage.orchestrator.read_in(an_intent("My name is Ada", partial=True, stream=True))
    assert (stage.memory.turns, stage.memory.facts, stage.publisher.published) == ([], {}, [])
    assert stage.model.asked == []


@pytest.mark.parametrize("text", ["What time is it", "What can you do", "What's my name"])
async def test_what_is_not_for_the_model_is_not_read_in(text: str) -> None:
    stage = Stage(memory=FakeMemory(facts={"name": "Ada"}))
    await stage.orchestrator.read_in(an_intent(text, partial=True))
    assert stage.model.read == []


async def test_without_a_model_nothing_is_read_in() -> None:
    stage = Stage(model=FakeLanguageModel(is_loaded=False))
    await stage.orchestrator.read_in(an_intent("Why is", partial=True))
    assert stage.model.read == []


@pytest.mark.parametrize(
    ("model", "memory", "persona"),
    [
        (FakeLanguageModel(fails_after=0), FakeMemory(), None),
        (FakeLanguageModel(fails_after=0, failure=EngineFailedError("broken")), FakeMemory(), None),
        (FakeLanguageModel(hold_after=0), FakeMemory(), None),
        (FakeLanguageModel(), FakeMemory(broken=True), None),
        (FakeLanguageModel(), FakeMemory(), "hal"),
    ],
    ids=["no model", "a broken engine", "a model that hangs", "a broken memory", "an unknown persona"],
)
async def test_what_cannot_be_read_in_is_not_worth_a_word(
    model: FakeLanguageModel, memory: FakeMemory, persona: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "naila")
    stage = Stage(model=model, memory=memory, timeout_s=0.01)
    await stage.orchestrator.read_in(an_intent("Why is", partial=True, persona=persona))
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert "partial transcript q1 of r2 could not be read in" in caplog.text
    assert stage.publisher.published == []


async def test_reading_in_can_be_given_up() -> None:
    stage = Stage(model=FakeLanguageModel(hold_after=0))
    reading = asyncio.create_task(stage.orchestrator.read_in(an_intent("Why is", partial=True)))
    await stage.model.holding.wait()
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled()


async def test_times_are_told() -> None:
    timing = (await Stage().say("Hello")).timing
    assert (timing.queue_ms, timing.ttft_ms, timing.total_ms, timing.tokens_per_second) == (1000.0, 0.0, 1000.0, 9.0)


async def test_sampling_is_what_was_asked_within_bounds() -> None:
    stage = Stage()
    await stage.say("Hello", max_tokens=5000, temperature=0.1)
    options = stage.model.options[0]
    assert options is not None
    assert (options.max_tokens, options.temperature) == (100, 0.1)


async def test_turns_at_once_do_not_meet() -> None:
    stage = Stage(model=FakeLanguageModel(answers=[[f"{n}", "."] for n in range(20)]))
    texts = await asyncio.gather(*(stage.say("why?", device_id=f"d{n}", id=f"i{n}", stream=True) for n in range(20)))
    assert len({reply.text for reply in texts}) == 20


async def test_a_turn_without_its_model_is_quick(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    stage = Stage()
    await stage.say("Hello")
    loop = asyncio.get_running_loop()
    times = []
    for _ in range(50):
        started = loop.time()
        await stage.say("Why is the sky blue?", device_id="other", id="same")
        times.append(loop.time() - started)
    assert sorted(times)[25] < 0.02  # budget 5 ms; four times that on a machine that is busy with other tests


async def test_facts_stay_with_the_person_who_asks() -> None:
    stage = Stage(memory=FakeMemory(facts={"name": "Ada"}))
    await stage.say("Hello", user_id="u7")
    assert stage.memory.asked_for == ["u7"]
    assert Fact("name", "Ada") in (await stage.memory.recall("r2", "default", None)).facts
