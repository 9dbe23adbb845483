"""The books of a run with faults: what was sent, what came back, what was done; and what may be said of it."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, inf
from pathlib import Path

from support.picture import draw

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a run comes to.

    Attributes:
        requests: different ids.
        sent: messages, with the repeats.
        accepted: ids that the brain acknowledged, where a proxy listened.
        answered_once: ids with one reply, however often that one came.
        answered_twice: ids with two different replies.
        replies_again: replies that came again as they were.
        refused_told: messages that were refused, and the device was told.
        refused_for_good: ids with no reply, of which the device was told why.
        lost: ids with neither reply nor error.
        accepted_lost: of these, those that were acknowledged.
        actions: done by a device.
        actions_twice: done again, under another id, for the same request.
        actions_again: came again under the same id, and were not done again.
        recovery_p50_s: from the end of a fault to the next reply to anybody.
        recovery_p95_s: the same, of the slowest twentieth the best.
        latency_p50_ms: from the first sending of an id to its first reply.
        latency_p95_ms: the same, of the slowest twentieth the best.
    """

    requests: int
    sent: int
    accepted: int
    answered_once: int
    answered_twice: int
    replies_again: int
    refused_told: int
    refused_for_good: int
    lost: int
    accepted_lost: int
    actions: int
    actions_twice: int
    actions_again: int
    recovery_p50_s: float | None
    recovery_p95_s: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None


@dataclass(slots=True)
class _Request:
    """What is known of one id."""

    sent: list[float] = field(default_factory=list)
    replies: list[tuple[float, bytes]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    accepted: bool = False
    actions: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Tally:
    """Keeps the books; everything is in monotonic seconds.

    Attributes:
        name: of the run, and of its files.
        extra: more figures for the report.
    """

    name: str
    now: Callable[[], float] = time.monotonic
    extra: dict[str, object] = field(default_factory=dict)
    _requests: dict[Key, _Request] = field(default_factory=lambda: defaultdict(_Request))
    _faults: list[tuple[float, str]] = field(default_factory=list)
    _over: list[float] = field(default_factory=list)
    _answered: int = 0
    _redelivered: int = 0
    _errors: int = 0
    _began: float = field(default_factory=time.monotonic)

    def sent(self, key: Key) -> None:
        """A device sent a request, or repeated it."""
        self._requests[key].sent.append(self.now())

    def accepted(self, key: Key) -> None:
        """The brain acknowledged a request."""
        self._requests[key].accepted = True

    def replied(self, key: Key, payload: bytes) -> None:
        """A reply came."""
        replies = self._requests[key].replies
        self._answered += not replies
        replies.append((self.now(), payload))

    def refused(self, key: Key | None, code: str) -> None:
        """An error came, with the id of a request or without."""
        self._errors += 1
        if key is not None:
            self._requests[key].errors.append(code)

    def acted(self, key: Key, what: str) -> None:
        """A device did something for a request."""
        self._requests[key].actions[what] += 1

    def redelivered(self) -> None:
        """An action came again under its id, and was not done again."""
        self._redelivered += 1

    def fault(self, kind: str) -> None:
        """Something broke now."""
        self._faults.append((self.now(), kind))

    def over(self) -> None:
        """What had broken works again from now on."""
        self._over.append(self.now())

    @property
    def answered(self) -> int:
        """How many ids have a reply."""
        return self._answered

    def open(self, key: Key) -> bool:
        """Whether an id has no reply yet."""
        return not self._requests[key].replies

    def latencies_ms(self, *, since: float = 0.0, until: float = inf) -> list[float]:
        """Return how long the requests took that were first sent between two moments."""
        return [
            (request.replies[0][0] - request.sent[0]) * 1000
            for request in self._requests.values()
            if request.replies and request.sent and since <= request.sent[0] < until
        ]

    def counts(self) -> Counts:
        """Add up."""
        requests = [request for request in self._requests.values() if request.sent]
        replies = [{payload for _, payload in request.replies} for request in requests]
        unanswered = [request for request in requests if not request.replies]
        lost = [request for request in unanswered if not request.errors]
        recoveries, latencies = self._recoveries(), self.latencies_ms()
        return Counts(
            requests=len(requests),
            sent=sum(len(request.sent) for request in requests),
            accepted=sum(request.accepted for request in requests),
            answered_once=sum(len(different) == 1 for different in replies),
            answered_twice=sum(len(different) > 1 for different in replies),
            replies_again=sum(len(r.replies) for r in requests) - sum(map(len, replies)),
            refused_told=self._errors,
            refused_for_good=len(unanswered) - len(lost),
            lost=len(lost),
            accepted_lost=sum(request.accepted for request in lost),
            actions=sum(request.actions.total() for request in self._requests.values()),
            actions_twice=sum(done - 1 for r in self._requests.values() for done in r.actions.values()),
            actions_again=self._redelivered,
            recovery_p50_s=percentile(recoveries, 0.5),
            recovery_p95_s=percentile(recoveries, 0.95),
            latency_p50_ms=percentile(latencies, 0.5),
            latency_p95_ms=percentile(latencies, 0.95),
        )

    def trouble(self) -> list[str]:
        """Name the requests that went wrong, with what is known of them."""
        return [
            f"{key}: sent {len(r.sent)} times, {'accepted, ' * r.accepted}{len(r.replies)} replies, "
            f"errors {r.errors}, actions {dict(r.actions)}"
            for key, r in self._requests.items()
            if (r.sent and not r.replies and not r.errors)
            or len({payload for _, payload in r.replies}) > 1
            or any(done > 1 for done in r.actions.values())
        ]

    def report(self, folder: Path) -> Counts:
        """Print the counts; write them as JSON, with a picture of latency over time, faults marked."""
        counts = self.counts()
        document = {
            "run": self.name,
            "seconds": round(self.now() - self._began, 1),
            **asdict(counts),
            "faults": dict(Counter(kind for _, kind in self._faults)),
            **self.extra,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(document, indent=1) + "\n")
        (folder / f"{self.name}.trouble.txt").write_text("".join(f"{line}\n" for line in self.trouble()))
        dots = [
            (request.sent[0] - self._began, (request.replies[0][0] - request.sent[0]) * 1000)
            for request in self._requests.values()
            if request.replies and request.sent
        ]
        faults = [(at - self._began, kind) for at, kind in self._faults]
        (folder / f"{self.name}.svg").write_text(draw(self.name, dots, faults))
        print("\n" + " ".join(f"{name}={value}" for name, value in document.items()))  # noqa: T201 - for who runs it
        return counts

    def _recoveries(self) -> list[float]:
        """From the end of each fault to the next reply."""
        replies = sorted(at for request in self._requests.values() for at, _ in request.replies)
        after = [min((at - over for at in replies if at >= over), default=None) for over in self._over]
        return [seconds for seconds in after if seconds is not None]


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that so large a share of all does not exceed; None of nothing."""
    if not values:
        return None
    return round(sorted(values)[max(0, ceil(len(values) * share) - 1)], 4)
