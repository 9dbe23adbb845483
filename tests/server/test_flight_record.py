"""The record of what the brain did last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from naila.events import (
    Alert,
    ComponentHealth,
    ErrorNotice,
    Health,
    Intent,
    Outbound,
    Reply,
    StreamItem,
    Timing,
    Usage,
)
from naila.server.flight_record import FlightRecord, forget_turns, read_record


class Heard:
    def __init__(self) -> None:
        self.events: list[Outbound] = []
        self.asked: list[Intent | None] = []

    def publish(self, event: Outbound, *, to: Intent | None = None) -> None:
        self.events.append(event)
        self.asked.append(to)


ASKED = Intent(device_id="r2", id="q1", text="my secret wish")
SAID = Reply(
    device_id="r2",
    id="q1",
    text="a secret answer",
    intent="chat",
    source="llm",
    degraded=False,
    conversation_id="default",
    finish_reason="stop",
    usage=Usage(prompt_tokens=9, cached_tokens=5, completion_tokens=4),
    timing=Timing(queue_ms=1.2, ttft_ms=30.6, total_ms=99.5),
)


def refusal(code: Any = "busy", device_id: str = "r2", request_id: str | None = None) -> ErrorNotice:
    return ErrorNotice(device_id=device_id, code=code, message="secret", id=request_id)


def health(status: Any, detail: str = "") -> Health:
    part = ComponentHealth(status="ok" if status == "online" else "down", detail=detail)
    return Health(status=status, version="1", uptime_s=1, phase="running", components={"llm": part})


def test_a_turn_leaves_its_ids_its_outcome_and_its_sizes(tmp_path: Path) -> None:
    FlightRecord(heard := Heard(), tmp_path, words=False).publish(SAID, to=ASKED)
    assert heard.events == [SAID]
    (turn,) = read_record(tmp_path)["turns"]
    assert isinstance(turn, dict)
    assert turn.pop("at")
    assert turn == {
        "device_id": "r2",
        "id": "q1",
        "conversation_id": "default",
        "intent": "chat",
        "source": "llm",
        "finish_reason": "stop",
        "degraded": False,
        "actions": 0,
        "asked_chars": 14,
        "said_chars": 15,
        "tokens": [9, 5, 4],
        "ms": [1, 31, 100],
    }


def test_no_word_is_kept_unless_a_setting_says_so(tmp_path: Path) -> None:
    for words in (False, True):
        folder = tmp_path / str(words)
        record = FlightRecord(Heard(), folder, words=words)
        record.publish(SAID, to=ASKED)
        record.publish(refusal())
        record.publish(StreamItem(device_id="r2", id="q1", seq=0, text="secret", done=False))
        kept = b"".join(path.read_bytes() for path in folder.iterdir())
        assert (b"secret" in kept) is words
        assert kept.count(b"my secret wish") == kept.count(b"a secret answer") == int(words)


def test_a_flood_of_refusals_is_one_line(tmp_path: Path) -> None:
    record = FlightRecord(Heard(), tmp_path, words=False)
    record.publish(refusal("bad_payload"))
    for _ in range(2000):
        record.publish(refusal("busy"))
    record.publish(refusal("busy", "c3"))
    noted = [
        (line["device_id"], line["code"], line["times"])
        for line in read_record(tmp_path)["refusals"]
        if isinstance(line, dict)
    ]
    assert noted == [("r2", "bad_payload", 1), ("r2", "busy", 2000), ("c3", "busy", 1)]


def test_health_is_noted_when_it_changes_and_alerts_always(tmp_path: Path) -> None:
    record = FlightRecord(Heard(), tmp_path, words=False)
    for state, detail in (("degraded", "10%"), ("degraded", "20%"), ("online", "")):
        record.publish(health(state, detail))
    record.publish(Alert(code="low_memory", severity="warning", message="close something"))
    lines = [line for line in read_record(tmp_path)["brain"] if isinstance(line, dict)]
    assert [(line["kind"], line.get("status") or line.get("code")) for line in lines] == [
        ("health", "degraded"),
        ("health", "online"),
        ("alert", "low_memory"),
    ]


def test_what_cannot_be_noted_is_published_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    FlightRecord(heard := Heard(), tmp_path / "file", words=False).publish(SAID, to=None)
    assert heard.events == [SAID]


def test_what_is_forgotten_is_in_no_turn_and_the_record_goes_on(tmp_path: Path) -> None:
    forget_turns(tmp_path)
    record = FlightRecord(Heard(), tmp_path, words=True)
    for _ in range(3):
        record.publish(SAID, to=ASKED)
    forget_turns(tmp_path)
    assert b"secret" not in (tmp_path / "turns").read_bytes()
    record.publish(SAID, to=None)
    assert [turn["asked"] for turn in read_record(tmp_path)["turns"] if isinstance(turn, dict)] == [None]
