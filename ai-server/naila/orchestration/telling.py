"""What became of actions, what is asked back and what cannot be done, in words: never more than is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from naila.events import JsonValue
from naila.fleet import SET_PARAMETER, FleetView, Outcome
from naila.orchestration.naming import (
    TIMES,
    allowed_words,
    deed,
    device_name,
    listed,
    parameter_of,
    plain,
    properties_of,
    quoted,
    raw_words,
    room_of,
    schema_of,
    sentence,
    spec_of,
    spoken,
    text_of,
)
from naila.orchestration.patterns import Voice
from naila.understanding.reading import CannotDo, OpenQuestion, Step

SHOWN_RESULTS: Final = 6
REASONS: Final = frozenset(
    {"expired", "rate_limited", "not_confirmed", "device_offline", "unknown_action", "busy"},
)


def tell(
    outcomes: Sequence[Outcome], view: FleetView, voice: Voice, request_id: str, *, not_begun: Sequence[Step] = ()
) -> str:
    """Return what became of the steps of a request.

    Args:
        outcomes: in the order of the steps.
        view: the devices.
        voice: who tells it.
        request_id: chooses among phrasings.
        not_begun: the steps that were wanted after these and left, because of what became of them.
    """
    said: list[str] = []
    for is_done, group in groupby(outcomes, lambda outcome: outcome.status == "done"):
        if is_done:
            said += _done(list(group), view, voice, request_id)
        else:
            said += [_not_done(outcome, view, voice, request_id) for outcome in group]
    if not_begun:
        deeds = _deeds([(step.device_id, step.name, step.arguments) for step in not_begun], view)
        said.append(voice.say("action_not_begun", request_id, {"deeds": deeds}))
    return " ".join(said) or voice.say("action_nothing", request_id)


def ask(question: OpenQuestion, view: FleetView, voice: Voice, request_id: str) -> str:
    """Return the words of a question back: what is missing, and what it may be."""
    who = _who(question.device_id, view)
    if question.kind == "device":
        choices = [_with_room(view, device_id) for device_id in question.choices]
        key = "ask_device" if choices else "ask_again"
        return voice.say(key, request_id, {"choices": listed(choices, "or"), "who": who})
    if question.kind == "action" or question.action is None or question.argument is None:
        choices = [f"“{spoken(action)}”" for action in question.choices]
        key = "ask_action" if choices else "ask_again"
        return voice.say(key, request_id, {"choices": listed(choices, "or"), "who": who})
    return _ask_argument(question, question.argument, view, voice, request_id)


def cannot(reading: CannotDo, view: FleetView, voice: Voice, request_id: str) -> str:
    """Return why a command is not obeyed: what was asked, and what is allowed."""
    schema = properties_of(spec_of(view, reading.device_id, reading.action)).get(reading.argument or "", {})
    asked = quoted(reading.asked, 80) if reading.code == "unknown_action" else plain(reading.asked, 80)
    allowed = plain(reading.allowed, 300) or allowed_words(schema)
    fields = {
        "asked": asked,
        "allowed": allowed,
        "action": spoken(reading.action or "") or "this",
        "argument": spoken(reading.argument or "") or "value",
        "who": _who(reading.device_id, view),
    }
    if not reading.asked:
        return voice.say("cannot_at_all", request_id, fields)
    if reading.code == "unknown_action" or not allowed:
        return voice.say("cannot_do_but" if allowed else "cannot_do", request_id, fields)
    return voice.say("cannot_range" if reading.code == "out_of_range" else "cannot_value", request_id, fields)


def _done(outcomes: list[Outcome], view: FleetView, voice: Voice, request_id: str) -> list[str]:
    proposals = [outcome.proposal for outcome in outcomes]
    devices = {proposal.device_id for proposal in proposals}
    deeds = _deeds([(each.device_id, each.name, each.arguments) for each in proposals], view)
    if len(devices) == 1 and proposals[0].device_id != view.speaker:
        fields = {"deeds": deeds, "device": device_name(view, proposals[0].device_id)}
        said = [sentence(voice.say("action_done_by", request_id, fields))]
    else:
        said = [voice.say("action_done", request_id, {"deeds": deeds})]
    for outcome in outcomes[:SHOWN_RESULTS]:
        if words := _result_words(_news(outcome)):
            fields = {"device": device_name(view, outcome.proposal.device_id), "words": words}
            said.append(voice.say("action_report", request_id, fields))
    return said


def _deeds(steps: Sequence[tuple[str, str, Mapping[str, JsonValue]]], view: FleetView) -> str:
    several = len({device_id for device_id, _, _ in steps}) > 1
    words = [
        f"{deed(view, device_id, name, arguments)}{f' ({device_name(view, device_id)})' if several else ''}"
        for device_id, name, arguments in steps
    ]
    return ", then ".join(words)


def _news(outcome: Outcome) -> JsonValue:
    """Return what a device returned, less what only repeats the wish: "drive 0.5 m" that was driven 0.5 m is done."""
    result, asked = outcome.result, outcome.proposal.arguments
    if not isinstance(result, dict):
        return None if any(_is_same(result, value) for value in asked.values()) else result
    named = {asked["name"]: asked["value"]} if {"name", "value"} <= asked.keys() else {}
    wished = {**asked, **{str(name): value for name, value in named.items()}}
    return {name: value for name, value in result.items() if name not in wished or not _is_same(value, wished[name])}


def _is_same(told: JsonValue, asked: JsonValue) -> bool:
    if isinstance(told, bool) or isinstance(asked, bool) or not isinstance(told, int | float):
        return told == asked and told is not None
    return isinstance(asked, int | float) and abs(told - asked) <= 0.02 * abs(asked)


def _result_words(result: JsonValue) -> str:
    """Return what a device returned, as its words; nothing where it says no more than that it was done."""
    if result in (None, "", {}, []) or isinstance(result, bool):
        return ""
    if isinstance(result, str) and result.strip().lower() in {"", "ok", "done", "success"}:
        return ""
    if isinstance(result, dict):
        parts = [f"{spoken(name)} {raw_words(value)}" for name, value in list(result.items())[:SHOWN_RESULTS]]
        return quoted(", ".join(parts))
    return quoted(raw_words(result))


def _not_done(outcome: Outcome, view: FleetView, voice: Voice, request_id: str) -> str:
    proposal = outcome.proposal
    device = device_name(view, proposal.device_id)
    fields = {"deed": deed(view, proposal.device_id, proposal.name, proposal.arguments), "device": device}
    if proposal.device_id != view.speaker and outcome.status != "pending":
        fields["deed"] += f" ({device})"
    match outcome.status:
        case "failed" if outcome.message:
            words = quoted(outcome.message)
            return voice.say("action_failed_because", request_id, {**fields, "words": words})
        case "refused":
            code = outcome.code if outcome.code in REASONS else "other"
            reason = sentence(plain(outcome.message, 300)) or voice.say(f"reason_{code}", request_id, fields)
            return voice.say("action_refused", request_id, {**fields, "reason": reason})
        case "pending" if outcome.question:
            return plain(outcome.question, 400)
    return voice.say(f"action_{outcome.status}", request_id, fields)


def _ask_argument(question: OpenQuestion, argument: str, view: FleetView, voice: Voice, request_id: str) -> str:
    spec = spec_of(view, question.device_id, question.action)
    schema = properties_of(spec).get(argument, {})
    allowed = allowed_words(schema)
    if question.choices:
        allowed = listed([plain(choice, 64) for choice in question.choices[:20]], "or")
    fields = {
        "who": _who(question.device_id, view),
        "action": spoken(question.action or ""),
        "argument": spoken(argument),
        "allowed": allowed,
    }
    if question.action == SET_PARAMETER:
        return _ask_setting(question, fields, view, voice, request_id)
    description = plain(text_of(schema, "description"), 60).rstrip(".?! ")
    if description.lower().startswith("how ") and allowed:
        how = description[0].upper() + description[1:]
        return voice.say("ask_how", request_id, {**fields, "how": how})
    if argument in TIMES and allowed:
        return voice.say("ask_times", request_id, fields)
    if isinstance(schema.get("enum"), list) or question.choices or schema.get("type") == "boolean":
        return voice.say("ask_which" if allowed else "ask_open", request_id, fields)
    return voice.say("ask_what" if allowed else "ask_open", request_id, fields)


def _ask_setting(
    question: OpenQuestion, fields: Mapping[str, str], view: FleetView, voice: Voice, request_id: str
) -> str:
    name = question.arguments.get("name")
    parameter = parameter_of(view, question.device_id, name)
    if parameter is None or not isinstance(name, str):
        return voice.say("ask_which" if fields["allowed"] else "ask_again", request_id, fields)
    allowed = allowed_words(schema_of(parameter))
    if not parameter.enum and parameter.type != "boolean":
        allowed = fields["allowed"] or allowed
    named = {**fields, "argument": spoken(name), "allowed": allowed}
    return sentence(voice.say("ask_value" if allowed else "ask_open", request_id, named))


def _who(device_id: str | None, view: FleetView) -> str:
    return "I" if device_id is None or device_id == view.speaker else device_name(view, device_id)


def _with_room(view: FleetView, device_id: str) -> str:
    found = view.device(device_id)
    name = device_name(view, device_id)
    room = room_of(found.profile) if found is not None else ""
    return f"{name} in the {room}" if room and f"({room})" not in name else name
