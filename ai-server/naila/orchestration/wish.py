"""A wish: the steps that somebody asked for, one after another, until done, failed, or a person must approve one.

::

    perform ─┬→ perform            the next step
             ├→ approval ─→ perform    a person must say yes: the graph is interrupted, for minutes or a restart
             └→ (over)

Most wishes need nobody's approval and never see the graph: `carry_out` is enough for them, and costs nothing. One whose
step came back `pending` goes on in the graph, where each step begins only when what was known before it is on disk: so
after a power cut it can still be said truly what was done, what was not, and what nobody knows.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, TypedDict

# LangGraph's tracer would send every wish to a cloud wherever these happen to be set for another program.
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"
# Nothing but plain data is ever read back from a checkpoint.
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

from naila.errors import ErrorCode, StorageError
from naila.events import Intent
from naila.fleet import Outcome, OutcomeStatus, Proposal
from naila.kept import NOT_KNOWN
from naila.orchestration.kept_wish import read_wish, write_wish
from naila.orchestration.wanted import Wish
from naila.ports import Cancellation, Fleet

Answer: TypeAlias = Literal["approved", "denied", "expired", "stopped", "cancelled", "lost", "unheard"]

NOT_APPROVED: Final[dict[Answer, tuple[OutcomeStatus, ErrorCode | None, str]]] = {
    "denied": ("refused", "not_confirmed", "it was not approved"),
    "expired": ("refused", "not_confirmed", "nobody approved it in time"),
    "stopped": ("stopped", None, "an emergency stop came before it was approved"),
    "cancelled": ("refused", "not_confirmed", "the request was cancelled before it was approved"),
    "lost": ("refused", "not_confirmed", "the brain restarted before it was approved"),
    "unheard": ("refused", "not_confirmed", "the yes came too late, or could not be kept"),
}
MAX_NODES: Final = 1000  # LangGraph's own bound; the number of steps is bounded before
FAILED: Final = "the brain failed before it was known what became of it"
STOPPED: Final = "an emergency stop came after this was asked"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Performer:
    """What a wish is carried out with.

    Attributes:
        fleet: the only way to move a device.
        cancellation: no further step begins after it.
        stopped: whether an emergency stop of a device came since the wish was spoken.
        expires_at_monotonic: no step begins after this, in seconds on the monotonic clock; None: no such limit.
        more: what is to be done next, judged by what was done; nothing where that was all.
    """

    fleet: Fleet
    cancellation: Cancellation
    stopped: Callable[[str], bool]
    expires_at_monotonic: float | None
    more: Callable[[Wish], Awaitable[tuple[Proposal, ...]]]


async def carry_out(wish: Wish, performer: Performer) -> Wish:
    """Take step after step until the wish is over or waits for a person."""
    while not wish.is_over and wish.pending is None:
        wish = await take_step(wish, performer)
    return wish


async def take_step(wish: Wish, performer: Performer, *, confirmation: str | None = None) -> Wish:
    """Take the next step, or find out that there is none.

    Args:
        wish: neither over nor waiting.
        performer: what it is carried out with.
        confirmation: a person's approval of exactly this step.
    """
    if performer.cancellation.cause is not None:
        return replace(wish, ended=True)
    if not wish.left:
        left = await performer.more(wish)
        return replace(wish, left=left, ended=not left)
    step = replace(
        wish.left[0],
        confirmation=confirmation,
        expires_at_monotonic=performer.expires_at_monotonic,
        later=wish.left[1:],
    )
    if performer.stopped(step.device_id):
        return wish.with_outcome(Outcome(proposal=step, id=step.request_id, status="stopped", message=STOPPED))
    outcome = await performer.fleet.perform(step, cancellation=performer.cancellation)
    outcome = replace(outcome, proposal=replace(outcome.proposal, later=()))
    if outcome.status == "pending":
        return replace(wish, pending=outcome)
    return wish.with_outcome(outcome)


class _State(TypedDict, total=False):
    wish: str
    answer: Answer | None


_Graph: TypeAlias = CompiledStateGraph[_State, Performer, _State, _State]


class SuspendedWishes:
    """Wishes that wait for a person, kept by a checkpointer under their request; ended ones leave nothing behind.

    Args:
        checkpointer: where they are kept.
        threads: names those that are; raises StorageError.
    """

    def __init__(self, checkpointer: BaseCheckpointSaver[str], threads: Callable[[], Awaitable[Sequence[str]]]) -> None:
        self._checkpointer = checkpointer
        self._threads = threads
        self._graph = _build(checkpointer)

    async def suspend(self, wish: Wish) -> None:
        """Keep a wish that waits; durable on return.

        Raises:
            StorageError: it cannot be kept.
        """
        thread = _thread(wish.request)
        await self._graph.ainvoke(
            {"wish": write_wish(wish)}, {"configurable": {"thread_id": thread}}, durability="sync"
        )

    async def resume(self, request: Intent, answer: Answer, performer: Performer) -> Wish:
        """Go on with the wish of a request: to its end, or until it waits again.

        Raises:
            StorageError: what was done cannot be kept.
        """
        state = await self._graph.ainvoke(
            Command(resume=answer),
            {"configurable": {"thread_id": _thread(request)}, "recursion_limit": MAX_NODES},
            context=performer,
            durability="sync",
        )
        return read_wish(state["wish"])

    async def found(self) -> AsyncIterator[tuple[Wish, bool]]:
        """Yield what a process that ended left behind: each wish, and whether it waited for a person.

        One that did not wait was being carried out: what became of its next step is not known. One that cannot be
        read is removed: its request is still in the inbox, where it is taken for one that was not answered.

        Raises:
            StorageError: the checkpoints cannot be read.
        """
        for thread in await self._threads():
            try:
                snapshot = await self._graph.aget_state({"configurable": {"thread_id": thread}})
                wish = read_wish(snapshot.values["wish"]) if "wish" in snapshot.values else None
            except Exception:
                log.exception(
                    "what %s wanted waited for a person and cannot be read, so it is forgotten: say it again", thread
                )
                with contextlib.suppress(StorageError):
                    await self._checkpointer.adelete_thread(thread)
                continue
            if wish is not None:
                yield wish, snapshot.next == ("approval",)

    async def end(self, request: Intent) -> None:
        """Forget the wish of a request.

        Raises:
            StorageError: it cannot be removed.
        """
        await self._checkpointer.adelete_thread(_thread(request))


def not_approved(wish: Wish, answer: Answer) -> Wish:
    """Return the wish as it ends when its pending step is not approved."""
    if wish.pending is None:
        return replace(wish, ended=True)
    status, code, message = NOT_APPROVED[answer]
    outcome = replace(wish.pending, status=status, code=code, message=message)
    return replace(wish.with_outcome(outcome), pending=None, ended=True)


def interrupted(wish: Wish, message: str = NOT_KNOWN) -> Wish:
    """Return the wish as it ends when the process died, or something failed, while a step was being taken."""
    if not wish.left:
        return replace(wish, ended=True)
    step = wish.pending or Outcome(proposal=wish.left[0], id=wish.request.id, status="unanswered")
    outcome = replace(step, status="unanswered", message=message)
    return replace(wish.with_outcome(outcome), pending=None, ended=True)


def _build(checkpointer: BaseCheckpointSaver[str]) -> _Graph:
    graph = StateGraph(_State, context_schema=Performer)
    graph.add_node("approval", _approval)
    graph.add_node("perform", _perform)
    graph.add_conditional_edges(START, _next, ["approval", "perform", END])
    graph.add_edge("approval", "perform")
    graph.add_conditional_edges("perform", _next, ["approval", "perform", END])
    return graph.compile(checkpointer=checkpointer, name="wish")


async def _approval(state: _State) -> _State:
    """Wait for a person."""
    pending = read_wish(state["wish"]).pending
    return {"answer": interrupt(pending.id if pending else "")}


async def _perform(state: _State, runtime: Runtime[Performer]) -> _State:
    """Take one step: what a person approved, or the next."""
    wish, answer = read_wish(state["wish"]), state.get("answer")
    if wish.pending is not None:
        if answer != "approved":
            return {"wish": write_wish(not_approved(wish, answer or "denied")), "answer": None}
        approved = wish.pending.id
        wish = await take_step(replace(wish, pending=None), runtime.context, confirmation=approved)
    else:
        wish = await take_step(wish, runtime.context)
    return {"wish": write_wish(wish), "answer": None}


async def _next(state: _State) -> str:
    wish = read_wish(state["wish"])
    if wish.pending is not None:
        return "approval"
    return END if wish.is_over else "perform"


def _thread(request: Intent) -> str:
    """Return the name that a wish is kept under: request ids are a device's own."""
    return f"{request.device_id}/{request.id}"
