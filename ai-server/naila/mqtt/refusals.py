"""How refusals are told: each one, and where they are many, in one message for many."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque

EACH_PER_SECOND = 100
MAX_DEVICES = 1024


class Refusals:
    """Counts what was refused, and says what need not even be read.

    To read a message, decide on it and say what was wrong costs the brain more than it cost the device to send it. So
    a device that was refused `EACH_PER_SECOND` times within a second is not listened to for the rest of it: what it
    sends meanwhile is counted, and told as a number.
    """

    def __init__(self) -> None:
        self.total = 0
        self._told: OrderedDict[str, deque[float]] = OrderedDict()
        self._untold: Counter[str] = Counter()

    @property
    def waits(self) -> bool:
        """Whether somebody is to be told a number."""
        return bool(self._untold)

    def tell_each(self, device_id: str, now: float) -> None:
        """Note a refusal that its device is told at once.

        Args:
            device_id: who sent it.
            now: monotonic seconds.
        """
        times = self._told.setdefault(device_id, deque(maxlen=EACH_PER_SECOND))
        times.append(now)
        self._told.move_to_end(device_id)
        if len(self._told) > MAX_DEVICES:
            self._told.popitem(last=False)

    def are_many(self, device_id: str, now: float) -> bool:
        """Whether a device was refused so often within the last second that nobody listens."""
        times = self._told.get(device_id)
        return times is not None and len(times) == EACH_PER_SECOND and now - times[0] < 1.0

    def tell_later(self, device_id: str) -> None:
        """Note a refusal that its device is told later, together with others."""
        self._untold[device_id] += 1

    def take(self) -> tuple[tuple[str, int], ...]:
        """Return who is to be told how many, and begin anew."""
        told = tuple(self._untold.items())
        self._untold.clear()
        return told
