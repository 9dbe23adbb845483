"""The devices that are known: what they declared, whether they are there, what they measure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from naila.devices.capabilities import Document, read_profile, unknown_keys
from naila.devices.telemetry import Telemetry as Measured
from naila.errors import ContractError, StorageError
from naila.events import Capabilities, DeviceStatus, Telemetry
from naila.fleet import DeviceProfile, Reading, Sighting
from naila.ports import Clock, DeviceStore, SightingStore

_log = logging.getLogger(__name__)

MAX_DEVICES: Final = 1024
SIGHTINGS_S: Final = 30.0


class Registry:
    """Keeps what devices declared on disk and the rest in memory. Belongs to one event loop.

    Of more than `MAX_DEVICES` the one least recently heard makes room: first of those that declared nothing, then of
    those that are not online, and a device that declared something only for another one that does.

    Args:
        store: the disk.
        clock: the time.
        on_change: told the id of a device whose declaration or presence changed, or that was dropped; not of telemetry.
        on_measure: told what a device measured, once it is taken in.
        max_devices: bound on the devices.
    """

    def __init__(
        self,
        store: DeviceStore,
        clock: Clock,
        *,
        on_change: Callable[[str], None] = lambda _: None,
        on_measure: Callable[[Telemetry], None] = lambda _: None,
        max_devices: int = MAX_DEVICES,
    ) -> None:
        self._store: Final = store
        self._clock: Final = clock
        self._on_change: Final = on_change
        self._on_measure: Final = on_measure
        self._max_devices: Final = max_devices
        self._devices: dict[str, _Device] = {}

    async def load(self) -> None:
        """Take up what was kept; a document that is no longer understood waits for its device to declare itself.

        Raises:
            StorageError: the store cannot be read.
        """
        for device_id, document in (await self._store.load_devices()).items():
            try:
                profile = read_profile(device_id, document)
            except ContractError as exc:
                _log.warning("what %s declared earlier is not understood any more: %s", device_id, exc)
                continue
            known = self._heard(device_id, declares=True)
            if known is not None:
                known.profile, known.document, known.is_unkept = profile, document, False

    async def declare(self, event: Capabilities) -> None:
        """Take up what a device declares now, and keep it. Where the disk fails, it holds until the next start.

        Raises:
            ContractError: `bad_payload`, with the path in the document; what it declared before stays.
        """
        device_id, document = event.device_id, event.document
        if document is None:
            await self._remove(device_id)
            return
        profile = read_profile(device_id, document)
        leaving = self._make_room(device_id, declares=True)
        known = self._heard(device_id, declares=True)
        if known is None:
            raise ContractError(
                "busy", f"capabilities: {self._max_devices} devices are online already", device_id=device_id
            )
        if known.document == document:
            return
        if ignored := unknown_keys(document):
            _log.warning("%s: capabilities: unknown and left out: %s", device_id, ", ".join(ignored[:8]))
        known.profile, known.document = profile, document
        self._on_change(device_id)
        await self._keep(device_id, document)
        if leaving is not None:
            await self._keep(leaving, None)

    def measure(self, event: Telemetry) -> None:
        """Take in what a device measured."""
        known = self._heard(event.device_id)
        if known is not None:
            known.measured.measure(event.values, self._clock.monotonic())
        self._on_measure(event)

    def note_status(self, event: DeviceStatus) -> None:
        """Take note of whether a device is there. `unknown`, which a cleared status is, says nothing any more."""
        known = self._heard(event.device_id)
        if known is None:
            return
        # A status of the device's own ("charging") comes from one that is there.
        online = None if event.status == "unknown" else event.status != "offline"
        if known.online != online:
            known.online = online
            self._on_change(event.device_id)

    def profile(self, device_id: str) -> DeviceProfile | None:
        """Return what a device declared, if it did."""
        known = self._devices.get(device_id)
        return None if known is None else known.profile

    def profiles(self) -> tuple[DeviceProfile, ...]:
        """Return what everybody declared, by id."""
        profiles = (known.profile for _, known in sorted(self._devices.items()))
        return tuple(profile for profile in profiles if profile is not None)

    def is_online(self, device_id: str) -> bool | None:
        """Tell whether a device is there; None where it never said."""
        known = self._devices.get(device_id)
        return None if known is None else known.online

    def readings(self, device_id: str) -> Mapping[str, Reading]:
        """Return what a device measured last, by field."""
        known = self._devices.get(device_id)
        return {} if known is None else known.measured.readings(self._clock.monotonic())

    async def keep_sightings(self, store: SightingStore, every_s: float = SIGHTINGS_S) -> None:
        """Keep when each device was last heard, for those who look from outside. Runs until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            seen = self._unkept_sightings()
            try:
                await store.keep_sightings(seen)
            except StorageError as exc:
                _log.warning("when devices were last heard is not kept: %s", exc)

    def _unkept_sightings(self) -> tuple[Sighting, ...]:
        fresh = [(device_id, known) for device_id, known in self._devices.items() if known.is_unkept]
        for _, known in fresh:
            known.is_unkept = False
        now, moment = self._clock.monotonic(), self._clock.now()
        return tuple(
            Sighting(
                device_id=device_id, online=known.online, heard_at=moment - timedelta(seconds=now - known.heard_at)
            )
            for device_id, known in fresh
        )

    async def _remove(self, device_id: str) -> None:
        known = self._devices.get(device_id)
        if known is None or known.profile is None:
            return
        known.profile = known.document = None
        self._on_change(device_id)
        await self._keep(device_id, None)

    async def _keep(self, device_id: str, document: Document | None) -> None:
        try:
            await self._store.keep_device(device_id, document)
        except StorageError as exc:
            _log.error("what %s declared holds until the next start only: %s", device_id, exc)

    def _heard(self, device_id: str, *, declares: bool = False) -> _Device | None:
        """Return a device's entry, the newest now; None where there is no room for it."""
        self._make_room(device_id, declares=declares)
        known = self._devices.pop(device_id, None)
        if known is None and len(self._devices) >= self._max_devices:
            return None
        known = self._devices[device_id] = known or _Device()
        known.heard_at, known.is_unkept = self._clock.monotonic(), True
        return known

    def _make_room(self, device_id: str, *, declares: bool) -> str | None:
        """Drop a device where a new one needs its place; return the id of one whose declaration went with it."""
        if device_id in self._devices or len(self._devices) < self._max_devices:
            return None
        # They are in the order in which they were heard, the longest silent first.
        leaving = next((key for key, known in self._devices.items() if known.profile is None), None)
        if leaving is None and declares:
            leaving = next((key for key, known in self._devices.items() if not known.online), None)
        if leaving is None:
            return None
        has_declared = self._devices.pop(leaving).profile is not None
        self._on_change(leaving)
        if not has_declared:
            return None
        _log.warning("more than %d devices: %s, not heard for the longest, is dropped", self._max_devices, leaving)
        return leaving


class _Device:
    """What is known of one device."""

    def __init__(self) -> None:
        self.profile: DeviceProfile | None = None
        self.document: Document | None = None
        self.online: bool | None = None
        self.heard_at = 0.0
        self.is_unkept = False
        self.measured: Final = Measured()
