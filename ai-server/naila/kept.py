"""What is kept of requests from their receipt until the broker has their answer, and its parts as JSON.

Who reads a part says whether it must be understood wholly: what is still to be done must, since a field that is unknown
here may be what forbids it; what is only told need not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from naila.events import Intent, Reply
from naila.fleet import Outcome, Proposal

T = TypeVar("T")

NOT_KNOWN: Final = "the brain restarted before it was known what became of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What is known of the actions of a request that was not answered: it must not be begun again.

    Attributes:
        outcomes: of each action that was about to be sent, oldest first; `unanswered` where its end is not known.
        left: what was to follow the last one.
    """

    outcomes: tuple[Outcome, ...]
    left: tuple[Proposal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRequest:
    """A request in the inbox.

    Attributes:
        request: as it came.
        age_s: seconds since it came; None where that is not known, and it may be old.
        reply: what it was answered, where it was.
        begun: what it has moved, where it has and was not answered.
    """

    request: Intent
    age_s: float | None = 0.0
    reply: Reply | None = None
    begun: Begun | None = None


def to_json(values: object, *, allow_nan: bool = True) -> str:
    """Write values as ASCII JSON, in which even a lone surrogate survives.

    Raises:
        TypeError: something in it has no JSON.
        ValueError: a number in it is not finite, and must be.
    """
    return json.dumps(values, separators=(",", ":"), default=_plain, allow_nan=allow_nan)


def from_json(text: str) -> dict[str, Any]:
    """Read an object.

    Raises:
        ValueError: it is none.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - what is read is wrong, not what was called
    return values


def request_fields(request: Intent) -> dict[str, object]:
    """Return the fields of a request for `to_json`."""
    data = request.correlation_data
    return _fields(request) | {"correlation_data": None if data is None else data.hex()}


def request_from(values: Mapping[str, Any], *, whole: bool = False) -> Intent:
    """Return the request of which these are the fields.

    Raises:
        ValueError: it is none, or another version's.
    """
    data = values.get("correlation_data")
    return _build(Intent, {**values, "correlation_data": None if data is None else bytes.fromhex(data)}, whole=whole)


def proposal_fields(proposal: Proposal) -> dict[str, object]:
    """Return the fields of a proposal for `to_json`, without what is wanted later.

    Nor with its moment: one on the monotonic clock means nothing to another process.
    """
    return _fields(proposal, "expires_at_monotonic", "later")


def proposal_from(values: Mapping[str, Any], *, whole: bool = False) -> Proposal:
    """Return the proposal of which these are the fields, and its `later` where that is among them.

    Raises:
        ValueError: it is none, or another version's.
    """
    later = tuple(proposal_from(each, whole=whole) for each in values.get("later", ()))
    return _build(Proposal, {**values, "later": later}, whole=whole)


def outcome_fields(outcome: Outcome) -> dict[str, object]:
    """Return the fields of an outcome for `to_json`, without its proposal."""
    return _fields(outcome, "proposal")


def outcome_from(values: Mapping[str, Any], proposal: Proposal, *, whole: bool = False) -> Outcome:
    """Return the outcome of a proposal of which these are the fields.

    Raises:
        ValueError: it is none, or another version's.
    """
    return _build(Outcome, {**values, "proposal": proposal}, whole=whole)


def _fields(value: Intent | Proposal | Outcome, *without: str) -> dict[str, object]:
    return {field.name: getattr(value, field.name) for field in fields(value) if field.name not in without}


def _build(kind: type[T], values: Mapping[str, Any], *, whole: bool) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{name: value for name, value in values.items() if whole or name in known})
    except TypeError as exc:
        raise ValueError(f"no {kind.__name__} of this version: {exc}") from exc


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON")
