"""The devices that are known, with a real database behind them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from naila.devices.registry import Registry
from naila.errors import ContractError, StorageError
from naila.events import Capabilities, DeviceStatus, JsonValue, Telemetry
from naila.fleet import Sighting
from naila.memory.database import IN_MEMORY, Database
from naila.memory.device_store import SqliteDeviceStore
from support.fakes import FakeClock

EXAMPLES = Path(__file__).parents[2] / "examples"
ROVER: dict[str, Any] = json.loads((EXAMPLES / "rover.json").read_text(encoding="utf-8"))


def declared(device_id: str = "rover", document: dict[str, Any] | None = ROVER) -> Capabilities:
    return Capabilities(device_id=device_id, document=document)


def status(word: str, device_id: str = "rover") -> DeviceStatus:
    return DeviceStatus(device_id=device_id, status=word)


class CountingStore(SqliteDeviceStore):
    """Counts what is kept, and fails on demand."""

    kept = 0
    broken = False

    async def keep_device(self, device_id: str, document: Mapping[str, JsonValue] | None) -> None:
        if self.broken:
            raise StorageError("disk full")
        self.kept += 1
        await super().keep_device(device_id, document)


@pytest.fixture
async def store() -> AsyncIterator[CountingStore]:
    async with Database(IN_MEMORY) as database:
        yield CountingStore(database)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def registry(store: CountingStore, clock: FakeClock, changes: list[str]) -> Registry:
    return Registry(store, clock, on_change=changes.append, max_devices=3)


async def test_a_device_is_known_as_soon_as_it_declares_itself(registry: Registry, changes: list[str]) -> None:
    assert registry.profile("rover") is None
    await registry.declare(declared())
    profile = registry.profile("rover")
    assert profile is not None
    assert profile.name == "Rover"
    assert registry.profiles() == (profile,)
    assert changes == ["rover"]


async def test_a_change_is_live_and_a_repeat_writes_nothing(registry: Registry, store: CountingStore) -> None:
    await registry.declare(declared())
    await registry.declare(declared(document={**ROVER}))
    assert store.kept == 1
    await registry.declare(declared(document={**ROVER, "room": "attic"}))
    profile = registry.profile("rover")
    assert profile is not None
    assert profile.room == "attic"
    assert store.kept == 2


async def test_a_removed_declaration_is_gone_here_and_on_disk(registry: Registry, store: CountingStore) -> None:
    await registry.declare(declared())
    await registry.declare(declared(document=None))
    assert registry.profiles() == ()
    assert await store.load_devices() == {}


async def test_a_broken_update_keeps_the_old_profile(
    registry: Registry, store: CountingStore, changes: list[str]
) -> None:
    await registry.declare(declared())
    with pytest.raises(ContractError, match=r"capabilities: actions: must be an array"):
        await registry.declare(declared(document={**ROVER, "actions": 3}))
    assert registry.profile("rover") is not None
    assert await store.load_devices() == {"rover": ROVER}
    assert changes == ["rover"]


async def test_it_survives_a_restart_without_presence(registry: Registry, store: CountingStore) -> None:
    await registry.declare(declared())
    registry.note_status(status("online"))
    later = Registry(store, FakeClock())
    await later.load()
    assert later.profile("rover") == registry.profile("rover")
    assert later.is_online("rover") is None


async def test_what_is_kept_but_not_understood_any_more_is_left_until_declared_anew(
    registry: Registry, store: CountingStore
) -> None:
    await store.keep_device("old", {"name": 3})
    await registry.load()
    assert registry.profiles() == ()


async def test_a_broken_disk_takes_no_device_away(
    registry: Registry, store: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.broken = True
    await registry.declare(declared())
    assert registry.profile("rover") is not None
    assert "holds until the next start only: disk full" in caplog.text


def test_presence_follows_the_status(registry: Registry, changes: list[str]) -> None:
    seen = [registry.is_online("rover")]
    for word in ("online", "online", "charging", "offline", "unknown"):
        registry.note_status(status(word))
        seen.append(registry.is_online("rover"))
    assert seen == [None, True, True, True, False, None]
    assert changes == ["rover"] * 3


def test_readings_grow_old(registry: Registry, clock: FakeClock, changes: list[str]) -> None:
    registry.measure(Telemetry(device_id="rover", values={"battery": 80}))
    clock.advance(5)
    reading = registry.readings("rover")["battery"]
    assert (reading.value, reading.age_s) == (80, 5.0)
    assert registry.readings("nobody") == {}
    assert changes == []


async def test_strangers_push_out_strangers_but_never_a_declared_device(registry: Registry) -> None:
    await registry.declare(declared("one"))
    for number in range(10):
        registry.measure(Telemetry(device_id=f"stranger{number}", values={"t": 1}))
    assert registry.profile("one") is not None
    assert registry.readings("stranger9")
    assert not registry.readings("stranger1")


def test_that_a_stranger_was_dropped_is_told(registry: Registry, changes: list[str]) -> None:
    for number in range(5):
        registry.measure(Telemetry(device_id=f"stranger{number}", values={"t": 1}))
    assert changes == ["stranger0", "stranger1"]


async def test_a_new_declaration_takes_the_place_of_the_longest_silent_that_is_not_online(
    registry: Registry, store: CountingStore, changes: list[str]
) -> None:
    for name in ("one", "two", "three"):
        await registry.declare(declared(name))
    registry.note_status(status("online", "one"))
    registry.note_status(status("offline", "two"))
    registry.note_status(status("online", "three"))
    await registry.declare(declared("four"))
    assert [profile.device_id for profile in registry.profiles()] == ["four", "one", "three"]
    assert sorted(await store.load_devices()) == ["four", "one", "three"]
    assert "two" in changes[-2:]


async def test_a_device_too_many_is_told_so(registry: Registry) -> None:
    for name in ("one", "two", "three"):
        await registry.declare(declared(name))
        registry.note_status(status("online", name))
    with pytest.raises(ContractError, match="3 devices are online already"):
        await registry.declare(declared("four"))
    registry.measure(Telemetry(device_id="five", values={"t": 1}))
    assert registry.readings("five") == {}


async def test_when_devices_were_heard_is_kept_now_and_then(
    registry: Registry, store: CountingStore, clock: FakeClock
) -> None:
    registry.note_status(status("online"))
    heard_at = clock.now()
    clock.advance(7)
    keeping = asyncio.create_task(registry.keep_sightings(store, every_s=0.001))
    async with asyncio.timeout(5):
        while not (devices := await store.devices()):  # noqa: ASYNC110 - what is on disk
            await asyncio.sleep(0.002)
    keeping.cancel()
    assert [device.sighting for device in devices] == [Sighting(device_id="rover", online=True, heard_at=heard_at)]
