"""What daemon and engine process say to each other: one JSON object a line.

JSON rather than pickle, since the process that reads a foreign model file is the one that may be taken over.

::

    to the engine:    {"load": path, "plan": {…}, "limits": {…}, "keep": {…} | null}
                      {"ask": number, …} · {"cancel": number, "cause": …} · {"forget": session}
    to the daemon:    {"progress": share} · {"loaded": true} | {"failed": message}
                      {"text": …, "of": number} · {"end": {…}, "of": number} | {"error": {…}, "of": number}
                      {"figures": {…}, "stalled_for": seconds}                    every second, as a heartbeat
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from naila.errors import ContextOverflowError, EngineBusyError, EngineFailedError, GenerationError
from naila.events import Usage
from naila.inference.host import Ask
from naila.inference.job import EngineLimits
from naila.inference.kv_store import KeepPlan
from naila.inference.request import Completion
from naila.inference.sampling import Sampling
from naila.ports import ChatMessage, EnginePlan

Message = Mapping[str, Any]


def dump(message: Message) -> bytes:
    """Write one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def parse(line: bytes) -> Message:
    """Read one line.

    Raises:
        ValueError: it is not one.
    """
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not an object")  # noqa: TRY004
    return message


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
    """Read what `end_message` wrote."""
    if "end" in message:
        return Completion(**{**message["end"], "usage": Usage(**message["end"]["usage"])})
    error = message["error"]
    match error["kind"]:
        case "ContextOverflowError":
            return ContextOverflowError(error["message"], tokens=error["tokens"], limit=error["limit"])
        case "EngineBusyError":
            return EngineBusyError(error["message"])
        case "EngineFailedError":
            return EngineFailedError(error["message"], code=error["code"])
    return GenerationError(error["message"])
