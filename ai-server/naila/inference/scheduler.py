"""Who is let in, and how much of each request goes into the next step. No llama.cpp here.

Fair between owners (devices): whoever was served least is let in first, and what people wait for comes before
background work. In a step, every request that writes gets its next token; what is left of the step's budget goes to
reading, short remainders first, so that a short question does not wait for a long story, with a share for whoever came
first, so that the story is read too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Protocol, TypeVar

_FIRST_COMER_SHARE: Final = 4


class Job(Protocol):
    """What the scheduler needs to know of a request."""

    @property
    def owner(self) -> str:
        """Whose request it is."""
        ...

    @property
    def is_background(self) -> bool:
        """Whether nobody waits for it."""
        ...

    @property
    def arrival(self) -> int:
        """Its place in the order of arrival."""
        ...

    @property
    def unread(self) -> int:
        """Tokens that the model has not seen yet; 1 while it writes."""
        ...


J = TypeVar("J", bound=Job)


class FairShares:
    """How many tokens each owner was served lately: the account that fairness is kept by."""

    def __init__(self) -> None:
        self._served: Counter[str] = Counter()

    def enter(self, owner: str, present: Iterable[str]) -> None:
        """Note that an owner wants something; a newcomer starts level with the least served of those present."""
        floor = min((self._served[other] for other in present), default=0)
        self._served[owner] = max(self._served[owner], floor)

    def charge(self, owner: str, tokens: int) -> None:
        """Note that an owner was served."""
        self._served[owner] += tokens

    def next(self, waiting: Sequence[J]) -> J:
        """Choose whom to let in: people before background work, then the owner served least, then the first comer."""
        return min(waiting, key=lambda job: (job.is_background, self._served[job.owner], job.arrival))

    def reset(self) -> None:
        """Begin a new account: nobody is there."""
        self._served.clear()


def share_step(jobs: Sequence[J], *, capacity: int, reading: int | None = None) -> list[tuple[J, int]]:
    """Divide a step: return (job, tokens) for each job that takes part.

    Args:
        jobs: what runs.
        capacity: most tokens in one step.
        reading: most tokens that are read in while others write.
    """
    writing = [(job, 1) for job in jobs if job.unread == 1]
    readers = sorted((job for job in jobs if job.unread > 1), key=lambda job: (job.is_background, job.unread))
    budget = capacity - len(writing)
    if writing and reading is not None:
        budget = min(budget, reading)
    if not readers or budget <= 0:
        return writing[:capacity]
    first = min(readers, key=lambda job: job.arrival)
    shares = {id(first): min(first.unread, max(1, budget // _FIRST_COMER_SHARE))}
    budget -= shares[id(first)]
    for job in readers:
        had = shares.get(id(job), 0)
        more = min(job.unread - had, budget)
        shares[id(job)] = had + more
        budget -= more
    return writing + [(job, shares[id(job)]) for job in readers if shares[id(job)]]
