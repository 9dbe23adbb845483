"""The way in for what devices say about themselves, past whoever watches them."""

from __future__ import annotations

from typing import Final

from naila.devices.monitoring import Monitor
from naila.devices.registry import Registry
from naila.events import Capabilities, DeviceStatus, Telemetry


class WatchedRegistry:
    """A registry whose telemetry a monitor sees, after it was taken in. The rest the registry tells by itself.

    Args:
        registry: keeps it.
        monitor: watches it.
    """

    def __init__(self, registry: Registry, monitor: Monitor) -> None:
        self._registry: Final = registry
        self._monitor: Final = monitor

    async def declare(self, event: Capabilities) -> None:
        """Take up what a device declares.

        Raises:
            ContractError: as the registry does.
        """
        await self._registry.declare(event)

    def measure(self, event: Telemetry) -> None:
        """Take in what a device measured."""
        self._registry.measure(event)
        self._monitor.measure(event)

    def note_status(self, event: DeviceStatus) -> None:
        """Take note of whether a device is there."""
        self._registry.note_status(event)
