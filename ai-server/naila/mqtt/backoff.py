"""How long to wait before the next attempt to connect, and when haste would only harm."""

from __future__ import annotations

import random
from collections import deque

FIRST_S = 0.1
SHORT_OUTAGE_CAP_S = 1.0
LONGEST_S = 30.0
SHARE_OF_OUTAGE = 1 / 30
STABLE_AFTER_S = 2.0
RIVAL_LOSSES = 4
RIVAL_WITHIN_S = 60.0


class Backoff:
    """Exponential waits with full jitter, bounded by the length of the outage.

    A wait is at most one second, or a thirtieth of the outage so far if that is longer, and never over 30 s. So a
    broker that restarts has its clients back within a second of opening its port, a broker that is gone for a day is
    asked twice a minute, and a fleet that lost its broker together does not come back in one thundering herd.

    Args:
        rng: source of the jitter.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._attempts = 0

    def reset(self) -> None:
        """A connection proved stable: the next wait is short again."""
        self._attempts = 0

    def next(self, outage_s: float, *, at_least: float = 0.0) -> float:
        """Return the seconds to wait now.

        Args:
            outage_s: how long there has been no stable connection.
            at_least: a floor, for refusals that haste cannot cure.
        """
        cap = min(max(SHORT_OUTAGE_CAP_S, outage_s * SHARE_OF_OUTAGE), LONGEST_S)
        highest = min(FIRST_S * 2 ** min(self._attempts, 30), cap)
        self._attempts += 1
        return at_least + self._rng.uniform(0, max(highest, at_least))


class Rivalry:
    """Notices two clients with one client id, who throw each other out, where the broker does not say so.

    Mosquitto just closes the older connection. What gives it away: the connection is lost again and again, and yet
    the broker is there at the first attempt to come back. A network does that too, but mostly by resets; Mosquitto
    resets only a connection from which it had not read everything.
    """

    def __init__(self) -> None:
        self._losses: deque[tuple[float, bool]] = deque(maxlen=RIVAL_LOSSES)

    def broker_was_away(self) -> None:
        """An attempt failed: the loss before it had another cause."""
        self._losses.clear()

    def lost(self, now: float, *, closed: bool) -> bool:
        """A connection was lost; return whether a rival is the likely cause.

        Args:
            now: monotonic seconds.
            closed: whether the broker closed it in good order.
        """
        self._losses.append((now, closed))
        often = len(self._losses) == RIVAL_LOSSES and now - self._losses[0][0] < RIVAL_WITHIN_S
        return often and sum(closed for _, closed in self._losses) > RIVAL_LOSSES // 2
