"""Turns that move devices, ask back and stop, among fakes: who is asked what, and what is said."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from naila.agents.attention import Attention
from naila.agents.orchestrator import Orchestrator
from naila.agents.stops import Stops
from naila.config.patterns import load_patterns
from naila.config.personas import load_personas
from naila.errors import ContractError
from naila.events import Intent, Reply
from naila.fleet import ActionSpec, DeviceProfile, DeviceView, OutcomeStatus, Pending, Proposal
from naila.orchestration.wanted import Wish
from naila.ports import Cancellation
from naila.understanding.reading import (
    AskBack,
    CannotDo,
    Commands,
    Doubtful,
    NotACommand,
    OpenQuestion,
    Reading,
    Repeat,
    StateQuestion,
    Step,
    Stop,
    Withdrawn,
)
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

DRIVE = Step(device_id="r2", name="drive", arguments={"distance": 1})
BEEP = Step(device_id="r2", name="beep")
HOW_FAR = OpenQuestion(kind="argument", device_id="r2", action="drive", argument="distance", text="drive")
WORDS: dict[str, Reading] = {
    "drive": Commands((DRIVE,)),
    "beep, drive and beep": Commands((BEEP, DRIVE, BEEP)),
    "beep four times": Commands((BEEP,) * 4),
    "guess": Commands((Step(device_id="r2", name="beep", certainty="similarity"),)),
    "go": AskBack(HOW_FAR),
    "fly": CannotDo(code="unknown_action", asked="fly"),
    "stop": Stop(device_ids=("r2",)),
    "all stop": Stop(),
    "again": Repeat(),
    "never mind": Withdrawn(),
    "mumble": Doubtful(candidates=(("r2", "drive"), ("r2", "beep"))),
    "mutter": Doubtful(),
    "can you drive?": StateQuestion(topic="capabilities", device_id="r2"),
}


def a_rover(device_id: str = "r2") -> DeviceView:
    actions = {name: ActionSpec(name=name, description=f"{name.title()}.") for name in ("drive", "beep")}
    return DeviceView(profile=DeviceProfile(device_id=device_id, name="Rover", actions=actions), online=True)


@dataclass
class Stage:
    """An orchestrator with a rover, among fakes."""

    model: FakeLanguageModel = field(default_factory=FakeLanguageModel)
    memory: FakeMemory = field(default_factory=FakeMemory)
    publisher: FakePublisher = field(default_factory=FakePublisher)
    clock: FakeClock = field(default_factory=FakeClock)
    fleet: FakeFleet = field(default_factory=lambda: FakeFleet(devices=(a_rover(),)))
    reader: FakeReader = field(default_factory=lambda: FakeReader(dict(WORDS)))
    approvals: FakeApprovals = field(default_factory=FakeApprovals)
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        self.stops = Stops(self.fleet, self.clock, on_stop=lambda _device_id, _request: None)
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
            stops=self.stops,
            attention=Attention(self.clock),
            max_actions=3,
        )
        self.said = 0

    async def handle(
        self,
        intent: Intent,
        *,
        cancellation: Cancellation | None = None,
        after_s: float = 1.0,
        is_old: bool = False,
    ) -> Reply | None:
        self.clock.advance(after_s)
        return await self.orchestrator.handle(
            intent, cancellation=cancellation or Cancellation(), received_at=self.clock.monotonic(), is_old=is_old
        )

    async def say(self, text: str, **changes: object) -> Reply:
        self.said += 1
        reply = await self.handle(an_intent(text, **{"id": f"q{self.said}", **changes}))
        assert reply is not None
        return reply

    @property
    def moved(self) -> list[str]:
        return [proposal.name for proposal in self.fleet.proposed]


async def test_a_command_is_done_and_told_and_remembered() -> None:
    stage = Stage()
    reply = await stage.say("drive")
    (proposal,) = stage.fleet.proposed
    assert (proposal.device_id, proposal.name, proposal.arguments) == ("r2", "drive", {"distance": 1})
    assert (proposal.request_id, proposal.speaker, proposal.by) == ("q1", "r2", "pattern")
    assert (reply.source, reply.intent, reply.degraded, reply.finish_reason) == ("action", "command", False, "stop")
    assert [(action.name, action.ok) for action in reply.actions] == [("drive", True)]
    assert stage.memory.turns[0].user_text == "drive"
    assert stage.memory.turns[0].reply_text == reply.text
    assert stage.model.asked == []


async def test_a_streamed_command_says_in_pieces_what_the_reply_says() -> None:
    stage = Stage()
    reply = await stage.say("drive", stream=True)
    assert "".join(item.text for item in stage.publisher.stream) == reply.text
    assert stage.publisher.stream[-1].done


async def test_without_a_model_a_robot_obeys_all_the_same() -> None:
    stage = Stage(model=FakeLanguageModel(is_loaded=False))
    reply = await stage.say("drive")
    assert (stage.moved, reply.source, reply.degraded) == (["drive"], "action", True)


@pytest.mark.parametrize("status", ["failed", "refused", "unanswered", "stopped"])
async def test_after_a_step_that_was_not_done_no_other_is_begun(status: OutcomeStatus) -> None:
    stage = Stage(fleet=FakeFleet(devices=(a_rover(),), script=["done", status]))
    reply = await stage.say("beep, drive and beep")
    assert stage.moved == ["beep", "drive"]
    assert [action.ok for action in reply.actions] == [True, None if status == "unanswered" else False]


async def test_more_steps_than_allowed_are_refused_before_the_first() -> None:
    stage = Stage()
    reply = await stage.say("beep four times")
    assert stage.moved == []
    assert [notice.code for notice in stage.publisher.notices] == ["rate_limited"]
    assert "3" in reply.text


async def test_a_command_that_waited_too_long_is_refused() -> None:
    stage = Stage()
    reply = await stage.orchestrator.handle(
        an_intent("drive"), cancellation=Cancellation(), received_at=stage.clock.monotonic() - 61
    )
    assert reply is not None
    assert stage.moved == []
    assert [notice.code for notice in stage.publisher.notices] == ["expired"]


async def test_a_model_has_no_say_in_how_long_a_device_may_take() -> None:
    stage = Stage(timeout_s=0.5, fleet=FakeFleet(devices=(a_rover(),), hold=frozenset({"drive"})))
    turn = asyncio.ensure_future(stage.say("drive"))
    await stage.fleet.holding.wait()
    await asyncio.sleep(0.6)
    stage.fleet.go.set()
    assert (await turn).finish_reason == "stop"


async def test_no_step_begins_after_a_cancel() -> None:
    stage = Stage(fleet=FakeFleet(devices=(a_rover(),), hold=frozenset({"drive"})))
    cancellation = Cancellation()
    turn = asyncio.ensure_future(stage.handle(an_intent("beep, drive and beep"), cancellation=cancellation))
    await stage.fleet.holding.wait()
    cancellation.cancel()
    reply = await turn
    assert reply is not None
    assert stage.moved == ["beep", "drive"]
    assert reply.finish_reason == "cancelled"


async def test_what_was_asked_before_a_stop_moves_nothing_after_it() -> None:
    stage = Stage()
    asked_at = stage.clock.monotonic()
    stage.clock.advance(1)
    stage.stops.stop("r2", request_id="halt", speaker="r2")
    reply = await stage.orchestrator.handle(an_intent("drive"), cancellation=Cancellation(), received_at=asked_at)
    assert reply is not None
    assert stage.moved == []
    assert [action.ok for action in reply.actions] == [False]


async def test_a_stop_of_another_device_changes_nothing() -> None:
    stage = Stage()
    stage.stops.stop("arm", request_id="halt", speaker="arm")
    await stage.orchestrator.handle(an_intent("drive"), cancellation=Cancellation(), received_at=999.0)
    assert stage.moved == ["drive"]


async def test_a_question_back_does_nothing_and_is_there_for_the_answer() -> None:
    stage = Stage()
    reply = await stage.say("go")
    assert (stage.moved, reply.source, reply.intent) == ([], "pattern", "command")
    stage.reader.script["a meter"] = Commands((DRIVE,))
    await stage.say("a meter")
    assert stage.reader.questions == [None, HOW_FAR]
    assert stage.moved == ["drive"]
    await stage.say("drive")
    assert stage.reader.questions[-1] is None


async def test_a_question_back_is_forgotten_after_two_minutes() -> None:
    stage = Stage()
    await stage.say("go")
    stage.clock.advance(121)
    await stage.say("a meter")
    assert stage.reader.questions == [None, None]


async def test_a_question_back_is_another_conversations_business() -> None:
    stage = Stage()
    await stage.say("go")
    await stage.say("a meter", conversation_id="other")
    assert stage.reader.questions == [None, None]


@pytest.mark.parametrize(("text", "kept"), [("What time is it?", True), ("Tell me a joke", False)])
async def test_a_question_back_outlives_a_look_at_the_clock_only(text: str, kept: bool) -> None:
    stage = Stage()
    await stage.say("go")
    await stage.say(text)
    await stage.say("a meter")
    assert stage.reader.questions[-1] == (HOW_FAR if kept else None)


async def test_a_withdrawn_wish_is_forgotten() -> None:
    stage = Stage()
    await stage.say("go")
    reply = await stage.say("never mind")
    assert reply.intent == "deny"
    await stage.say("a meter")
    assert (stage.reader.questions[-1], stage.moved) == (None, [])


async def test_what_cannot_be_done_is_told_and_refused() -> None:
    stage = Stage()
    reply = await stage.say("fly")
    assert "fly" in reply.text
    assert [(notice.code, notice.id) for notice in stage.publisher.notices] == [("unknown_action", "q1")]
    assert (reply.source, reply.actions) == ("pattern", ())


async def test_again_repeats_the_last_command() -> None:
    stage = Stage()
    await stage.say("drive")
    await stage.say("Thank you!")
    await stage.say("again")
    assert stage.moved == ["drive", "drive"]


async def test_again_after_something_else_is_no_command() -> None:
    stage = Stage()
    await stage.say("drive")
    await stage.say("Tell me a joke")
    reply = await stage.say("again")
    assert (stage.moved, reply.source) == (["drive"], "llm")


async def test_again_after_a_stop_moves_nothing() -> None:
    stage = Stage()
    await stage.say("drive")
    await stage.say("stop")
    await stage.say("again")
    assert stage.moved == ["drive"]


async def test_a_spoken_stop_is_sent_and_told() -> None:
    stage = Stage()
    reply = await stage.say("stop")
    assert (stage.fleet.stops, reply.intent) == (["r2"], "stop")
    assert "Rover" in reply.text


async def test_a_stop_that_was_sent_as_its_words_came_in_is_not_sent_again() -> None:
    stage = Stage()
    stage.stops.stop("r2", request_id="q1", speaker="r2")
    reply = await stage.say("stop")
    assert stage.fleet.stops == ["r2"]
    assert "Rover" in reply.text


async def test_everybody_stops() -> None:
    stage = Stage()
    await stage.say("all stop")
    assert stage.fleet.stops == [None]


async def test_a_stop_is_heard_whatever_the_device_says_that_it_means() -> None:
    stage = Stage()
    await stage.say("stop", intent="greeting")
    assert stage.fleet.stops == ["r2"]


async def test_what_the_device_says_is_conversation_moves_nothing() -> None:
    stage = Stage()
    await stage.say("drive", intent="small_talk")
    assert stage.moved == []


async def test_a_named_action_is_proposed_as_it_is() -> None:
    stage = Stage()
    entities = {"action": "drive", "arguments": {"distance": 9}, "device": "arm"}
    reply = await stage.say("button", intent="action", entities=entities)
    (proposal,) = stage.fleet.proposed
    assert (proposal.device_id, proposal.arguments, proposal.by) == ("arm", {"distance": 9}, "api")
    assert [(action.device_id, action.ok) for action in reply.actions] == [("arm", True)]


@pytest.mark.parametrize(
    "entities",
    [{}, {"action": 3}, {"action": "drive", "arguments": [1]}, {"action": "drive", "device": None}, {"action": None}],
)
async def test_an_action_that_is_named_wrongly_is_refused(entities: dict[str, object]) -> None:
    stage = Stage()
    with pytest.raises(ContractError) as caught:
        await stage.say("button", intent="action", entities=entities)
    assert caught.value.code == "bad_payload"
    assert stage.moved == []


async def test_similarity_is_named_as_what_it_is() -> None:
    stage = Stage()
    await stage.say("guess")
    assert stage.fleet.proposed[0].by == "similarity"


async def test_a_transcript_that_still_grows_moves_nothing() -> None:
    stage = Stage(model=FakeLanguageModel(may_act=True))
    for text in (*WORDS, "hello"):
        await stage.orchestrator.read_in(an_intent(text, partial=True))
    assert (stage.moved, stage.fleet.stops) == ([], [])
    assert len(stage.model.read) == 1 + sum(isinstance(reading, NotACommand | Repeat) for reading in WORDS.values())


async def test_a_step_that_needs_approval_suspends_the_turn() -> None:
    stage = Stage(fleet=FakeFleet(devices=(a_rover(),), script=["done", "pending"]))
    assert await stage.handle(an_intent("beep, drive and beep")) is None
    (wish,) = stage.approvals.suspended
    assert wish.pending is not None
    assert [proposal.name for proposal in wish.left] == ["drive", "beep"]
    assert [outcome.status for outcome in wish.outcomes] == ["done"]
    assert (stage.memory.turns, stage.publisher.replies) == ([], [])


async def test_a_wish_that_cannot_be_kept_is_taken_back_and_told() -> None:
    fleet = FakeFleet(devices=(a_rover(),), script=["pending"])
    stage = Stage(fleet=fleet, approvals=FakeApprovals(broken=True))
    reply = await stage.say("drive")
    assert fleet.waits == []
    assert [action.ok for action in reply.actions] == [False]


def waiting(pending_id: str) -> Pending:
    proposal = Proposal(device_id="r2", name="drive", request_id="q0", speaker="r2")
    return Pending(id=pending_id, proposal=proposal, question="Sure?", expires_at="2099")


@pytest.mark.parametrize(("text", "approve"), [("yes", True), ("Yes, please!", True), ("no", False), ("nope", False)])
async def test_a_spoken_answer_settles_what_was_asked_last(text: str, approve: bool) -> None:
    stage = Stage(approvals=FakeApprovals(waits=(waiting("p1"), waiting("p2"))))
    if approve:
        assert (await stage.say(text)).text == "Sure?"  # it was not what was said just before: ask again
        assert stage.approvals.settled == []
    reply = await stage.say(text)
    assert stage.approvals.settled == [("r2", "p2", approve)]
    assert (reply.source, reply.intent, stage.model.asked) == ("pattern", "affirm" if approve else "deny", [])


@pytest.mark.parametrize("between", ["Tell me a joke", "What time is it?", "right?"])
async def test_a_yes_after_other_words_may_be_a_yes_to_those(between: str) -> None:
    stage = Stage(approvals=FakeApprovals(waits=(waiting("p1"),)))
    await stage.say("ok")
    await stage.say(between)
    assert (await stage.say("ok")).text == "Sure?"
    assert stage.approvals.settled == []
    await stage.say("ok")
    assert stage.approvals.settled == [("r2", "p1", True)]


async def test_never_mind_is_a_no() -> None:
    stage = Stage(approvals=FakeApprovals(waits=(waiting("p1"),)))
    await stage.say("never mind")
    assert stage.approvals.settled == [("r2", "p1", False)]


@pytest.mark.parametrize("text", ["drive", "stop", "Tell me a joke", "What time is it?", "yes and then some"])
async def test_nothing_else_is_an_approval(text: str) -> None:
    stage = Stage(approvals=FakeApprovals(waits=(waiting("p1"),)))
    await stage.say(text)
    assert stage.approvals.settled == []


async def test_a_yes_to_a_later_question_back_approves_nothing() -> None:
    stage = Stage(approvals=FakeApprovals(waits=(waiting("p1"),)))
    await stage.say("go")
    await stage.say("yes")
    assert stage.approvals.settled == []


async def test_without_a_model_that_may_act_doubt_is_asked_back() -> None:
    stage = Stage()
    reply = await stage.say("mumble")
    assert (stage.moved, stage.model.asked, reply.source) == ([], [], "pattern")
    assert "drive" in reply.text
    await stage.say("the first")
    question = stage.reader.questions[-1]
    assert question is not None
    assert question.choices == ("drive", "beep")


@pytest.mark.parametrize("text", ["mutter", "mumble"])
async def test_a_model_that_may_only_talk_never_answers_a_doubtful_command(text: str) -> None:
    stage = Stage(model=FakeLanguageModel(answers=[["Okay, I drove!"]]))
    reply = await stage.say(text)
    assert (stage.model.asked, reply.source, stage.moved) == ([], "pattern", [])


async def test_a_model_that_may_act_chooses_among_what_is_declared() -> None:
    chosen = json.dumps({"device": "r2", "action": "beep"})
    stage = Stage(model=FakeLanguageModel(may_act=True, answers=[[chosen]]))
    await stage.say("mumble")
    assert len(stage.model.asked) >= 1
    assert set(stage.moved) <= {"beep", "drive"}


@pytest.mark.parametrize("text", ["What can you do?", "can you drive?"])
async def test_what_can_be_done_is_said_by_who_knows(text: str) -> None:
    stage = Stage()
    reply = await stage.say(text)
    assert (reply.source, stage.model.asked) == ("pattern", [])
    assert "drive" in reply.text.lower()


async def test_without_devices_what_can_be_done_is_what_it_was() -> None:
    stage = Stage(fleet=FakeFleet())
    reply = await stage.say("What can you do?")
    assert (reply.source, reply.intent) == ("pattern", "capabilities")
    assert "name" in reply.text


async def test_a_failed_memory_costs_no_action() -> None:
    stage = Stage(memory=FakeMemory(broken=True))
    reply = await stage.say("drive")
    assert (stage.moved, reply.source) == (["drive"], "action")


async def test_a_command_that_waited_nobody_knows_how_long_is_refused_and_a_question_is_not() -> None:
    stage = Stage()
    reply = await stage.handle(an_intent("drive"), is_old=True)
    assert (stage.moved, [notice.code for notice in stage.publisher.notices]) == ([], ["expired"])
    assert reply is not None
    assert [(action.ok, "say it again" in (action.error or "")) for action in reply.actions] == [(False, True)]
    answer = await stage.handle(an_intent("Hello!", id="q2"), is_old=True)
    assert answer is not None
    assert answer.finish_reason == "stop"


async def test_a_command_that_comes_right_after_a_stop_may_be_older_and_is_refused() -> None:
    stage = Stage()
    stage.stops.stop("r2", request_id="s1", speaker="r2")
    await stage.handle(an_intent("drive"), after_s=0.3)
    assert (stage.moved, [notice.code for notice in stage.publisher.notices]) == ([], ["expired"])
    await stage.handle(an_intent("drive", id="q2"), after_s=0.3)
    assert stage.moved == ["drive"]


async def test_words_that_stopped_a_robot_in_another_language_are_answered_as_a_stop() -> None:
    stage = Stage()
    stage.stops.stop("r2", request_id="q1", speaker="r2")
    reply = await stage.say("stopp!")
    assert (reply.intent, stage.fleet.stops, stage.model.asked) == ("stop", ["r2"], [])
    assert "Rover" in reply.text


@pytest.mark.parametrize("may_act", [True, False])
async def test_a_model_too_small_to_act_is_not_shown_what_was_done(may_act: bool) -> None:
    """It would go on in the same words, and claim what never happened."""
    stage = Stage(model=FakeLanguageModel(may_act=may_act))
    done = await stage.say("drive")
    await stage.say("Tell me something nice")
    assert (done.text in [message.content for message in stage.model.asked[-1]]) == may_act


async def test_again_does_not_repeat_what_was_stopped() -> None:
    stage = Stage(fleet=FakeFleet(devices=(a_rover(),), script=["stopped"]))
    await stage.say("drive")
    await stage.say("again")
    assert stage.moved == ["drive"]


async def test_a_wish_ends_though_its_persona_is_gone_since_a_restart() -> None:
    stage, request = Stage(), an_intent("beep", persona="gone")
    stage.orchestrator.performer(request, cancellation=Cancellation(), received_at=0.0)
    reply = await stage.orchestrator.conclude(Wish(request=request), cancellation=Cancellation(), received_at=0.0)
    assert (reply.id, reply.intent) == (request.id, "command")
