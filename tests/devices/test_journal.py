"""Between the decision and the sending an action waits for the disk: what comes in that time wins."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from naila.events import Action
from naila.fleet import Outcome
from naila.ports import Cancellation
from support.fleets import Fleetful, a_fleet, a_proposal, silent

ONE_METER = {"distance": 1}


@pytest.fixture
async def fleet(tmp_path: Path) -> Fleetful:
    made = await a_fleet(tmp_path)
    made.journal.gate = asyncio.Event()
    return made


async def begun(fleet: Fleetful, *args: Any, **changes: Any) -> asyncio.Task[Outcome]:
    """Propose something, and return when the disk is waited for."""
    task = asyncio.create_task(fleet.go(*args, **changes))
    await asyncio.sleep(0)
    return task


def let_go(fleet: Fleetful) -> None:
    assert fleet.journal.gate is not None
    fleet.journal.gate.set()


def moves(fleet: Fleetful) -> list[Action]:
    return [action for action in fleet.devices.actions if action.name != "stop"]


async def test_an_action_is_journalled_before_it_is_sent_and_with_its_end(fleet: Fleetful) -> None:
    later = (a_proposal("beep"),)
    task = await begun(fleet, "drive", arguments=ONE_METER, later=later)
    assert fleet.devices.actions == []
    let_go(fleet)
    outcome = await task
    [(action, proposal)] = fleet.journal.begun
    assert action == fleet.devices.actions[0]
    assert (proposal.name, proposal.arguments, proposal.later) == ("drive", ONE_METER, later)
    assert (fleet.journal.ended, outcome.status, outcome.proposal.later) == ([outcome], "done", ())


async def test_a_stop_that_comes_meanwhile_keeps_it_from_being_sent(fleet: Fleetful) -> None:
    task = await begun(fleet, "drive", arguments=ONE_METER)
    fleet.dispatcher.stop("rover", request_id="s1", speaker="rover")
    assert [action.name for action in fleet.devices.actions] == ["stop"]
    let_go(fleet)
    outcome = await task
    assert (outcome.status, moves(fleet)) == ("stopped", [])
    assert "before it was sent" in outcome.message
    assert fleet.journal.ended == [outcome]


async def test_a_stop_of_the_speaker_that_comes_meanwhile_does_too(fleet: Fleetful) -> None:
    task = await begun(fleet, "drive", arguments=ONE_METER, speaker="lamp")
    fleet.dispatcher.stop("lamp", request_id="s1", speaker="lamp")
    let_go(fleet)
    assert ((await task).status, moves(fleet)) == ("stopped", [])


async def test_a_stop_of_all_that_comes_meanwhile_does_too(fleet: Fleetful) -> None:
    task = await begun(fleet, "drive", arguments=ONE_METER)
    fleet.dispatcher.stop(None, request_id="s1", speaker="arm")
    let_go(fleet)
    assert ((await task).status, moves(fleet)) == ("stopped", [])


async def test_a_device_that_goes_offline_meanwhile_gets_nothing(fleet: Fleetful) -> None:
    task = await begun(fleet, "drive", arguments=ONE_METER)
    fleet.tell("rover", "offline")
    let_go(fleet)
    outcome = await task
    assert (outcome.status, outcome.code, moves(fleet)) == ("refused", "device_offline", [])


async def test_a_request_that_is_cancelled_meanwhile_sends_nothing(fleet: Fleetful) -> None:
    cancellation = Cancellation()
    task = asyncio.create_task(
        fleet.dispatcher.perform(a_proposal("drive", arguments=ONE_METER), cancellation=cancellation)
    )
    await asyncio.sleep(0)
    cancellation.cancel()
    let_go(fleet)
    outcome = await task
    assert (outcome.status, outcome.code, moves(fleet)) == ("refused", "expired", [])


async def test_what_expires_while_the_disk_is_waited_for_is_not_sent(fleet: Fleetful) -> None:
    task = await begun(fleet, "drive", arguments=ONE_METER)
    fleet.clock.advance(76)
    let_go(fleet)
    outcome = await task
    assert (outcome.status, outcome.code, moves(fleet)) == ("refused", "expired", [])


async def test_what_cannot_be_journalled_is_not_sent_and_a_stop_is(fleet: Fleetful) -> None:
    fleet.journal.broken = True
    let_go(fleet)
    outcome = await fleet.go("drive", arguments=ONE_METER)
    assert (outcome.status, outcome.code) == ("refused", "internal")
    assert "disk full" in outcome.message
    assert fleet.dispatcher.stop("rover", request_id="s1", speaker="rover") == ("rover",)
    assert [action.name for action in fleet.devices.actions] == ["stop"]
    fleet.journal.broken = False
    assert (await fleet.go("drive", arguments=ONE_METER, request_id="q2")).status == "done"


async def test_of_two_that_wait_for_the_disk_only_one_gets_the_wheels(fleet: Fleetful) -> None:
    first = await begun(fleet, "drive", arguments=ONE_METER)
    second = await fleet.go("drive", arguments=ONE_METER, request_id="q2")
    let_go(fleet)
    assert (second.status, (await first).status, len(moves(fleet))) == ("refused", "done", 1)


@pytest.mark.parametrize("how", ["task cancelled", "stopped", "offline"])
async def test_what_was_not_sent_blocks_nobody(fleet: Fleetful, how: str) -> None:
    task = await begun(fleet, "drive", arguments=ONE_METER)
    if how == "task cancelled":
        task.cancel()
    elif how == "stopped":
        fleet.dispatcher.stop("rover", request_id="s1", speaker="rover")
    else:
        fleet.tell("rover", "offline")
        fleet.tell("rover", "online")
    let_go(fleet)
    await asyncio.wait({task})
    assert (await fleet.go("drive", arguments=ONE_METER, request_id="q2")).status == "done"


async def test_what_was_sent_and_not_answered_has_no_more_than_that_in_the_journal(fleet: Fleetful) -> None:
    let_go(fleet)
    fleet.devices.answer = silent
    task = await begun(fleet, "drive", arguments=ONE_METER)
    task.cancel()
    await asyncio.wait({task})
    assert (len(fleet.journal.begun), fleet.journal.ended) == (1, [])
    assert replace(fleet.journal.begun[0][1], later=()) == a_proposal("drive", arguments=ONE_METER)
