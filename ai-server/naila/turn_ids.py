"""Whom the code that runs now works for: the device and the request, shown in its log lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class TurnIds:
    """The ids of a turn.

    Attributes:
        device_id: who asked.
        request_id: what.
    """

    device_id: str
    request_id: str


_current: Final[ContextVar[TurnIds | None]] = ContextVar("naila_turn", default=None)


@contextlib.contextmanager
def working_for(device_id: str, request_id: str) -> Iterator[None]:
    """Mark what runs in the block, tasks begun in it included, as work for a request."""
    token = _current.set(TurnIds(device_id, request_id))
    try:
        yield
    finally:
        _current.reset(token)


def current_turn() -> TurnIds | None:
    """Return whose work this is, None where it is nobody's."""
    return _current.get()
