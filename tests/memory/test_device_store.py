"""Devices and pending actions in a real SQLite database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest

from naila.errors import StorageError
from naila.fleet import Pending, Proposal, Sighting
from naila.memory.database import IN_MEMORY, Database
from naila.memory.device_store import MAX_SIGHTINGS, KeptDevice, SqliteDeviceStore

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
PENDING = Pending(
    id="p1",
    proposal=Proposal(
        device_id="rover",
        name="clear_map",
        arguments={"rooms": ["kitchen", "Küche \ud800"], "depth": 1.5, "deep": {"all": True, "none": None}},
        request_id="q1",
        speaker="lamp",
        user_id="ada",
        by="model",
    ),
    question="Shall I?",
    expires_at="2026-05-01T12:02:00.000Z",
)


@pytest.fixture
async def store() -> AsyncIterator[SqliteDeviceStore]:
    async with Database(IN_MEMORY) as database:
        yield SqliteDeviceStore(database, now=lambda: NOON)


async def test_documents_come_back_as_they_were_kept(store: SqliteDeviceStore) -> None:
    await store.keep_device("rover", {"name": "Róver \ud800", "actions": []})
    await store.keep_device("arm", {"name": "Arm"})
    await store.keep_device("rover", {"name": "Rover 2"})
    assert dict(await store.load_devices()) == {"arm": {"name": "Arm"}, "rover": {"name": "Rover 2"}}
    await store.keep_device("arm", None)
    await store.keep_device("never", None)
    assert list(await store.load_devices()) == ["rover"]


async def test_a_damaged_document_hides_no_other(tmp_path: Path) -> None:
    async with Database(tmp_path / "naila.db") as database:
        store = SqliteDeviceStore(database)
        await store.keep_device("rover", {"name": "Rover"})
        await store.keep_device("arm", {"name": "Arm"})
        await database.run(lambda connection: connection.execute("UPDATE devices SET document = '{' WHERE rowid = 1"))
        assert list(await store.load_devices()) == ["arm"]


async def test_a_pending_action_outlives_the_process_less_its_moment(tmp_path: Path) -> None:
    kept = replace(PENDING, proposal=replace(PENDING.proposal, expires_at_monotonic=12.5))
    async with Database(tmp_path / "naila.db") as database:
        await SqliteDeviceStore(database, now=lambda: NOON).keep_pending(kept)
    async with Database(tmp_path / "naila.db") as database:
        assert await SqliteDeviceStore(database).load_pending() == (PENDING,)


async def test_pending_actions_come_back_in_their_order(store: SqliteDeviceStore) -> None:
    for name in ("b", "c", "a"):
        await store.keep_pending(replace(PENDING, id=name))
    assert [pending.id for pending in await store.load_pending()] == ["b", "c", "a"]


async def test_a_pending_action_is_used_up_once(store: SqliteDeviceStore) -> None:
    await store.keep_pending(PENDING)
    assert await store.settle_pending("p1")
    assert not await store.settle_pending("p1")
    assert await store.load_pending() == ()


async def test_of_many_that_settle_at_once_one_does(store: SqliteDeviceStore) -> None:
    await store.keep_pending(PENDING)
    assert sorted(await asyncio.gather(*(store.settle_pending("p1") for _ in range(8)))) == [False] * 7 + [True]


async def test_what_was_used_up_or_never_there_is_not_taken_up_again(store: SqliteDeviceStore) -> None:
    assert not await store.settle_pending("p1")
    await store.keep_pending(PENDING)
    await store.settle_pending("p1")
    await store.keep_pending(PENDING)
    assert await store.load_pending() == ()


async def test_what_waits_is_not_changed_by_another_of_its_id(store: SqliteDeviceStore) -> None:
    await store.keep_pending(PENDING)
    await store.keep_pending(replace(PENDING, proposal=replace(PENDING.proposal, name="drive")))
    assert await store.load_pending() == (PENDING,)


async def test_old_ones_are_forgotten(tmp_path: Path) -> None:
    async with Database(tmp_path / "naila.db") as database:
        await SqliteDeviceStore(database, now=lambda: NOON).keep_pending(PENDING)
        late = SqliteDeviceStore(database, now=lambda: NOON + timedelta(days=8))
        other = replace(PENDING, id="p2", expires_at="2026-05-09T12:02:00Z")
        await late.keep_pending(other)
        assert await late.load_pending() == (other,)


async def test_a_pending_action_of_another_version_is_none(tmp_path: Path) -> None:
    async with Database(tmp_path / "naila.db") as database:
        store = SqliteDeviceStore(database)
        await store.keep_pending(PENDING)
        text = json.dumps({"proposal": {"device_id": "rover", "force": 9}, "question": "", "expires_at": ""})
        await database.run(lambda connection: connection.execute("UPDATE pending_actions SET pending = ?", (text,)))
        assert await store.load_pending() == ()


async def test_what_has_no_json_is_not_kept(store: SqliteDeviceStore) -> None:
    proposal = replace(PENDING.proposal, arguments={"x": float("nan")})
    with pytest.raises(StorageError, match="no JSON"):
        await store.keep_pending(replace(PENDING, proposal=proposal))
    frozen = replace(PENDING.proposal, arguments=MappingProxyType({"x": 1}))
    await store.keep_pending(replace(PENDING, proposal=frozen))
    assert (await store.load_pending())[0].proposal.arguments == {"x": 1}


async def test_durable_writes_wait_for_the_disk_and_others_do_not(tmp_path: Path) -> None:
    def level(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    async with Database(tmp_path / "naila.db") as database:
        full, normal = await database.run(level, durable=True), await database.run(level)
        with pytest.raises(StorageError):
            await database.run(lambda connection: connection.execute("INSERT INTO nowhere VALUES (1)"), durable=True)
        assert (full, normal, await database.run(level)) == (2, 1, 1)


async def test_sightings_are_replaced_and_bounded(store: SqliteDeviceStore) -> None:
    await store.keep_sightings([])
    first = Sighting(device_id="rover", online=None, heard_at=NOON)
    await store.keep_sightings([first])
    await store.keep_device("arm", {"name": "Arm"})
    assert await store.devices() == (
        KeptDevice(device_id="arm", document={"name": "Arm"}, sighting=None),
        KeptDevice(device_id="rover", document=None, sighting=first),
    )
    await store.keep_sightings(
        [
            replace(first, device_id=f"d{number}", heard_at=NOON + timedelta(seconds=1), online=False)
            for number in range(MAX_SIGHTINGS)
        ]
    )
    devices = await store.devices()
    assert len(devices) == MAX_SIGHTINGS + 1
    assert "rover" not in {device.device_id for device in devices}
