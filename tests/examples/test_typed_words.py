"""examples/talk.py: what a person said is sent until it is answered, and no longer than somebody waits."""

from __future__ import annotations

import json

import pytest

from support.example import EXAMPLES


class Listener:
    """What a device sent and showed, and its clock."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, object]]] = []
        self.shown: list[str] = []
        self.time_s = 0.0
        self.is_connected = True

    def send(self, leaf: str, payload: str) -> bool:
        if self.is_connected:
            self.sent.append((leaf, json.loads(payload)))
        return self.is_connected

    def say(self, who: str, text: str) -> None:
        self.shown.append(f"{who}: {text}")


@pytest.fixture(autouse=True)
def _examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def test_it_is_sent_again_with_its_id_until_it_is_answered() -> None:
    from talk import Talk  # noqa: PLC0415 - examples are no package

    listener = Listener()
    talk = Talk(listener.send, listener.say, lambda: listener.time_s)
    talk.hear("hello")
    for listener.time_s in (5.0, 10.0, 15.0):
        talk.repeat()
    assert len(listener.sent) == 2
    assert listener.sent[0] == listener.sent[1]
    talk.take("reply", {"id": listener.sent[0][1]["id"], "text": "Hi."})
    listener.time_s = 30
    talk.repeat()
    assert len(listener.sent) == 2
    assert listener.shown == ["you: hello", "naila: Hi."]


def test_an_old_wish_is_not_sent_when_the_broker_comes_back() -> None:
    from talk import Talk  # noqa: PLC0415 - examples are no package

    listener = Listener()
    listener.is_connected = False
    talk = Talk(listener.send, listener.say, lambda: listener.time_s)
    talk.hear("drive")
    listener.time_s, listener.is_connected = 61, True
    talk.repeat()
    assert listener.sent == []
    assert listener.shown[-1].startswith("error: nobody answers")
