"""Answers on their way out: kept on disk, then sent, and their requests forgotten when the broker has them.

An answer that the disk refuses goes out all the same, since somebody waits for it; it is kept as soon as that works,
and until then its request stays in the inbox. Only a crash in that very time could have the request answered anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from typing import Final, TypeAlias

from naila.errors import ErrorCode, StorageError
from naila.events import ErrorNotice, Intent, Reply
from naila.ports import Inbox, Publisher

MAX_RECENT: Final = 512
MAX_SENT_AGAIN: Final = 100
RETRY_S: Final = 1.0

Key: TypeAlias = tuple[str, str]

log = logging.getLogger(__name__)


class Outbox:
    """Sends the last word to each request, and sees that it arrives at the broker.

    Args:
        inbox: where requests are, and their answers.
        publisher: the way out.
    """

    def __init__(self, *, inbox: Inbox, publisher: Publisher) -> None:
        self._inbox = inbox
        self._publisher = publisher
        self._recent: OrderedDict[Key, Reply] = OrderedDict()
        self._owed: dict[Key, tuple[Intent, Reply | ErrorNotice]] = {}
        self._unkept: dict[Key, Reply] = {}
        self._delivered: dict[Key, None] = {}
        self._dropped: dict[Key, None] = {}
        self._news = asyncio.Event()

    @property
    def owed(self) -> int:
        """How many answers the broker does not have yet."""
        return len(self._owed)

    def recent(self, key: Key) -> Reply | None:
        """Return what a request was answered, where that was not long ago."""
        return self._recent.get(key)

    def decide(self, request: Intent, reply: Reply) -> None:
        """Take a reply for the answer of a request, from now on, whoever asks again."""
        self._recent[request.device_id, request.id] = reply
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)

    async def give(self, request: Intent, reply: Reply) -> None:
        """Keep a reply, then send it. Does not raise."""
        self.decide(request, reply)
        key = request.device_id, request.id
        try:
            await self._inbox.answer(reply)
        except StorageError as exc:
            log.warning("%s of %s: its answer cannot be kept yet: %s", request.id, request.device_id, exc)
            self._unkept[key] = reply
            self._news.set()
        self.send(request, reply)

    def send(self, request: Intent, answer: Reply | ErrorNotice) -> None:
        """Send what is on disk, or is no more than a refusal; its request is forgotten when it has arrived."""
        self._owed[request.device_id, request.id] = request, answer
        self._publisher.publish(answer, to=request)

    def repeat(self, request: Intent, reply: Reply) -> None:
        """Send a reply again, to whoever asked again."""
        self._publisher.publish(reply, to=request)

    def refuse(self, request: Intent, code: ErrorCode, message: str) -> None:
        """Send a refusal as the last word."""
        self.send(request, ErrorNotice(device_id=request.device_id, code=code, message=message, id=request.id))

    def send_again(self, key: Key) -> None:
        """Send what is owed to a request once more, if anything is."""
        if (owed := self._owed.get(key)) is not None:
            request, answer = owed
            self._publisher.publish(answer, to=request)

    def forget(self, key: Key) -> None:
        """Owe a request nothing any more."""
        self._owed.pop(key, None)
        self._unkept.pop(key, None)
        self._delivered[key] = None
        self._news.set()

    def ended(self, answer: Reply | ErrorNotice, *, is_delivered: bool) -> None:
        """Learn that the broker has a message, or that it was given up before."""
        key = answer.device_id, answer.id or ""
        owed = self._owed.get(key)
        if owed is None or owed[1] is not answer:
            return
        if is_delivered:
            del self._owed[key]
            self._delivered[key] = None
        else:
            self._dropped[key] = None
        self._news.set()

    async def run(self) -> None:
        """Keep the books until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._unkept or self._dropped or self._delivered else None):
                    await self._news.wait()
            self._news.clear()
            await self.tidy()
            if self._unkept or self._dropped:
                await asyncio.sleep(RETRY_S)
                self._resend()

    async def tidy(self) -> None:
        """Keep what the disk refused, and forget the requests whose answers have arrived, as far as it lets us."""
        try:
            for key, reply in list(self._unkept.items()):
                await self._inbox.answer(reply)
                self._unkept.pop(key, None)
            done = [key for key in self._delivered if key not in self._unkept]
            if done:
                await self._inbox.done(done)
                for key in done:
                    self._delivered.pop(key, None)
        except StorageError as exc:
            log.debug("the inbox cannot be tidied up now: %s", exc)

    def _resend(self) -> None:
        for key in list(self._dropped)[:MAX_SENT_AGAIN]:
            del self._dropped[key]
            self.send_again(key)
