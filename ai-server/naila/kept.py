"""What is kept of requests from their receipt until the broker has their answer."""

from __future__ import annotations

from dataclasses import dataclass

from naila.events import Intent, Reply
from naila.fleet import Outcome, Proposal


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
