"""The audit log: in order, whole, for its owner only, and in nobody's way."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import threading
from pathlib import Path, PosixPath
from typing import Any

import pytest

from naila.devices.audit import Audit, AuditEntry, read_audit
from support.robots import until


def an_entry(number: int = 1, **changes: Any) -> AuditEntry:
    values = {"time": "2026-11-20T12:34:00.000Z", "event": "sent", "id": f"a{number}", "device_id": "rover"}
    return AuditEntry(**{**values, **changes})


def ids(folder: Path) -> list[object]:
    return [entry["id"] for entry in read_audit(folder)]


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_what_was_written_is_there_in_order_after_the_end(tmp_path: Path) -> None:
    async with Audit(tmp_path / "audit") as audit:
        for number in range(500):
            audit.write(an_entry(number))
    assert ids(tmp_path / "audit") == [f"a{number}" for number in range(500)]


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    async with Audit(tmp_path / "audit") as audit:
        audit.write(an_entry())
    assert audit.path.stat().st_mode & 0o777 == 0o600
    assert audit.path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_restart_goes_on_where_it_ended_even_behind_a_line_cut_short(tmp_path: Path) -> None:
    async with Audit(tmp_path) as audit:
        audit.write(an_entry(1))
    with audit.path.open("a") as file:
        file.write('{"id":"a2","dev')
    async with Audit(tmp_path) as again:
        again.write(an_entry(3))
    assert ids(tmp_path) == ["a1", "a3"]


async def test_old_files_are_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    for number in range(40):
        async with Audit(tmp_path, max_bytes=400, keep=2) as audit:
            audit.write(an_entry(number))
    sizes = {path.name: len(path.read_bytes()) for path in files(tmp_path)}
    assert sorted(sizes) == ["actions.jsonl", "actions.jsonl.1", "actions.jsonl.2"]
    assert max(sizes.values()) <= 400
    kept = ids(tmp_path)
    assert kept == [f"a{number}" for number in range(40 - len(kept), 40)]


async def test_what_cannot_be_kept_whole_is_said_so(tmp_path: Path) -> None:
    circle: list[object] = []
    circle.append(circle)
    async with Audit(tmp_path) as audit:
        audit.write(an_entry(1, arguments=circle))
        audit.write(an_entry(2, arguments={"text": "a" * 100_000}))
        audit.write(an_entry(3, arguments={"n": 10**5000}, reason="line\nbreak \ud800"))
    assert [entry["id"] for entry in read_audit(tmp_path)] == ["a1", "a2", "a3"]
    assert audit.path.stat().st_size < 2000


async def test_a_full_disk_is_told_once_and_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "audit").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        async with Audit(tmp_path / "audit") as audit:
            for number in range(3):
                audit.write(an_entry(number))
                await asyncio.sleep(0.02)
            (tmp_path / "audit").unlink()
    assert ids(tmp_path / "audit") == ["a0", "a1", "a2"]
    assert [record.message.split(": ", 1)[1][:30] for record in caplog.records if record.levelname == "ERROR"] == [
        "the audit log cannot be writte"
    ]


async def test_when_memory_is_full_too_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file where the folder should be")
    async with Audit(tmp_path / "audit", max_waiting=5) as audit:
        for number in range(50):
            audit.write(an_entry(number))
        assert audit.is_full


async def test_what_a_disk_refuses_to_the_end_is_counted_and_said_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "audit").write_text("a file where the folder should be")
    async with asyncio.timeout(3), Audit(tmp_path / "audit", max_waiting=5) as audit:
        for number in range(8):
            audit.write(an_entry(number))
    assert f"{audit.path}: 8 entries are lost" in caplog.text
    assert "exists" in caplog.records[-1].message


async def test_an_end_that_the_disk_refuses_does_not_hold_anybody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entered, gate = threading.Event(), threading.Event()

    class FillingDisk(PosixPath):
        """Takes one batch, when the gate is opened, and nothing after that."""

        def mkdir(self, *_: object, **__: object) -> None:
            if entered.is_set():
                raise OSError(errno.ENOSPC, "No space left on device")
            entered.set()
            gate.wait()

    async with asyncio.timeout(3):
        audit = Audit(FillingDisk(tmp_path))
        await audit.__aenter__()
        audit.write(an_entry(1))
        await asyncio.to_thread(entered.wait)
        audit.write(an_entry(2))
        closing = asyncio.create_task(asyncio.to_thread(audit.close))
        await until(lambda: audit.waiting == 3)  # both, and the end
        gate.set()
        await closing
    assert ids(tmp_path) == ["a1"]
    assert "1 entries are lost: [Errno 28] No space left on device" in caplog.text


async def test_a_disk_that_does_not_answer_holds_nobody_up_for_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = Audit(tmp_path, close_s=0.05)
    os.mkfifo(audit.path)
    async with audit:
        audit.write(an_entry(1))
        audit.write(an_entry(2))
    assert "2 entries are lost: the disk has not answered for 0.05 s" in caplog.text
    os.close(os.open(audit.path, os.O_RDONLY | os.O_NONBLOCK))


async def test_lines_are_json_without_what_is_not_known(tmp_path: Path) -> None:
    async with Audit(tmp_path) as audit:
        audit.write(an_entry(1, arguments={"distance": 1.5}, by="pattern", event="refused", code="busy"))
    assert json.loads(audit.path.read_text()) == {
        "time": "2026-11-20T12:34:00.000Z",
        "event": "refused",
        "id": "a1",
        "device_id": "rover",
        "arguments": {"distance": 1.5},
        "by": "pattern",
        "code": "busy",
    }
