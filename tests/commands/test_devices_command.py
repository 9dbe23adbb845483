"""`naila devices`."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from naila.cli import main
from naila.fleet import Sighting
from naila.memory.database import Database
from naila.memory.device_store import SqliteDeviceStore

EXAMPLES = Path(__file__).parents[2] / "examples"
HEARD = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMORY_PATH", str(tmp_path / "naila.db"))
    return tmp_path / "naila.db"


@pytest.fixture
def fleet(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((EXAMPLES / "rover.json").read_text(encoding="utf-8"))

    async def keep() -> None:
        async with Database(path) as database:
            store = SqliteDeviceStore(database)
            await store.keep_device("rover", document)
            await store.keep_device("old", {"name": 3})
            await store.keep_sightings(
                [
                    Sighting(device_id="rover", online=True, heard_at=HEARD),
                    Sighting(device_id="ghost", online=None, heard_at=HEARD),
                ]
            )

    asyncio.run(keep())
    return document


def test_without_devices_it_says_so(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "list"]) == 0
    assert capsys.readouterr().out == "no device is known yet\n"


def test_the_list_is_a_table(fleet: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "list"]) == 0
    heading, ghost, old, rover = capsys.readouterr().out.splitlines()
    local = HEARD.astimezone().strftime("%Y-%m-%d %H:%M")
    assert heading.split() == ["ID", "NAME", "ROOM", "PRESENCE", "LAST", "HEARD", "ACTIONS"]
    assert rover.split()[:6] == ["rover", "Rover", "kitchen", "online", *local.split()]
    assert rover.endswith("drive, turn, go_to, beep, take_photo, clear_map, set_parameter")
    assert ghost.split() == ["ghost", "-", "-", "unknown", *local.split(), "-"]
    assert old.split() == ["old", "-", "-", "unknown", "never", "-"]


def test_the_list_for_scripts(fleet: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "list", "--json"]) == 0
    rover = json.loads(capsys.readouterr().out)[2]
    assert rover["last_heard_at"] == "2026-05-01T12:00:00+00:00"
    assert rover["actions"][0] == "drive"


def test_one_device_is_shown_in_words(fleet: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "show", "rover"]) == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown[0].startswith("Rover (rover) in the room kitchen: online, last heard ")
    for line in (
        "drive Drive straight for a distance; excludes others of wheels",
        "distance 0.05 to 3 m; How far",
        "direction forward or backward; optional",
        "clear_map Forget the map and every place on it; asks a person first",
        "beep Beep; at most every 0.5 s",
        "max_speed, camera",
        "battery normal: 15 to 100%; Charge of the battery",
        "x in m; Position, east of the dock",
        "camera true or false; writable; Whether the camera is on",
        "firmware text of at most 256 characters; read only; Version of its program",
    ):
        assert line in shown


def test_one_device_for_scripts(fleet: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "show", "rover", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["capabilities"] == fleet


@pytest.mark.parametrize(
    ("device", "line"),
    [("ghost", "it declared nothing"), ("old", "what it declared is not understood any more")],
)
def test_a_device_without_a_profile_is_shown(
    fleet: dict[str, Any], capsys: pytest.CaptureFixture[str], device: str, line: str
) -> None:
    assert main(["devices", "show", device]) == 0
    assert capsys.readouterr().out.splitlines()[1] == line


def test_an_unknown_device_is_told_with_the_known(fleet: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "show", "nobody"]) == 1
    assert capsys.readouterr().out == "nobody is not known; known: ghost, old, rover\n"
