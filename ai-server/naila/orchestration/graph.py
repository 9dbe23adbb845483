"""The turn as a graph, and the only module that knows LangGraph.

::

    understand → recall ┬→ (select) ┬→ act ────────────┐
                        │           ├→ answer_state ───┤
                        └───────────┼→ answer_clock ───┼→ guard → remember
                                    ├→ generate ───────┤
                                    └→ answer_pattern ─┘

    understand → recall ──→ read_in             while the words still grow: nothing else may come of them
    tell → guard → remember                     the end of a wish that waited for a person

Nodes are plain functions of the state and the turn's context that return only the keys they change. The graph is
compiled once, without a checkpointer: a turn that is interrupted is asked again by its device. What waits for a person
is kept by `naila.orchestration.wish`, and its turn ends without a reply.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from typing import Final, Literal, TypeAlias

# LangGraph's tracer would send every turn to a cloud wherever these happen to be set for another program.
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"  # read when LangGraph is imported first

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from naila.errors import ContextOverflowError, ContractError, EngineBusyError, GenerationError, ModelError, StorageError
from naila.fleet import FleetView
from naila.orchestration import acting, clock, intents
from naila.orchestration.guard import cut_at_sentence
from naila.orchestration.outcome import reply_of, turn_of
from naila.orchestration.patterns import Voice, asks_what_is_known
from naila.orchestration.response_generator import Answer, answer, build_messages, session_of, write_note
from naila.orchestration.state import Draft, TurnContext, TurnState
from naila.orchestration.state_answers import answer_state as state_words
from naila.ports import ChatMessage, Recollection
from naila.understanding.reading import Commands, Doubtful, NotACommand, StateQuestion, Stop

TurnGraph: TypeAlias = CompiledStateGraph[TurnState, TurnContext, TurnState, TurnState]
Route: TypeAlias = Literal["select", "act", "answer_state", "answer_clock", "generate", "answer_pattern"]

ANSWERS: Final = ("act", "answer_state", "answer_clock", "generate", "answer_pattern")

HONEST_INTENTS: Final = frozenset({"capabilities", "command", "help"})

log = logging.getLogger(__name__)


def build_graph() -> TurnGraph:
    """Return the compiled graph; it holds no state and serves every turn."""
    graph = StateGraph(TurnState, context_schema=TurnContext)
    graph.add_node("understand", understand)
    graph.add_node("recall", recall)
    graph.add_node("select", select)
    graph.add_node("act", act)
    graph.add_node("answer_state", answer_state)
    graph.add_node("answer_clock", answer_clock)
    graph.add_node("generate", generate)
    graph.add_node("answer_pattern", answer_pattern)
    graph.add_node("guard", guard)
    graph.add_node("remember", remember)
    graph.add_edge(START, "understand")
    graph.add_edge("understand", "recall")
    graph.add_conditional_edges("recall", decide, ["select", *ANSWERS])
    graph.add_conditional_edges("select", decide, [*ANSWERS])
    graph.add_conditional_edges("act", is_answered, {True: "guard", False: END})
    for answered in ANSWERS[1:]:
        graph.add_edge(answered, "guard")
    graph.add_edge("guard", "remember")
    graph.add_edge("remember", END)
    return graph.compile(name="turn")


def build_ending_graph() -> TurnGraph:
    """Return the graph of the end of a wish that waited for a person: the turn from where it was suspended."""
    graph = StateGraph(TurnState, context_schema=TurnContext)
    graph.add_node("tell", tell)
    graph.add_node("guard", guard)
    graph.add_node("remember", remember)
    graph.add_edge(START, "tell")
    graph.add_edge("tell", "guard")
    graph.add_edge("guard", "remember")
    graph.add_edge("remember", END)
    return graph.compile(name="ending")


def build_reading_graph() -> TurnGraph:
    """Return the graph of a transcript that still grows: the turn's way as far as its prompt, which is read in."""
    graph = StateGraph(TurnState, context_schema=TurnContext)
    graph.add_node("understand", understand)
    graph.add_node("recall", recollect)
    graph.add_node("read_in", read_in)
    graph.add_edge(START, "understand")
    graph.add_edge("understand", "recall")
    graph.add_conditional_edges(
        "recall", decide, {"generate": "read_in", "select": END, **dict.fromkeys(set(ANSWERS) - {"generate"}, END)}
    )
    graph.add_edge("read_in", END)
    return graph.compile(name="reading")


