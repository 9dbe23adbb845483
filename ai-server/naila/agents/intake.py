"""Where what devices send goes: to whoever answers, to whoever knows the devices, to whoever waits for them."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from naila.agents.mailbox import Mailbox
from naila.agents.stops import Stops
from naila.agents.wishes import Wishes
from naila.events import (
    ActionResult,
    Cancel,
    Capabilities,
    Confirmation,
    DeviceStatus,
    EmergencyStop,
    Inbound,
    Intent,
    Telemetry,
)


class Devices(Protocol):
    """Whoever knows what devices can do and measure: the registry."""

    async def declare(self, event: Capabilities) -> None:
        """Learn what a device can do.

        Raises:
            ContractError: its document is wrong.
        """
        ...

    def measure(self, event: Telemetry) -> None:
        """Learn what a device measured."""
        ...

    def note_status(self, event: DeviceStatus) -> None:
        """Learn that a device came or went."""
        ...


class Results(Protocol):
    """Whoever waits for what becomes of actions: the dispatcher."""

    def take_result(self, result: ActionResult) -> None:
        """Take what a device says became of an action."""
        ...

    def take_status(self, status: DeviceStatus) -> None:
        """Learn that a device came or went."""
        ...


class Intake:
    """Takes in whatever comes; what is awaited is no more than a write to the disk.

    Args:
        mailbox: answers requests.
        wishes: wait for a person.
        devices: know what devices can do and measure.
        results: wait for what becomes of actions.
        stops: send emergency stops.
    """

    def __init__(self, *, mailbox: Mailbox, wishes: Wishes, devices: Devices, results: Results, stops: Stops) -> None:
        self._mailbox = mailbox
        self._wishes = wishes
        self._devices = devices
        self._results = results
        self._stops = stops

    async def accept(
        self, event: Inbound, *, received_at: float | None = None, is_old: bool = False
    ) -> asyncio.Future[Any] | None:
        """Take an event in.

        Args:
            event: what came.
            received_at: when, on the monotonic clock; None: now.
            is_old: it waited at the broker before that, nobody knows for how long.

        Returns:
            What is done when the event is kept, where it is to be.

        Raises:
            ContractError: it is refused.
        """
        match event:
            case Intent():
                return await self._mailbox.accept(event, received_at=received_at, is_old=is_old)
            case Cancel():
                self._wishes.cancel(event.device_id, event.id)
                await self._mailbox.accept(event)
            case Telemetry():
                self._devices.measure(event)
            case DeviceStatus():
                self._devices.note_status(event)
                self._results.take_status(event)
            case ActionResult():
                self._results.take_result(event)
            case Confirmation():
                await self._wishes.confirm(event)
            case Capabilities():
                await self._devices.declare(event)
            case EmergencyStop():
                self.stop(event, event.device_id or "fleet")
        return None

    def stop(self, event: EmergencyStop, request_id: str) -> None:
        """Send an emergency stop, before anything else; nothing is awaited."""
        self._stops.stop(event.device_id, request_id=request_id, speaker=event.device_id or "fleet")
