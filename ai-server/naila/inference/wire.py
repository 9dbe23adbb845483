"""What daemon and engine process say to each other: one JSON object a line.

JSON rather than pickle, since the process that reads a foreign model file is the one that may be taken over.

::

    to the engine:    {"load": path, "plan": {…}, "limits": {…}, "keep": {…} | null}
                      {"ask": number, …} · {"cancel": number, "cause": …} · {"forget": session}
    to the daemon:    {"progress": share} · {"loaded": true} | {"failed": message}
                      {"text": …, "of": number} · {"end": {…}, "of": number} | {"error": {…}, "of": number}
                      {"figures": {…}, "stalled_for": seconds}                    every second, as a heartbeat
                      {"log": text, "level": number, "logger": name}
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final, get_args

from naila.errors import ContextOverflowError, EngineBusyError, EngineFailedError, GenerationError
from naila.events import FinishReason, Usage
from naila.inference.host import Ask
from naila.inference.job import EngineLimits
from naila.inference.kv_store import KeepPlan
from naila.inference.request import Completion
from naila.inference.sampling import Sampling
from naila.ports import ChatMessage, EnginePlan

Message = Mapping[str, Any]

MAX_LOG_CHARS: Final = 8192
_WITH_DATA: Final = ("ContextOverflowError", "EngineFailedError")


def dump(message: Message) -> bytes:
    """Write one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def parse(line: bytes) -> Message:
    """Read one line.

    Raises:
        ValueError: it is not one.
    """
    try:
        message = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("not an object")  # noqa: TRY004
    return message


def log_message(level: int, logger: str, text: str) -> Message:
    """Pass a log line on."""
    return {"log": text[:MAX_LOG_CHARS], "level": level, "logger": logger}


def read_log(message: Message) -> tuple[int, str, str]:
    """Read what `log_message` wrote: level, logger and text."""
    level, logger = int(read_number(message["level"])), str(message["logger"])[:100]
    if not logger.startswith("naila."):
        logger = f"naila.inference.worker.{logger}"
    return min(max(level, logging.DEBUG), logging.CRITICAL), logger, str(message["log"])[:MAX_LOG_CHARS]


def load_message(path: Path, plan: EnginePlan, limits: EngineLimits, keep: KeepPlan | None) -> Message:
    """Ask for a model to be loaded."""
    kept = {"folder": str(keep.folder), "budget_bytes": keep.budget_bytes} if keep is not None else None
    return {"load": str(path), "plan": asdict(plan), "limits": asdict(limits), "keep": kept}


def read_load(message: Message) -> tuple[Path, EnginePlan, EngineLimits, KeepPlan | None]:
    """Read what `load_message` wrote."""
    kept = message["keep"]
    keep = KeepPlan(folder=Path(kept["folder"]), budget_bytes=kept["budget_bytes"]) if kept is not None else None
    return Path(message["load"]), EnginePlan(**message["plan"]), EngineLimits(**message["limits"]), keep


def ask_message(number: int, ask: Ask) -> Message:
    """Ask something."""
    values: dict[str, Any] = {field.name: getattr(ask, field.name) for field in fields(ask)}
    if not isinstance(ask.messages, str):
        values["messages"] = [(message.role, message.content) for message in ask.messages]
    return {**values, "sampling": asdict(ask.sampling), "ask": number}


def read_ask(message: Message) -> Ask:
    """Read what `ask_message` wrote."""
    values = {field.name: message[field.name] for field in fields(Ask)}
    if not isinstance(values["messages"], str):
        values["messages"] = [ChatMessage(role, content) for role, content in values["messages"]]
    return Ask(**{**values, "sampling": Sampling(**values["sampling"]), "stop": tuple(values["stop"])})


def end_message(number: int, end: Completion | GenerationError) -> Message:
    """Say how a request ended."""
    if isinstance(end, Completion):
        return {"end": asdict(end), "of": number}
    data = {name: getattr(end, name) for name in ("tokens", "limit", "code") if hasattr(end, name)}
    return {"error": {"kind": type(end).__name__, "message": str(end), **data}, "of": number}


def read_end(message: Message) -> Completion | GenerationError:
    """Read what `end_message` wrote.

    Raises:
        ValueError: it did not write that.
    """
    match message:
        case {"end": dict(end)}:
            return _completion(end)
        case {
            "error": {"kind": "ContextOverflowError", "message": str(why), "tokens": int(tokens), "limit": int(most)}
        }:
            return ContextOverflowError(why, tokens=tokens, limit=most)
        case {"error": {"kind": "EngineBusyError", "message": str(why)}}:
            return EngineBusyError(why)
        case {"error": {"kind": "EngineFailedError", "message": str(why), "code": int() | None as code}}:
            return EngineFailedError(why, code=code)
        case {"error": {"kind": str(kind), "message": str(why)}} if kind not in _WITH_DATA:
            return GenerationError(why)
    raise ValueError("an end that says neither how nor why")


def _completion(end: Mapping[str, Any]) -> Completion:
    try:
        completion = Completion(**{**end, "usage": Usage(**end["usage"])})
    except (KeyError, TypeError) as exc:
        raise ValueError(f"a completion that is none: {exc}") from exc
    usage = completion.usage
    counts = usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, completion.dropped_messages
    if completion.finish_reason not in get_args(FinishReason) or not all(type(count) is int for count in counts):
        raise ValueError("a completion with a reason or a count that is none")
    for time in (completion.queue_ms, completion.ttft_ms, completion.total_ms, completion.decode_s):
        read_number(time)
    return completion


def read_number(value: object) -> float:
    """Read a finite number.

    Raises:
        ValueError: it is none.
    """
    try:
        if isinstance(value, int | float) and math.isfinite(value):
            return value
    except OverflowError:
        pass
    raise ValueError("not a finite number")


def read_figures(value: object) -> dict[str, float]:
    """Read figures, each with its name.

    Raises:
        ValueError: they are none.
    """
    if not isinstance(value, dict):
        raise ValueError("figures that are no object")  # noqa: TRY004 - what is read is wrong, not the call
    return {str(name): read_number(figure) for name, figure in value.items()}
