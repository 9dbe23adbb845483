"""Emergency stops: sent at once, and remembered, so that nothing that was asked before one moves anything after it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from naila.ports import Clock, Fleet

MAX_REMEMBERED: Final = 4096
# A stop overtakes what was said before it: on its own connection, past whatever waits at the broker.
HOLD_S: Final = 0.5


class Stops:
    """Sends stops. Nothing in it waits, and the sending comes before everything else.

    Args:
        fleet: sends the stop.
        clock: the time.
        on_stop: called after each, with the device, or None for all, and the speaker and id of the request.
    """

    def __init__(self, fleet: Fleet, clock: Clock, *, on_stop: Callable[[str | None, tuple[str, str]], None]) -> None:
        self._fleet = fleet
        self._clock = clock
        self._on_stop = on_stop
        self._at: OrderedDict[str, float] = OrderedDict()
        self._all_at = float("-inf")
        self._told: OrderedDict[tuple[str, str], tuple[str, ...]] = OrderedDict()

    def stop(self, device_id: str | None, *, request_id: str, speaker: str) -> tuple[str, ...]:
        """Stop a device, or all of them; return whom it was sent to."""
        sent: tuple[str, ...] = ()
        try:
            sent = self._fleet.stop(device_id, request_id=request_id, speaker=speaker)
        finally:
            self._remember(device_id, (speaker, request_id), sent)
            self._on_stop(device_id, (speaker, request_id))
        return sent

    def told(self, speaker: str, request_id: str) -> tuple[str, ...]:
        """Return whom a stop was sent to for a request already."""
        return self._told.get((speaker, request_id), ())

    def stop_for(self, speaker: str, request_id: str, device_id: str | None) -> tuple[str, ...]:
        """Stop what a request was read to mean, unless that was done when its words came in."""
        if device_id is not None and device_id in self.told(speaker, request_id):
            return (device_id,)
        return self.stop(device_id, request_id=request_id, speaker=speaker)

    def stopped_since(self, device_id: str, received_at: float) -> bool:
        """Whether a device was stopped since a moment of the monotonic clock."""
        return self._stopped_at(device_id) >= received_at

    def stopped_just_before(self, device_id: str, received_at: float) -> bool:
        """Whether a device was stopped so shortly before a moment that what came then may be older than the stop."""
        return received_at - HOLD_S < self._stopped_at(device_id) < received_at

    def _stopped_at(self, device_id: str) -> float:
        return max(self._at.get(device_id, self._all_at), self._all_at)

    def _remember(self, device_id: str | None, request: tuple[str, str], sent: tuple[str, ...]) -> None:
        self._told[request] = sent
        if len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)
        now = self._clock.monotonic()
        if device_id is None:
            self._all_at = now
            return
        self._at[device_id] = now
        self._at.move_to_end(device_id)
        if len(self._at) > MAX_REMEMBERED:
            _, oldest = self._at.popitem(last=False)
            self._all_at = max(self._all_at, oldest)  # forgetting errs on the side of standing still
