"""A reply as it is kept: the JSON of its fields, readable by older and newer versions of NAILA."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from naila.events import ActionOutcome, Reply, Timing, Usage

_log = logging.getLogger(__name__)

T = TypeVar("T")


def dump_reply(reply: Reply) -> str:
    """Write a reply as ASCII JSON, in which even a lone surrogate survives."""
    return json.dumps(_plain(reply), separators=(",", ":"))


def load_reply(document: str) -> Reply:
    """Read what `dump_reply` wrote: fields that are unknown here are left out, missing ones take their default."""
    values = json.loads(document)
    values["actions"] = tuple(_build(ActionOutcome, action) for action in values.get("actions", ()))
    values["usage"] = _build(Usage, values.get("usage", {}))
    values["timing"] = _build(Timing, values.get("timing", {}))
    return _build(Reply, values)


def keep_reply(connection: sqlite3.Connection, key: tuple[str, str, str], document: str, answered_at: float) -> bool:
    """Keep what a request was answered, and forget its actions; false where it was answered before, which stands.

    Args:
        connection: in a transaction.
        key: device, conversation, request.
        document: the reply.
        answered_at: when, in seconds since 1970.
    """
    kept = connection.execute(
        "INSERT INTO replies (device_id, conversation_id, request_id, reply, answered_at) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (*key, document, answered_at),
    )
    connection.execute("DELETE FROM journal WHERE device_id = ? AND request_id = ?", (key[0], key[2]))
    return bool(kept.rowcount)


def reply_to(connection: sqlite3.Connection, key: tuple[str, str], oldest: float) -> Reply | None:
    """Return what a request was answered, where that is kept.

    Args:
        connection: in a transaction.
        key: device, request.
        oldest: a reply from before this counts for nothing, in seconds since 1970.
    """
    row = connection.execute(
        "SELECT reply FROM replies WHERE device_id = ? AND request_id = ? AND answered_at >= ?", (*key, oldest)
    ).fetchone()
    try:
        return None if row is None else load_reply(row[0])
    except (ValueError, TypeError, AttributeError) as exc:
        # Answering once more is better than never answering this request again.
        _log.warning("the stored reply to %s of %s cannot be read: %s", key[1], key[0], exc)
        return None


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _build(kind: type[T], values: Mapping[str, Any]) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})
