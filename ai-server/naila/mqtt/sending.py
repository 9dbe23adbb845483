"""What waits to be sent, and what the broker has not acknowledged yet."""

from __future__ import annotations

import asyncio
from collections import deque

from naila.mqtt.publication import Publication

MAX_WAITING = 1000
MAX_UNWRITTEN = 1000


class SendQueue:
    """QoS 1 messages on their way out, bounded and in order.

    `waiting` holds what was not handed to the MQTT library yet: at most `MAX_WAITING`, and at that bound the oldest
    is dropped, since a person waits for the newest answer and a device repeats what was not answered. Of retained
    messages only the last of a topic waits. `flying` holds what was handed over and is not acknowledged: at most
    `window`, because brokers disconnect a client that exceeds their receive maximum, also when it resends.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.dropped = 0
        self._waiting: deque[Publication] = deque()
        self._flying: dict[int, Publication] = {}
        self._unwritten: set[int] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, message: Publication) -> Publication | None:
        """Let a message wait; return the one that was dropped for it, if any."""
        if message.retain:
            self._waiting = deque(other for other in self._waiting if not _replaces(message, other))
        dropped = self._waiting.popleft() if len(self._waiting) >= MAX_WAITING else None
        self.dropped += dropped is not None
        self._waiting.append(message)
        self._idle.clear()
        return dropped

    def take(self) -> Publication | None:
        """Return the next message if the window has room for it."""
        return self._waiting.popleft() if self._waiting and len(self._flying) < self.window else None

    def sent(self, mid: int, message: Publication) -> None:
        """A message was handed over under this packet id."""
        if message.qos:
            self._flying[mid] = message
        else:
            self._unwritten.add(mid)

    def done(self, mid: int) -> Publication | None:
        """The broker acknowledged a message, or the socket took a QoS 0 one; return the acknowledged one."""
        self._unwritten.discard(mid)
        message = self._flying.pop(mid, None)
        self._settle()
        return message

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
        self._waiting.extendleft(reversed(self._flying.values()))
        self._flying.clear()

    async def drained(self) -> None:
        """Return when everything was acknowledged."""
        await self._idle.wait()

    def _settle(self) -> None:
        if not self._waiting and not self._flying:
            self._idle.set()


def _replaces(new: Publication, old: Publication) -> bool:
    return old.retain and old.topic == new.topic
