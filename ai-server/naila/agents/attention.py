"""What each conversation is about at the moment, for answers to questions back, "again" and "it"."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from naila.orchestration.state import Attended
from naila.ports import Clock

MAX_CONVERSATIONS: Final = 1024
KEPT_S: Final = 120.0
NOTHING: Final = Attended()


class Attention:
    """Keeps it for two minutes; of more than 1024 conversations, that which was silent longest is forgotten."""

    def __init__(self, clock: Clock, *, kept_s: float = KEPT_S, max_conversations: int = MAX_CONVERSATIONS) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._max = max_conversations
        self._kept: OrderedDict[tuple[str, str], tuple[float, Attended]] = OrderedDict()

    def of(self, device_id: str, conversation_id: str) -> Attended:
        """Return what a conversation is about."""
        at, attended = self._kept.get((device_id, conversation_id), (0.0, NOTHING))
        return attended if self._clock.monotonic() - at < self._kept_s else NOTHING

    def keep(self, device_id: str, conversation_id: str, attended: Attended) -> None:
        """Keep what a conversation is about now."""
        key = device_id, conversation_id
        if attended == NOTHING:
            self._kept.pop(key, None)
            return
        self._kept[key] = self._clock.monotonic(), attended
        self._kept.move_to_end(key)
        while len(self._kept) > self._max:
            self._kept.popitem(last=False)
