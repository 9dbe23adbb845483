"""Doing what a text was read as: carrying out, asking back, stopping, taking a yes or a no.

Nothing here says that something was done unless the device said so.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final, assert_never

from naila.errors import ContractError, ErrorCode, StorageError
from naila.events import ErrorNotice, Intent, JsonValue
from naila.fleet import STOP, FleetView, Outcome, Pending, Proposal, ProposedBy
from naila.orchestration.choice import choose
from naila.orchestration.naming import device_name
from naila.orchestration.patterns import Voice
from naila.orchestration.state import Attended, Draft, TurnContext, TurnState, Understanding
from naila.orchestration.telling import ask, cannot, tell
from naila.orchestration.wanted import Wish
from naila.orchestration.wish import Performer, carry_out, not_approved
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

ACTION: Final = "action"
# Words are read where the device does not say that they mean something else; a stop is always one.
READ_INTENTS: Final = frozenset({None, "command", "question", "capabilities", "unknown"})
MAX_WAIT_S: Final = 60.0
MAX_CHOICES: Final = 8
TOO_OLD: Final = "this waited for the brain, nobody knows for how long"
KEEPS_THE_COMMAND: Final = frozenset({"thanks", "affirm"})
PROPOSED_BY: Final[dict[str, ProposedBy]] = {"template": "pattern", "similarity": "similarity"}

log = logging.getLogger(__name__)


def read(request: Intent, view: FleetView, context: TurnContext) -> tuple[Reading, ProposedBy | None]:
    """Return what a request wants of the devices, and what proposes it, where that is not what read the words.

    Raises:
        ContractError: the request names an action, and not as the contract says.
    """
    if request.intent == ACTION:
        return Commands((_named_step(request),)), "api"
    if request.intent == STOP:
        return Stop(device_ids=(_device_of(request),)), "api"
    attended = context.attended
    reading = context.reader.read(
        request.text, view, question=attended.question, about=attended.about, last=attended.steps
    )
    if context.already_stopped and isinstance(reading, NotACommand | Doubtful):
        # The words of a stop are of more languages than commands are.
        return Stop(device_ids=context.already_stopped), None
    if request.intent not in READ_INTENTS and not isinstance(reading, Stop):
        return NotACommand(), None
    if isinstance(reading, Repeat):
        return (Commands(attended.steps) if attended.steps else NotACommand()), None
    return reading, None


def settled(request: Intent, understanding: Understanding, reading: Reading, context: TurnContext) -> Pending | None:
    """Return the pending action that a spoken yes or no is an answer to: the one that was asked about last."""
    is_answer = isinstance(reading, Withdrawn) or (
        isinstance(reading, NotACommand | Doubtful)
        and understanding.intent in {"affirm", "deny"}
        # "Right?" wants to be told.
        and not request.text.rstrip().endswith("?")
    )
    if not is_answer or context.attended.question is not None:
        return None
    awaited = context.approvals.awaited(request)
    return awaited[-1] if awaited else None


def wanted(request: Intent, steps: tuple[Step, ...], by: ProposedBy | None) -> tuple[Proposal, ...]:
    """Return what is proposed to the devices."""
    return tuple(
        Proposal(
            device_id=step.device_id,
            name=step.name,
            arguments=step.arguments,
            request_id=request.id,
            speaker=request.device_id,
            user_id=request.user_id,
            by=by or PROPOSED_BY[step.certainty],
        )
        for step in steps
    )


async def act(state: TurnState, context: TurnContext) -> TurnState:
    """Do what was read, and say what became of it; or suspend the turn where a person must approve."""
    request, view, reading = state["request"], state["view"], state["reading"]
    pending = settled(request, state["understanding"], reading, context)
    if pending is not None:
        return await _settle(pending, state, context)
    match reading:
        case Commands(steps=steps):
            return await _carry_out(steps, state, context)
        case Stop():
            return _stop(reading, state, context)
        case AskBack(question=question):
            return _ask(question, state, context)
        case Doubtful():
            return _doubt(reading, state, context)
    voice, intent = _voice(context), "command"
    match reading:
        case CannotDo():
            text = cannot(reading, view, voice, request.id)
            refuse(request, reading.code, text, context)
        case Withdrawn():
            text, intent = voice.say("deny", request.id), "deny"
        case NotACommand() | Repeat() | StateQuestion():
            # A yes or no that came as its question expired.
            text = voice.say("reason_not_confirmed", request.id)
        case _:
            assert_never(reading)
    return _said(state, context, text, replace(context.attended, question=None), intent=intent)


async def select(state: TurnState, context: TurnContext) -> TurnState:
    """Let the model choose among the declared actions that the words may mean."""
    reading = state["reading"]
    if not isinstance(reading, Doubtful):
        return {}
    chosen = await choose(state["request"], reading, state["view"], context.model, cancellation=context.cancellation)
    if isinstance(chosen, NotACommand) and state["understanding"].intent in {"command", "unknown"}:
        return {"reading": CannotDo(code="unknown_action", device_id=None)}
    doubtful = reading if isinstance(chosen, Commands) else None
    return {"reading": chosen, "by": "model", **({"doubtful": doubtful} if doubtful is not None else {})}


def performer(request: Intent, context: TurnContext, cancellation: Cancellation) -> Performer:
    """Return what the wish of a request is carried out with."""
    expires_at = None if request.expires_in_ms is None else context.received_at + request.expires_in_ms / 1000

    async def more(wish: Wish) -> tuple[Proposal, ...]:
        return await _more(wish, context, cancellation)

    return Performer(
        fleet=context.fleet,
        cancellation=cancellation,
        stopped=context.stopped,
        expires_at_monotonic=expires_at,
        more=more,
    )


def told(wish: Wish, view: FleetView, context: TurnContext) -> Draft:
    """Say what became of a wish."""
    left = tuple(Step(device_id=each.device_id, name=each.name, arguments=each.arguments) for each in wish.left)
    context.speech.say(tell(wish.outcomes, view, _voice(context), wish.request.id, not_begun=left))
    return Draft(
        text=context.speech.text,
        source="action",
        degraded=not context.model.is_loaded,
        finish_reason=context.cancellation.cause or "stop",
        actions=tuple(outcome.as_action() for outcome in wish.outcomes),
    )


def after_talk(understanding: Understanding, attended: Attended) -> Attended:
    """Return what a conversation is about after something was said that was no command."""
    if understanding.clock is not None:
        return replace(attended, asked=None)
    kept = attended.steps if understanding.intent in KEEPS_THE_COMMAND else ()
    return replace(attended, question=None, steps=kept, asked=None)


def refuse(request: Intent, code: ErrorCode, message: str, context: TurnContext) -> None:
    """Publish that something was refused."""
    notice = ErrorNotice(device_id=request.device_id, code=code, message=message, id=request.id)
    context.publisher.publish(notice, to=request)


async def _carry_out(steps: tuple[Step, ...], state: TurnState, context: TurnContext) -> TurnState:
    request = state["request"]
    wish = Wish(request=request, left=wanted(request, steps, state.get("by")), doubtful=state.get("doubtful"))
    refusal = _refused_at_once(wish, context)
    if refusal is not None:
        code, message = refusal
        refuse(request, code, message, context)
        outcome = Outcome(proposal=wish.left[0], id=request.id, status="refused", code=code, message=message)
        wish = wish.with_outcome(outcome)
    else:
        context.unhurried()
        wish = await carry_out(wish, performer(request, context, context.cancellation))
    # Nobody wants again what was stopped.
    was_stopped = any(outcome.status == "stopped" for outcome in wish.outcomes)
    attended = Attended(steps=() if was_stopped else steps, about=steps[-1].device_id)
    understanding = replace(state["understanding"], intent="command")
    if wish.pending is not None:
        asked = wish.pending.id
        try:
            await context.approvals.suspend(wish)
        except StorageError:
            log.exception("turn %s of %s: its wish cannot be kept", request.id, request.device_id)
            wish = not_approved(await _withdraw(wish, context), "denied")
        else:
            return {"attended": replace(attended, asked=asked), "understanding": understanding}
    draft = told(wish, context.fleet.view(request.device_id), context)
    return {"draft": draft, "attended": attended, "understanding": understanding}


def _refused_at_once(wish: Wish, context: TurnContext) -> tuple[ErrorCode, str] | None:
    """Return why none of the steps may begin."""
    if len(wish.left) > context.max_actions:
        return "rate_limited", f"{len(wish.left)} steps were asked for at once, {context.max_actions} are allowed"
    if context.is_old:
        return "expired", f"{TOO_OLD}: say it again if it is still wanted"
    if (stopped := next((each for each in wish.left if context.just_stopped(each.device_id)), None)) is not None:
        return "expired", f"{stopped.device_id} was stopped at the same moment: say it again if it is still wanted"
    waited = context.started_at - context.received_at
    if waited > MAX_WAIT_S:
        return "expired", f"this was asked {waited:.0f} s ago, and a command waits no longer than {MAX_WAIT_S:.0f} s"
    return None


async def _withdraw(wish: Wish, context: TurnContext) -> Wish:
    if wish.pending is not None:
        try:
            await context.fleet.settle(wish.request.device_id, wish.pending.id, approve=False)
        except ContractError:
            log.debug("the pending action %s is gone already", wish.pending.id)
    return wish


async def _more(wish: Wish, context: TurnContext, cancellation: Cancellation) -> tuple[Proposal, ...]:
    """Ask the model that chose the last step for the next one."""
    doubtful = wish.doubtful
    if doubtful is None or not (context.model.is_loaded and context.model.may_act):
        return ()
    room = min(doubtful.clauses, context.max_actions) - len(wish.outcomes)
    if room <= 0:
        return ()
    view = context.fleet.view(wish.request.device_id)
    chosen = await choose(wish.request, doubtful, view, context.model, done=wish.outcomes, cancellation=cancellation)
    return wanted(wish.request, chosen.steps[:room], "model") if isinstance(chosen, Commands) else ()


def _stop(reading: Stop, state: TurnState, context: TurnContext) -> TurnState:
    request = state["request"]
    sent: list[str] = []
    for device_id in reading.device_ids or (None,):
        sent += context.stop(device_id)
    text = stop_words(tuple(dict.fromkeys(sent)), state["view"], _voice(context), request.id)
    return _said(state, context, text, Attended(about=context.attended.about), intent=STOP)


def stop_words(device_ids: tuple[str, ...], view: FleetView, voice: Voice, request_id: str) -> str:
    """Say whom the emergency stop was sent to: whether they heard it, only they know."""
    names = [device_name(view, device_id) for device_id in device_ids]
    who = ", ".join(names[:MAX_CHOICES]) + (f" and {len(names) - MAX_CHOICES} more" if len(names) > MAX_CHOICES else "")
    return voice.say("stop_sent" if names else "stop_nobody", request_id, {"devices": who})


def _ask(question: OpenQuestion, state: TurnState, context: TurnContext) -> TurnState:
    text = ask(question, state["view"], _voice(context), state["request"].id)
    about = question.device_id or context.attended.about
    return _said(state, context, text, replace(context.attended, question=question, about=about))


def _doubt(reading: Doubtful, state: TurnState, context: TurnContext) -> TurnState:
    """Ask which action is meant, or say that none is known."""
    request = state["request"]
    device_id = reading.candidates[0][0] if reading.candidates else None
    names = tuple(name for each, name in reading.candidates if each == device_id)[:MAX_CHOICES]
    if names:
        return _ask(OpenQuestion(kind="action", device_id=device_id, choices=names, text=request.text), state, context)
    text = cannot(CannotDo(code="unknown_action"), state["view"], _voice(context), request.id)
    return _said(state, context, text, replace(context.attended, question=None))


async def _settle(pending: Pending, state: TurnState, context: TurnContext) -> TurnState:
    """Take a spoken yes or no: its own request is answered at once, the one that waited when that is done.

    A yes approves only what was asked just before: after other words it may be a yes to those, so it is asked again.
    """
    approve = state["understanding"].intent == "affirm" and not isinstance(state["reading"], Withdrawn)
    request = state["request"]
    if approve and context.attended.asked != pending.id:
        return _said(state, context, pending.question, context.attended, intent="affirm", asked=pending.id)
    await context.approvals.settle(request.device_id, pending.id, approve=approve)
    intent = "affirm" if approve else "deny"
    return _said(state, context, _voice(context).say(intent, request.id), context.attended, intent=intent)


def _said(
    state: TurnState,
    context: TurnContext,
    text: str,
    attended: Attended,
    *,
    intent: str = "command",
    asked: str | None = None,
) -> TurnState:
    context.speech.say(text)
    draft = Draft(text=context.speech.text, source="pattern", degraded=not context.model.is_loaded)
    understanding = replace(state["understanding"], intent=intent)
    return {"draft": draft, "attended": replace(attended, asked=asked), "understanding": understanding}


def _named_step(request: Intent) -> Step:
    entities = request.entities
    name, arguments = entities.get(ACTION), entities.get("arguments", {})
    if not isinstance(name, str):
        raise _malformed(request, f"entities: {ACTION}: the name of an action is needed, got {name!r}")
    if not isinstance(arguments, dict):
        raise _malformed(request, f"entities: arguments: must be an object, got {type(arguments).__name__}")
    return Step(device_id=_device_of(request), name=name, arguments=arguments)


def _device_of(request: Intent) -> str:
    device_id: JsonValue = request.entities.get("device", request.device_id)
    if not isinstance(device_id, str):
        raise _malformed(request, f"entities: device: the id of a device is needed, got {device_id!r}")
    return device_id


def _malformed(request: Intent, message: str) -> ContractError:
    return ContractError("bad_payload", message[:300], device_id=request.device_id, request_id=request.id)


def _voice(context: TurnContext) -> Voice:
    return Voice(context.persona, context.phrasebook)
