"""The flight record: what the brain did last, in files that are there after any crash, for `naila doctor --report`.

Ids, times, sizes and outcomes; what was said only where RECORD_WORDS says so.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from naila.events import Alert, ErrorNotice, Health, Intent, JsonValue, Outbound, Reply
from naila.ports import Publisher
from naila.server.ring import Ring, read_ring

TURNS: Final = "turns"
REFUSALS: Final = "refusals"
BRAIN: Final = "brain"
LOG: Final = "log"
_SLOTS: Final = 256
_LOG_SLOTS: Final = 1024
_MOST_WORDS: Final = 1000


def flight_folder(memory_path: Path) -> Path:
    """Return where the record of the daemon with this database lies."""
    return memory_path.parent / "flight"


def log_ring(folder: Path) -> Ring:
    """Return what keeps the last log lines."""
    return Ring(folder / LOG, slots=_LOG_SLOTS)


class FlightRecord:
    """A publisher that notes what passes through it: turns, refusals, and how the brain was.

    Args:
        publisher: takes the events.
        folder: where the files lie.
        words: whether what was said is noted, too.
    """

    def __init__(self, publisher: Publisher, folder: Path, *, words: bool) -> None:
        self._publisher = publisher
        self._words = words
        self._turns = Ring(folder / TURNS, slots=_SLOTS * (4 if words else 1))
        self._refusals = Ring(folder / REFUSALS, slots=_SLOTS)
        self._brain = Ring(folder / BRAIN, slots=_SLOTS)
        self._refused: tuple[tuple[str, str], int] | None = None
        self._health: tuple[object, ...] = ()

    def publish(self, event: Outbound, *, to: Intent | None = None) -> None:
        """Send an event on and note it."""
        self._publisher.publish(event, to=to)
        match event:
            case Reply():
                self._turns.append(_line(_turn(event, to, words=self._words)))
            case ErrorNotice():
                self._note_refusal(event)
            case Alert():
                fields = {"code": event.code, "severity": event.severity, "message": event.message}
                self._brain.append(_line({"kind": "alert", "device_id": event.device_id, **fields}))
            case Health():
                self._note_health(event)

    def _note_refusal(self, notice: ErrorNotice) -> None:
        """Note a refusal; of many of a kind in a row only how many, so that a flood washes nothing away.

        Not its message, which may quote what was sent.
        """
        kind = (notice.device_id, notice.code)
        times = self._refused[1] + 1 if self._refused is not None and self._refused[0] == kind else 1
        self._refused = kind, times
        fields: dict[str, JsonValue] = {"device_id": notice.device_id, "code": notice.code, "id": notice.id}
        line = _line({**fields, "times": times})
        if times > 1:
            self._refusals.replace_last(line)
        else:
            self._refusals.append(line)

    def _note_health(self, health: Health) -> None:
        components = {name: (part.status, part.detail) for name, part in health.components.items()}
        # Not the details: some count.
        state = (health.status, health.phase, tuple((name, status) for name, (status, _) in components.items()))
        if state == self._health:
            return
        self._health = state
        shown: dict[str, JsonValue] = {name: {"status": is_, "detail": why} for name, (is_, why) in components.items()}
        fields: dict[str, JsonValue] = {"status": health.status, "version": health.version, "phase": health.phase}
        self._brain.append(_line({"kind": "health", **fields, "uptime_s": health.uptime_s, "components": shown}))


def read_record(folder: Path) -> Mapping[str, list[JsonValue]]:
    """Return what the files hold, by file, oldest first.

    Raises:
        OSError: a file is there and cannot be read.
    """
    return {name: [_parsed(line) for line in read_ring(folder / name)] for name in (TURNS, REFUSALS, BRAIN, LOG)}


def forget_turns(folder: Path) -> None:
    """Empty the record of turns, which may hold words; a daemon that has it open writes on.

    Raises:
        OSError: it is there and cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        os.truncate(folder / TURNS, 0)


def _turn(reply: Reply, asked: Intent | None, *, words: bool) -> dict[str, JsonValue]:
    timing, usage = reply.timing, reply.usage
    fields: dict[str, JsonValue] = {
        "device_id": reply.device_id,
        "id": reply.id,
        "conversation_id": reply.conversation_id,
        "intent": reply.intent,
        "source": reply.source,
        "finish_reason": reply.finish_reason,
        "degraded": reply.degraded,
        "actions": len(reply.actions),
        "asked_chars": len(asked.text) if asked is not None else None,
        "said_chars": len(reply.text),
        "tokens": [usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens],
        "ms": [round(timing.queue_ms), round(timing.ttft_ms), round(timing.total_ms)],
    }
    if words:
        fields["asked"] = asked.text[:_MOST_WORDS] if asked is not None else None
        fields["said"] = reply.text[:_MOST_WORDS]
    return fields


def _line(fields: Mapping[str, JsonValue]) -> str:
    stamped = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
    return json.dumps(stamped, ensure_ascii=False, separators=(",", ":"))


def _parsed(line: str) -> JsonValue:
    """Return a line's fields; a torn one as it is."""
    try:
        fields: JsonValue = json.loads(line)
    except ValueError:
        return line
    return fields
