"""How people speak through a device: what they say is an `intent`, repeated with its id until it is answered."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REPEAT_S = 10.0
GIVE_UP_S = 60.0
ANSWERS = {"yes": True, "y": True, "no": False, "n": False}


@dataclass
class Question:
    """Something that was said and not answered yet.

    Attributes:
        payload: the `intent`.
        give_up_at: when nobody waits for an answer any more.
        repeat_at: when it is sent again.
    """

    payload: str
    give_up_at: float
    repeat_at: float


class Talk:
    """The talk of the people at one device with the brain.

    Args:
        send: sends a payload on one of the device's topics; False where there is no broker now.
        say: shows who said what.
        now: seconds on a clock that never jumps.
    """

    def __init__(
        self,
        send: Callable[[str, str], bool],
        say: Callable[[str, str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._say = say
        self._now = now
        self._questions: dict[str, Question] = {}
        self._pending: str | None = None  # id of the action that waits for a yes or no

    def hear(self, text: str) -> None:
        """Take in what somebody said."""
        self._say("you", text)
        approve = ANSWERS.get(text.lower().rstrip("!."))
        if self._pending is not None and approve is not None:
            self._send("confirm", json.dumps({"id": self._pending, "approve": approve}))
            self._pending = None
            return
        now = self._now()
        question_id = uuid.uuid4().hex
        payload = json.dumps({"id": question_id, "text": text})
        self._questions[question_id] = Question(payload, give_up_at=now + GIVE_UP_S, repeat_at=now)
        self.repeat()

    def repeat(self) -> None:
        """Send again what is not answered. The brain does nothing twice: the id says that it is the same."""
        now = self._now()
        for question_id, question in list(self._questions.items()):
            if now >= question.give_up_at:
                del self._questions[question_id]
                self._say("error", "nobody answers: is the brain running?")
            elif now >= question.repeat_at and self._send("intent", question.payload):
                question.repeat_at = now + REPEAT_S

    def take(self, leaf: str, message: dict[str, Any]) -> None:
        """Take in what the brain said: a `reply`, an `error` or an `action/pending`."""
        if leaf == "action/pending":
            self._pending = message["id"]
            self._say("naila", f"{message['question']} (yes or no)")
            return
        self._questions.pop(message.get("id", ""), None)
        if leaf == "reply":
            self._say("naila", message["text"])
        else:
            self._say("error", f"{message['code']}: {message['message']}")
