"""What an alert wants done and a person must approve: the real dispatcher, wishes and stops around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from naila.agents.stops import Stops
from naila.agents.wishes import Wishes
from naila.config.monitoring import WatchRule
from naila.devices.speaking_first import SpeakingFirst
from naila.errors import ContractError
from naila.events import Alert, Confirmation
from naila.memory.checkpoints import Checkpoints
from naila.orchestration.wish import SuspendedWishes
from support.fakes import FakeMemory, an_intent
from support.fleets import FakeDeviceStore, Fleetful, a_fleet
from support.robots import until

RULE = WatchRule.model_validate({"field": "battery", "below": 15, "action": {"name": "clear_map"}})
ALERT = Alert(code="telemetry_low", severity="critical", message="Rover: battery is low", device_id="rover")


@dataclass(frozen=True, kw_only=True)
class House:
    """What takes part."""

    fleet: Fleetful
    stops: Stops
    wishes: Wishes
    reactions: SpeakingFirst

    async def asked(self) -> str:
        """Let an alert want what needs a yes; return the id of the question."""
        self.reactions.react("rover", RULE, ALERT, {})
        await until(lambda: bool(self.fleet.devices.asked))
        return self.fleet.devices.asked[0].id

    async def answer(self, pending_id: str, *, approve: bool = True) -> None:
        await self.wishes.confirm(Confirmation(device_id="rover", id=pending_id, approve=approve))

    @property
    def moved(self) -> list[str]:
        return [action.name for action in self.fleet.devices.actions]

    @property
    def alerts(self) -> list[Alert]:
        return [event for event in self.fleet.devices.published if isinstance(event, Alert)]


@dataclass
class Room:
    """A disk, and the processes that come and go."""

    path: Path
    store: FakeDeviceStore = field(default_factory=FakeDeviceStore)

    @asynccontextmanager
    async def process(self) -> AsyncIterator[House]:
        fleet = await a_fleet(self.path, store=self.store)
        stops = Stops(fleet.dispatcher, fleet.clock, on_stop=lambda _device_id, _request: None)
        reactions = SpeakingFirst(
            fleet=fleet.dispatcher, stops=stops, publisher=fleet.devices, clock=fleet.clock, make_id=lambda: "alert1"
        )
        async with Checkpoints(self.path / "waiting.db") as checkpoints:
            wishes = Wishes(
                fleet=fleet.dispatcher,
                suspended=SuspendedWishes(checkpoints, checkpoints.threads),
                endings=lambda: pytest.fail("no request waits"),
                memory=FakeMemory(),
                deliver=lambda _intent, _reply: pytest.fail("no request waits"),
                clock=fleet.clock,
                on_approved=reactions.approved,
            )
            running = asyncio.create_task(reactions.run())
            yield House(fleet=fleet, stops=stops, wishes=wishes, reactions=reactions)
            running.cancel()
            await asyncio.wait({running})


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


async def test_a_yes_has_it_done_once(room: Room) -> None:
    async with room.process() as house:
        pending_id = await house.asked()
        assert house.moved == []
        await house.answer(pending_id)
        await until(lambda: house.moved == ["clear_map"])
        with pytest.raises(ContractError):
            await house.answer(pending_id)
        assert [alert.message.split(" ")[3] for alert in house.alerts] == ["waits"]


async def test_a_yes_counts_after_a_restart_too(room: Room) -> None:
    async with room.process() as house:
        pending_id = await house.asked()
    async with room.process() as house:
        await house.answer(pending_id)
        await until(lambda: house.moved == ["clear_map"])


async def test_what_is_not_done_after_a_yes_is_told(room: Room) -> None:
    async with room.process() as house:
        pending_id = await house.asked()
        house.fleet.tell("rover", "offline")
        await house.answer(pending_id)
        await until(lambda: len(house.alerts) > 1)
        assert "clear_map of rover refused" in house.alerts[-1].message


async def test_a_no_has_nothing_done(room: Room) -> None:
    async with room.process() as house:
        await house.answer(await house.asked(), approve=False)
        await asyncio.sleep(0.01)
        assert house.moved == []


async def test_a_stop_between_the_yes_and_the_action_wins(room: Room) -> None:
    async with room.process() as house:
        await house.answer(await house.asked())
        house.stops.stop("rover", request_id="s1", speaker="rover")
        await until(lambda: len(house.alerts) > 1)
        assert house.moved == ["stop"]


async def test_what_an_alert_wanted_before_a_stop_is_not_proposed_after_it(room: Room) -> None:
    beep = WatchRule.model_validate({"field": "battery", "below": 15, "action": {"name": "beep"}})
    async with room.process() as house:
        house.reactions.react("rover", beep, ALERT, {})
        house.stops.stop("rover", request_id="s1", speaker="rover")
        await until(lambda: bool(house.alerts))
        assert house.moved == ["stop"]


async def test_the_question_may_be_answered_by_word_of_mouth(room: Room) -> None:
    async with room.process() as house:
        pending_id = await house.asked()
        here, there = an_intent("yes", device_id="rover"), an_intent("yes", device_id="rover", conversation_id="other")
        assert [pending.id for pending in house.wishes.awaited(here)] == [pending_id]
        assert house.wishes.awaited(there) == house.wishes.awaited(an_intent("yes", device_id="lamp")) == ()
