"""What waits to be sent, and what the broker has not acknowledged yet."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from naila.mqtt.publication import Publication

log = logging.getLogger(__name__)

MAX_WAITING = 1000
MAX_UNWRITTEN = 1000


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A message on its way.

    Attributes:
        message: as it was put.
        due: the monotonic time after which nobody wants it; None: always wanted.
        is_withdrawn: nobody wants it any more, though the library may still be sending it.
    """

    message: Publication
    due: float | None
    is_withdrawn: bool = False


class SendQueue:
    """QoS 1 messages on their way out, bounded and in order.

    `waiting` holds what was not handed to the MQTT library yet: at most `MAX_WAITING`, and at that bound the oldest
    is dropped, since a person waits for the newest answer and a device repeats what was not answered. What is urgent
    has a line of its own, before the others and without a bound: whoever sends it withdraws what it supersedes. Of
    retained messages only the last of a topic waits. `flying` holds what was handed over and is not acknowledged: at
    most `window`, because brokers disconnect a client that exceeds their receive maximum, also when it resends. A
    message with an expiry that is over while it waits is dropped, loudly; else the broker is told what is left of it.

    Args:
        window: most messages that may fly.
        monotonic: seconds that never jump.
    """

    def __init__(self, window: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.window = window
        self.dropped = 0
        self._monotonic = monotonic
        self._urgent: deque[_Waiting] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._flying: dict[int, _Waiting] = {}
        self._unwritten: set[int] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return len(self._urgent) + len(self._waiting)

    @property
    def flies_perishable(self) -> bool:
        """Whether a message with an expiry is not acknowledged yet."""
        return any(flying.due is not None for flying in self._flying.values())

    def put(self, message: Publication) -> Publication | None:
        """Let a message wait; return the one that was dropped for it, if any."""
        self._idle.clear()
        waiting = _Waiting(message, self._due(message))
        if message.urgent:
            self._urgent.append(waiting)
            return None
        if message.retain:
            self._waiting = deque(other for other in self._waiting if not _replaces(message, other.message))
        dropped = self._waiting.popleft() if len(self._waiting) >= MAX_WAITING else None
        self.dropped += dropped is not None
        self._waiting.append(waiting)
        return dropped.message if dropped else None

    def withdraw(self, topic: str) -> int:
        """Drop what waits for a topic, and return how many messages that were; what flies to it does not fly again."""
        before = self.waiting
        self._urgent = deque(waiting for waiting in self._urgent if waiting.message.topic != topic)
        self._waiting = deque(waiting for waiting in self._waiting if waiting.message.topic != topic)
        for mid, flying in self._flying.items():
            if flying.message.topic == topic:
                self._flying[mid] = replace(flying, is_withdrawn=True)
        self._settle()
        return before - self.waiting

    def take(self) -> Publication | None:
        """Return the next message if the window has room for it."""
        while (line := self._urgent or self._waiting) and len(self._flying) < self.window:
            waiting = line.popleft()
            if waiting.due is None:
                return waiting.message
            left_s = math.ceil(waiting.due - self._monotonic())
            if left_s > 0:
                return replace(waiting.message, message_expiry=left_s)
            self.dropped += 1
            log.error("a message to %s waited for the broker until it had expired: dropped", waiting.message.topic)
        self._settle()
        return None

    def sent(self, mid: int, message: Publication) -> None:
        """A message was handed over under this packet id."""
        if message.qos:
            self._flying[mid] = _Waiting(message, self._due(message))
        else:
            self._unwritten.add(mid)

    def done(self, mid: int) -> Publication | None:
        """The broker acknowledged a message, or the socket took a QoS 0 one; return the acknowledged one."""
        self._unwritten.discard(mid)
        flying = self._flying.pop(mid, None)
        self._settle()
        return flying.message if flying else None

    def may_write_unacknowledged(self) -> bool:
        """Whether a QoS 0 message may be written: at most `MAX_UNWRITTEN` pile up behind a slow broker."""
        if len(self._unwritten) < MAX_UNWRITTEN:
            return True
        self.dropped += 1
        return False

    def disconnected(self) -> None:
        """What had no acknowledgement to wait for is gone."""
        self._unwritten.clear()

    def take_back(self) -> None:
        """The library's memory of what flies is lost: it waits again, in front."""
        for flying in reversed(self._flying.values()):
            if not flying.is_withdrawn:
                (self._urgent if flying.message.urgent else self._waiting).appendleft(flying)
        self._flying.clear()
        self._settle()

    async def drained(self) -> None:
        """Return when everything was acknowledged."""
        await self._idle.wait()

    def _due(self, message: Publication) -> float | None:
        return None if message.message_expiry is None else self._monotonic() + message.message_expiry

    def _settle(self) -> None:
        if not self.waiting and not self._flying:
            self._idle.set()


def _replaces(new: Publication, old: Publication) -> bool:
    return old.retain and old.topic == new.topic
