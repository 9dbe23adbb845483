"""A request, and an action of it, as they are kept: the JSON of their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from naila.events import Intent
from naila.fleet import Outcome, Proposal


def dump_request(request: Intent) -> str:
    """Write a request as ASCII JSON."""
    values = asdict(request)
    correlation = request.correlation_data
    return _dump(values | {"correlation_data": None if correlation is None else correlation.hex()})


def load_request(text: str) -> Intent:
    """Read what `dump_request` wrote.

    Raises:
        ValueError: it is none, or another version's.
    """
    values = _known(Intent, _object(text))
    try:
        correlation = values.pop("correlation_data", None)
        return Intent(**values, correlation_data=None if correlation is None else bytes.fromhex(correlation))
    except TypeError as exc:
        raise ValueError(f"no request of this version: {exc}") from exc


def dump_proposal(proposal: Proposal) -> str:
    """Write a proposal, with what the same request wants later. A monotonic time means nothing to another process."""
    return _dump(_proposal_fields(proposal) | {"later": [_proposal_fields(each) for each in proposal.later]})


def load_proposal(text: str) -> Proposal:
    """Read what `dump_proposal` wrote.

    Raises:
        ValueError: it is none, or another version's.
    """
    values = _known(Proposal, _object(text))
    try:
        later = tuple(Proposal(**_known(Proposal, each)) for each in values.pop("later", ()))
        return Proposal(**values, later=later)
    except (TypeError, AttributeError) as exc:
        raise ValueError(f"no proposal of this version: {exc}") from exc


def dump_outcome(outcome: Outcome) -> str:
    """Write what became of a proposal, without the proposal."""
    names = [field.name for field in fields(Outcome) if field.name != "proposal"]
    return _dump({name: getattr(outcome, name) for name in names})


def load_outcome(text: str, proposal: Proposal) -> Outcome:
    """Read what `dump_outcome` wrote.

    Raises:
        ValueError: it is none, or another version's.
    """
    try:
        return Outcome(proposal=proposal, **_known(Outcome, _object(text)))
    except TypeError as exc:
        raise ValueError(f"no outcome of this version: {exc}") from exc


def _proposal_fields(proposal: Proposal) -> dict[str, object]:
    names = [field.name for field in fields(Proposal) if field.name not in {"expires_at_monotonic", "later"}]
    return {name: getattr(proposal, name) for name in names}


def _object(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - what is read is wrong, not what was called
    return values


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in known}


def _dump(values: object) -> str:
    return json.dumps(values, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON")