async def understand(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Find out what is meant."""
    request, context = state["request"], runtime.context
    view = context.fleet.view(request.device_id)
    # A device that has just declared itself takes the reader some tenths of a second, in which a stop must get through.
    loop = asyncio.get_running_loop()
    reading, by = await loop.run_in_executor(context.reading_thread, acting.read, request, view, context)
    understanding = intents.understand(request, context.phrasebook)
    attended = acting.after_talk(understanding, context.attended)
    return {"understanding": understanding, "view": view, "reading": reading, "by": by, "attended": attended}


async def recall(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Call to mind what was said before. A memory that fails costs the memory, not the answer."""
    try:
        return await recollect(state, runtime)
    except StorageError:
        log.exception("turn %s of %s: memory cannot be read", state["request"].id, state["request"].device_id)
        return _resolved(state, Recollection(), runtime.context)


async def recollect(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Call to mind what was said before."""
    request = state["request"]
    recollection = await runtime.context.memory.recall(request.device_id, request.conversation_id, request.user_id)
    return _resolved(state, recollection, runtime.context)


async def decide(state: TurnState, runtime: Runtime[TurnContext]) -> Route:
    """Choose who answers: the devices and those who know them, the clock and the memory, else the model, else patterns.

    What the robot can do, and whether it did it, is not for a model to say: it would promise anything.
    """
    context, understanding, reading = runtime.context, state["understanding"], state["reading"]
    route: Route = "generate" if context.model.is_loaded else "answer_pattern"
    if acting.settled(state["request"], understanding, reading, context) is not None:
        route = "act"
    elif understanding.clock is not None and not isinstance(reading, Commands | Stop):
        route = "answer_clock"
    elif isinstance(reading, Doubtful) and context.model.is_loaded and context.model.may_act:
        route = "select"
    elif isinstance(reading, StateQuestion) or _asks_what_can_be_done(state):
        route = "answer_state"
    elif not isinstance(reading, NotACommand):
        route = "act"
    elif _is_known(state):
        route = "answer_pattern"
    return route


async def is_answered(state: TurnState) -> bool:
    """Whether there is an answer; else the turn waits for a person, and its answer comes when that did."""
    return "draft" in state


async def select(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Let the model choose among the declared actions that the words may mean."""
    return await acting.select(state, runtime.context)


async def act(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Do what was read, ask back, or say why not."""
    return await acting.act(state, runtime.context)


async def tell(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Say what became of a wish that waited for a person."""
    return {"draft": acting.told(state["wish"], state["view"], runtime.context)}


async def answer_state(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Answer from what devices measure and declared."""
    context, reading, request = runtime.context, state["reading"], state["request"]
    about, intent = context.attended.about, "state"
    if not isinstance(reading, StateQuestion):
        own = request.device_id if _can_do_something(state["view"], request.device_id) else None
        reading, intent = StateQuestion(topic="capabilities", device_id=own), "capabilities"
    context.speech.say(state_words(reading, state["view"], _voice(context), request.id))
    return {
        "draft": Draft(text=context.speech.text, source="pattern", degraded=not context.model.is_loaded),
        "attended": replace(context.attended, about=reading.device_id or about, asked=None),
        "understanding": replace(state["understanding"], intent=intent),
    }


async def answer_clock(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Answer from the clock."""
    context = runtime.context
    question = state["understanding"].clock
    if question is None:
        return await answer_pattern(state, runtime)
    told = clock.answer(question, context.clock.now(), context.world)
    context.speech.say(_voice(context).say(told.key, state["request"].id, told.fields))
    return {"draft": Draft(text=context.speech.text, source="pattern", degraded=not context.model.is_loaded)}


async def answer_pattern(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Answer without the model, and say so where it is missing."""
    context, understanding = runtime.context, state["understanding"]
    voice = _voice(context)
    text = voice.answer(understanding, state["recollection"], state["request"].id)
    degraded = not _is_known(state) or not context.model.is_loaded
    context.speech.say(voice.degraded(text) if degraded else text)
    return {"draft": Draft(text=context.speech.text, source="pattern", degraded=degraded)}


async def generate(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Answer with the model; when it fails, as far as it came, or without it."""
    context, request = runtime.context, state["request"]
    understanding, recollection = state["understanding"], state["recollection"]
    note, messages = _prompt(state, context)
    word = context.persona.name if understanding.intent == "identity" else ""
    try:
        made = await answer(messages, request, context, word)
    except ContextOverflowError as exc:
        log.info("turn %s of %s: %s", request.id, request.device_id, exc)
        return _said(context, _voice(context).say("too_long", request.id), note)
    except EngineBusyError as exc:
        raise ContractError("busy", f"{exc}: come back in a few seconds") from exc
    except (ModelError, GenerationError) as exc:
        log.warning("turn %s of %s: the model failed: %s", request.id, request.device_id, exc)
        if not context.speech.committed:
            context.speech.take_back()
            return await answer_pattern(state, runtime)
        context.speech.say(f" {context.persona.interrupted}")
        return {"draft": Draft(text=context.speech.text, source="llm", degraded=True, note=note)}
    if word and not made.text and made.finish_reason in {"stop", "length"}:
        # The model does not know who it is.
        return _said(context, _voice(context).answer(understanding, recollection, request.id), note)
    return {"draft": _draft(made, note, context.model.model_name)}


async def read_in(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Let the model read what it will be asked, as far as it goes."""
    context = runtime.context
    _, messages = _prompt(state, context)
    await context.model.read_in(messages, session=session_of(state["request"]))
    return {}


async def guard(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Let no empty or half answer out. What was streamed stands: the reply must equal the stream."""
    context, draft, request = runtime.context, state["draft"], state["request"]
    text = draft.text
    if not text and draft.finish_reason != "cancelled":
        key = "timed_out" if draft.finish_reason == "deadline" else "no_answer"
        text = _voice(context).say(key, request.id)
        context.speech.say(text)
        changed = replace(draft, text=text, source="pattern", model=None)
    else:
        cut = draft.source == "llm" and draft.finish_reason in {"length", "deadline"} and not request.stream
        changed = replace(draft, text=cut_at_sentence(text) if cut else text)
    context.speech.close()
    return {"draft": changed}


async def remember(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Keep the turn. A memory that fails costs the memory, not the answer."""
    request, context = state["request"], runtime.context
    reply = reply_of(request, state["understanding"], state["draft"], context)
    turn = turn_of(request, reply, state["draft"].note, context.clock.now())
    try:
        await context.memory.remember(turn, state["understanding"].facts, reply)
    except StorageError:
        log.exception("turn %s of %s: memory cannot be written", request.id, request.device_id)
    return {"reply": reply}


def _resolved(state: TurnState, recollection: Recollection, context: TurnContext) -> TurnState:
    understanding = intents.resolve(state["understanding"], recollection, context.phrasebook)
    return {"recollection": recollection, "understanding": understanding}


def _is_known(state: TurnState) -> bool:
    """Whether the patterns answer better than a model would."""
    understanding = state["understanding"]
    return understanding.intent in HONEST_INTENTS or asks_what_is_known(understanding, state["recollection"])


def _asks_what_can_be_done(state: TurnState) -> bool:
    """Whether the question is what can be done, and there is a device that can do something."""
    if state["understanding"].intent != "capabilities" or not isinstance(state["reading"], NotACommand):
        return False
    return _can_do_something(state["view"], None)


def _can_do_something(view: FleetView, device_id: str | None) -> bool:
    return any(each.profile.actions for each in view.devices if device_id in {None, each.profile.device_id})


def _prompt(state: TurnState, context: TurnContext) -> tuple[str, list[ChatMessage]]:
    """Return the note and the prompt. The note stands before the words: while it is the same, they may still grow."""
    request, recollection = state["request"], state["recollection"]
    note = write_note(request, state["understanding"], recollection, context)
    return note, build_messages(context.persona, recollection, note, request.text, acts=context.model.may_act)


def _voice(context: TurnContext) -> Voice:
    return Voice(context.persona, context.phrasebook)


def _said(context: TurnContext, text: str, note: str) -> TurnState:
    """Say something of our own, though there is a model."""
    context.speech.say(text)
    return {"draft": Draft(text=context.speech.text, source="pattern", degraded=False, note=note)}


def _draft(made: Answer, note: str, model: str | None) -> Draft:
    return Draft(
        text=made.text,
        source="llm",
        degraded=False,
        finish_reason=made.finish_reason,
        note=note,
        model=made.generation.model or model,
        usage=made.generation.usage,
        tokens_per_second=made.generation.tokens_per_second,
        dropped_turns=(made.generation.dropped_messages + 1) // 2,
    )
