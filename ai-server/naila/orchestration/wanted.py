"""What a request wants done, and how far that has come."""

from __future__ import annotations

from dataclasses import dataclass, replace

from naila.events import Intent
from naila.fleet import Outcome, Proposal
from naila.understanding.reading import Doubtful


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The steps that somebody asked for.

    Attributes:
        request: the request that asked.
        left: steps that are not over, the one that waits or comes next first.
        outcomes: what became of the others, in order. Only the last can be anything but `done`.
        pending: the first of `left`, waiting for a person.
        doubtful: where a model chose the steps: among what, and how many there may be.
        ended: no further step will be taken.
    """

    request: Intent
    left: tuple[Proposal, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    pending: Outcome | None = None
    doubtful: Doubtful | None = None
    ended: bool = False

    @property
    def is_over(self) -> bool:
        """Whether no step will be taken any more."""
        if self.pending is not None:
            return False
        if self.ended or (self.outcomes and self.outcomes[-1].status != "done"):
            return True
        may_ask = self.doubtful is not None and len(self.outcomes) < self.doubtful.clauses
        return not self.left and not may_ask

    def with_outcome(self, outcome: Outcome) -> Wish:
        """Return the wish after its next step."""
        return replace(self, left=self.left[1:], outcomes=(*self.outcomes, outcome))
