"""The words of one answer on their way out, piece by piece."""

from __future__ import annotations

import re

from naila.events import Intent, StreamItem
from naila.ports import Clock, Publisher

SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]]*$")  # noqa: RUF001 - sentences also end so in Chinese and Japanese


class Speech:
    """Says an answer. What was streamed can't be taken back, so `text` is what the reply must say.

    Args:
        request: whom it is for.
        publisher: the way out.
        clock: stamps the first word.
    """

    def __init__(self, request: Intent, publisher: Publisher, clock: Clock) -> None:
        self._request = request
        self._publisher = publisher
        self._clock = clock
        self._pieces: list[str] = []
        self._seq = 0
        self._closed = False
        self.streaming = request.stream
        self.first_at: float | None = None

    @property
    def text(self) -> str:
        """Everything said so far."""
        return "".join(self._pieces)

    @property
    def committed(self) -> bool:
        """Whether somebody has already heard something."""
        return self.streaming and bool(self._pieces)

    def say(self, text: str) -> None:
        """Say more."""
        if not text:
            return
        if self.first_at is None:
            self.first_at = self._clock.monotonic()
        self._pieces.append(text)
        if self.streaming:
            tail = "".join(self._pieces[-4:])
            self._publish(text, done=False, sentence_end=SENTENCE_END.search(tail[-8:]) is not None)

    def take_back(self) -> None:
        """Forget what was said and not heard."""
        if not self.committed:
            self._pieces.clear()

    def close(self) -> None:
        """Say that this was all; once."""
        if self.streaming and not self._closed:
            self._publish("", done=True, sentence_end=False)
        self._closed = True

    def _publish(self, text: str, *, done: bool, sentence_end: bool) -> None:
        item = StreamItem(
            device_id=self._request.device_id,
            id=self._request.id,
            seq=self._seq,
            text=text,
            done=done,
            sentence_end=sentence_end,
        )
        self._seq += 1
        self._publisher.publish(item, to=self._request)
