"""A wish as JSON and back, so that it outlives the process."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from naila.fleet import Outcome
from naila.kept import (
    from_json,
    outcome_fields,
    outcome_from,
    proposal_fields,
    proposal_from,
    request_fields,
    request_from,
    to_json,
)
from naila.orchestration.wanted import Wish
from naila.understanding.reading import Doubtful


def write_wish(wish: Wish) -> str:
    """Return the JSON of a wish. Monotonic times mean nothing to another process and are left out."""
    return to_json(
        {
            "request": request_fields(wish.request),
            "left": [proposal_fields(proposal) for proposal in wish.left],
            "outcomes": [_outcome_fields(outcome) for outcome in wish.outcomes],
            "pending": None if wish.pending is None else _outcome_fields(wish.pending),
            "doubtful": None if wish.doubtful is None else asdict(wish.doubtful),
            "ended": wish.ended,
        }
    )


def read_wish(text: str) -> Wish:
    """Return the wish that `write_wish` wrote.

    Raises:
        ValueError: it is none, or another version's.
    """
    document = from_json(text)
    try:
        pending, doubtful = document["pending"], document["doubtful"]
        return Wish(
            request=request_from(document["request"], whole=True),
            left=tuple(proposal_from(proposal, whole=True) for proposal in document["left"]),
            outcomes=tuple(map(_outcome, document["outcomes"])),
            pending=None if pending is None else _outcome(pending),
            doubtful=None if doubtful is None else _doubtful(doubtful),
            ended=document["ended"],
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"no wish of this version: {exc!r}") from exc


def _outcome_fields(outcome: Outcome) -> dict[str, object]:
    return outcome_fields(outcome) | {"proposal": proposal_fields(outcome.proposal)}


def _outcome(document: dict[str, Any]) -> Outcome:
    return outcome_from(document, proposal_from(document["proposal"], whole=True), whole=True)


def _doubtful(document: dict[str, Any]) -> Doubtful:
    return Doubtful(
        candidates=tuple((device_id, action) for device_id, action in document["candidates"]),
        numbers={name: tuple(values) for name, values in document["numbers"].items()},
        clauses=document["clauses"],
    )
