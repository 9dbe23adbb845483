"""A dispatcher with real parts around it: registry, permissions, audit; what it publishes can be answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from naila.config.permissions import PermissionRules
from naila.devices.audit import Audit
from naila.devices.dispatcher import Dispatcher, Limits
from naila.devices.permissions import Permissions
from naila.devices.registry import Registry
from naila.errors import StorageError
from naila.events import Action, ActionPending, ActionResult, Capabilities, DeviceStatus, ErrorNotice, JsonValue
from naila.fleet import Outcome, Pending, Proposal
from naila.ports import DeviceStore
from support.fakes import FakeClock, FakePublisher

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> dict[str, Any]:
    """The capabilities of one of the robots that come with NAILA: rover, arm or lamp."""
    document: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return document


@dataclass
class FakeDeviceStore:
    """A disk in memory; `broken` makes it fail, and `gate` makes it wait."""

    devices: dict[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    waiting: dict[str, Pending] = field(default_factory=dict)
    broken: bool = False
    gate: asyncio.Event | None = None

    async def load_devices(self) -> Mapping[str, Mapping[str, JsonValue]]:
        return dict(self.devices)

    async def keep_device(self, device_id: str, document: Mapping[str, JsonValue] | None) -> None:
        if document is None:
            self.devices.pop(device_id, None)
        else:
            self.devices[device_id] = document

    async def load_pending(self) -> Sequence[Pending]:
        return list(self.waiting.values())

    async def keep_pending(self, pending: Pending) -> None:
        await self._disk()
        self.waiting[pending.id] = pending

    async def settle_pending(self, pending_id: str) -> bool:
        await self._disk()
        return self.waiting.pop(pending_id, None) is not None

    async def _disk(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise StorageError("disk full")


@dataclass
class FakeJournal:
    """A journal in memory; `broken` makes it fail, and `gate` makes it wait."""

    begun: list[tuple[Action, Proposal]] = field(default_factory=list)
    ended: list[Outcome] = field(default_factory=list)
    broken: bool = False
    gate: asyncio.Event | None = None

    async def begin(self, action: Action, proposal: Proposal) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise StorageError("disk full")
        self.begun.append((action, proposal))

    def end(self, outcome: Outcome) -> None:
        self.ended.append(outcome)


@dataclass
class Devices(FakePublisher):
    """Publishes, and lets the devices answer: `answer` is called for each action, in the next round of the loop."""

    answer: Callable[[Action], ActionResult | None] = lambda action: ActionResult(
        device_id=action.device_id, id=action.id, ok=True
    )
    dispatcher: Dispatcher | None = None

    def publish(self, event: Any, *, to: Any = None) -> None:
        super().publish(event, to=to)
        if isinstance(event, Action):
            asyncio.get_running_loop().call_soon(self._answer, event)

    def _answer(self, action: Action) -> None:
        result = self.answer(action)
        if result is not None and self.dispatcher is not None:
            self.dispatcher.take_result(result)

    @property
    def actions(self) -> list[Action]:
        return [event for event in self.published if isinstance(event, Action)]

    @property
    def asked(self) -> list[ActionPending]:
        return [event for event in self.published if isinstance(event, ActionPending)]

    @property
    def errors(self) -> list[ErrorNotice]:
        return self.notices


@dataclass(kw_only=True)
class Fleetful:
    """Everything around a dispatcher.

    Attributes:
        store: its store, where that is a fake.
        journal: its journal.
        expired: what nobody answered in time.
        withdrawn: what a stop took away.
    """

    dispatcher: Dispatcher
    registry: Registry
    store: FakeDeviceStore
    journal: FakeJournal
    devices: Devices
    clock: FakeClock
    audit: Audit
    expired: list[Pending] = field(default_factory=list)
    withdrawn: list[Pending] = field(default_factory=list)

    async def go(self, name: str, device: str = "rover", /, **changes: Any) -> Any:
        return await self.dispatcher.perform(a_proposal(name, device, **changes))

    def tell(self, device_id: str, status: str) -> None:
        """A device says whether it is there."""
        self.registry.note_status(DeviceStatus(device_id=device_id, status=status))
        self.dispatcher.take_status(DeviceStatus(device_id=device_id, status=status))


def a_proposal(name: str = "beep", device: str = "rover", **changes: Any) -> Proposal:
    proposal = Proposal(device_id=device, name=name, request_id="q1", speaker="rover")
    return replace(proposal, **changes)


def silent(_: Action) -> None:
    """The answer of a device that never answers."""


async def a_fleet(
    folder: Path,
    *,
    rules: PermissionRules | None = None,
    limits: Limits | None = None,
    store: DeviceStore | None = None,
    clock: FakeClock | None = None,
    documents: Mapping[str, Mapping[str, JsonValue]] | None = None,
    max_waiting: int = 1_000_000,
) -> Fleetful:
    """Return a fleet of the three examples; the audit log is not begun."""
    clock, devices = clock or FakeClock(), Devices()
    fake = store if isinstance(store, FakeDeviceStore) else FakeDeviceStore()
    store = store or fake
    journal = FakeJournal()
    registry = Registry(store, clock)
    audit = Audit(folder / "audit", max_waiting=max_waiting)
    expired: list[Pending] = []
    withdrawn: list[Pending] = []
    dispatcher = Dispatcher(
        registry=registry,
        store=store,
        journal=journal,
        publisher=devices,
        clock=clock,
        permissions=Permissions(rules or PermissionRules()),
        audit=audit,
        limits=limits or Limits(),
        on_expired=expired.append,
        on_withdrawn=withdrawn.append,
    )
    devices.dispatcher = dispatcher
    await registry.load()
    for device_id, document in (documents or {name: example(name) for name in ("rover", "arm", "lamp")}).items():
        await registry.declare(Capabilities(device_id=device_id, document=document))
    await dispatcher.load()
    return Fleetful(
        dispatcher=dispatcher,
        registry=registry,
        store=fake,
        journal=journal,
        devices=devices,
        clock=clock,
        audit=audit,
        expired=expired,
        withdrawn=withdrawn,
    )
