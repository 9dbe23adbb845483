"""The turn as a graph, and the only module that knows LangGraph.

::

    understand → recall ─┬→ answer_clock ───┐
                         ├→ generate ───────┼→ guard → remember
                         └→ answer_pattern ─┘

    understand → recall ──→ read_in             while the words still grow

Nodes are plain functions of the state and the turn's context that return only the keys they change. The graph is
compiled once, without a checkpointer: a turn that is interrupted is asked again by its device.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Final, Literal, TypeAlias

# LangGraph's tracer would send every turn to a cloud wherever these happen to be set for another program.
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from naila.errors import ContextOverflowError, ContractError, EngineBusyError, GenerationError, ModelError, StorageError
from naila.orchestration import clock, intents
from naila.orchestration.guard import cut_at_sentence
from naila.orchestration.outcome import reply_of, turn_of
from naila.orchestration.patterns import Voice, asks_what_is_known
from naila.orchestration.response_generator import Answer, answer, build_messages, session_of, write_note
from naila.orchestration.state import Draft, TurnContext, TurnState
from naila.ports import ChatMessage, Recollection

TurnGraph: TypeAlias = CompiledStateGraph[TurnState, TurnContext, TurnState, TurnState]
Route: TypeAlias = Literal["answer_clock", "generate", "answer_pattern"]

HONEST_INTENTS: Final = frozenset({"capabilities", "command", "help"})

log = logging.getLogger(__name__)


def build_graph() -> TurnGraph:
    """Return the compiled graph; it holds no state and serves every turn."""
    graph = StateGraph(TurnState, context_schema=TurnContext)
    graph.add_node("understand", understand)
    graph.add_node("recall", recall)
    graph.add_node("answer_clock", answer_clock)
    graph.add_node("generate", generate)
    graph.add_node("answer_pattern", answer_pattern)
    graph.add_node("guard", guard)
    graph.add_node("remember", remember)
    graph.add_edge(START, "understand")
    graph.add_edge("understand", "recall")
    graph.add_conditional_edges("recall", decide, ["answer_clock", "generate", "answer_pattern"])
    for answered in ("answer_clock", "generate", "answer_pattern"):
        graph.add_edge(answered, "guard")
    graph.add_edge("guard", "remember")
    graph.add_edge("remember", END)
    return graph.compile(name="turn")


def build_reading_graph() -> TurnGraph:
    """Return the graph of a transcript that still grows: the turn's way as far as its prompt, which is read in."""
    graph = StateGraph(TurnState, context_schema=TurnContext)
    graph.add_node("understand", understand)
    graph.add_node("recall", recollect)
    graph.add_node("read_in", read_in)
    graph.add_edge(START, "understand")
    graph.add_edge("understand", "recall")
    graph.add_conditional_edges("recall", decide, {"generate": "read_in", "answer_clock": END, "answer_pattern": END})
    graph.add_edge("read_in", END)
    return graph.compile(name="reading")


async def understand(state: TurnState, runtime: Runtime[TurnContext]) -> TurnState:
    """Find out what is meant."""
    return {"understanding": intents.understand(state["request"], runtime.context.phrasebook)}


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
    """Choose who answers: the clock and the memory where they know, else the model, else the patterns.

    What the robot can do, and whether it will do it, is not for a model to say: it would promise anything.
    """
    if state["understanding"].clock is not None:
        return "answer_clock"
    if _is_known(state):
        return "answer_pattern"
    return "generate" if runtime.context.model.is_loaded else "answer_pattern"


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


def _prompt(state: TurnState, context: TurnContext) -> tuple[str, list[ChatMessage]]:
    """Return the note and the prompt. The note stands before the words: while it is the same, they may still grow."""
    request, recollection = state["request"], state["recollection"]
    note = write_note(request, state["understanding"], recollection, context)
    return note, build_messages(context.persona, recollection, note, request.text)


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
