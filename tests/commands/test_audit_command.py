"""`naila audit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from naila.cli import main
from naila.devices.audit import Audit, AuditEntry


@pytest.fixture
async def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMORY_PATH", str(tmp_path / "naila.db"))
    async with Audit(tmp_path / "audit") as audit:
        for number, device in enumerate(("rover", "arm", "rover")):
            audit.write(
                AuditEntry(
                    time=f"2026-11-20T12:34:0{number}.000Z",
                    event="sent",
                    id=f"a{number}",
                    device_id=device,
                    name="beep",
                    arguments={"times": number},
                    speaker="lamp",
                    user_id="ada",
                    by="pattern",
                )
            )
    return tmp_path


def test_it_shows_who_had_what_moved(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == '2026-11-20T12:34:00.000Z  sent       rover: beep {"times": 0}, asked by ada at lamp (pattern)'


def test_one_device_and_the_last_entries_can_be_chosen(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--device", "rover", "--last", "1", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a2"]


def test_nothing_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMORY_PATH", str(tmp_path / "naila.db"))
    assert main(["audit"]) == 0
    assert capsys.readouterr().out == "nothing was moved yet\n"


def test_a_damaged_log_shows_what_is_whole(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (state / "audit" / "actions.jsonl").open("ab") as file:
        file.write(b'{"id": \xff\n[1]\nnull\n')
    assert main(["audit", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
