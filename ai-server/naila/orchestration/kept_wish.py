"""A wish as JSON and back, so that it outlives the process."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from naila.events import Intent
from naila.fleet import Outcome, Proposal
from naila.orchestration.wanted import Wish
from naila.understanding.reading import Doubtful


def write_wish(wish: Wish) -> str:
    """Return the JSON of a wish. Monotonic times mean nothing to another process and are left out."""
    document = asdict(wish)
    document["request"]["correlation_data"] = _hex(wish.request.correlation_data)
    for proposal in (*document["left"], *(outcome["proposal"] for outcome in _outcomes(document))):
        proposal["expires_at_monotonic"] = None
        del proposal["later"]
    return json.dumps(document)


def read_wish(text: str) -> Wish:
    """Return the wish that `write_wish` wrote.

    Raises:
        ValueError: it is none, or another version's.
    """
    document: dict[str, Any] = json.loads(text)
    try:
        request = document["request"]
        correlation = request.pop("correlation_data")
        doubtful = document["doubtful"]
        return Wish(
            request=Intent(**request, correlation_data=None if correlation is None else bytes.fromhex(correlation)),
            left=tuple(Proposal(**proposal) for proposal in document["left"]),
            outcomes=tuple(map(_outcome, document["outcomes"])),
            pending=None if document["pending"] is None else _outcome(document["pending"]),
            doubtful=None if doubtful is None else _doubtful(doubtful),
            ended=document["ended"],
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"no wish of this version: {exc!r}") from exc


def _outcomes(document: dict[str, Any]) -> list[dict[str, Any]]:
    pending = document["pending"]
    return [*document["outcomes"], *([pending] if pending is not None else [])]


def _outcome(document: dict[str, Any]) -> Outcome:
    return Outcome(**{**document, "proposal": Proposal(**document["proposal"])})


def _doubtful(document: dict[str, Any]) -> Doubtful:
    return Doubtful(
        candidates=tuple((device_id, action) for device_id, action in document["candidates"]),
        numbers={name: tuple(values) for name, values in document["numbers"].items()},
        clauses=document["clauses"],
    )


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()
