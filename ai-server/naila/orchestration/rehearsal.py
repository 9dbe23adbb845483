"""Holding an answer back until it has said what makes it right."""

from __future__ import annotations

from naila.orchestration.speech import Speech


class Rehearsal:
    """Passes an answer on to a speech once it contains a certain word; until then nobody hears it.

    A small model asked for a name often makes one up, and a streamed word can't be taken back.

    Args:
        speech: where the answer goes.
        word: what it must contain; nothing is waited for where this is empty.
    """

    def __init__(self, speech: Speech, word: str) -> None:
        self._speech = speech
        self._word = word.casefold()
        self._held = ""
        self.passed = not word

    def say(self, text: str) -> None:
        """Take more of the answer."""
        if self.passed:
            self._speech.say(text)
            return
        self._held += text
        if self._word in self._held.casefold():
            self.passed = True
            self._speech.say(self._held)
