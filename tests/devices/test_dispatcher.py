"""The only way out for an action, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from naila.config.permissions import PermissionRule, PermissionRules
from naila.devices.dispatcher import Limits
from naila.errors import ContractError
from naila.events import Action, ActionResult, Capabilities
from naila.fleet import Outcome, Pending
from naila.memory.database import Database
from naila.memory.device_store import SqliteDeviceStore
from naila.ports import Cancellation
from support.fakes import FakeClock
from support.fleets import FakeDeviceStore, Fleetful, a_fleet, a_proposal, example, silent
from support.robots import until

ONE_METER = {"distance": 1}


@pytest.fixture
async def fleet(tmp_path: Path) -> Fleetful:
    return await a_fleet(tmp_path)


def quick(seconds: float = 0.1) -> dict[str, Any]:
    """The rover, with actions that are wanted only briefly."""
    document = example("rover")
    for action in document["actions"]:
        action["ttl_ms"] = int(seconds * 1000)
    return document


def answering(**fields: Any) -> Any:
    return lambda action: ActionResult(**{"device_id": action.device_id, "id": action.id, "ok": True, **fields})


async def begun(fleet: Fleetful, *args: Any, **changes: Any) -> tuple[asyncio.Task[Outcome], Action]:
    """Start something that the device does not answer, and return it with its action."""
    fleet.devices.answer = silent
    task = asyncio.create_task(fleet.go(*args, **changes))
    await asyncio.sleep(0)
    return task, fleet.devices.actions[-1]


# --- out and back ---


async def test_a_cleared_action_goes_out_and_its_result_comes_back(fleet: Fleetful) -> None:
    fleet.devices.answer = answering(result={"moved": 1.0})
    outcome = await fleet.go("drive", arguments=ONE_METER)
    assert (outcome.status, outcome.result, outcome.code) == ("done", {"moved": 1.0}, None)
    [action] = fleet.devices.actions
    assert (action.device_id, action.name, action.arguments, action.request_id) == ("rover", "drive", ONE_METER, "q1")
    assert (outcome.id, action.ttl_ms, action.expires_at) == (action.id, 75_000, "2026-11-20T12:35:15.000Z")


async def test_what_the_device_says_of_a_failure_is_told(fleet: Fleetful) -> None:
    fleet.devices.answer = answering(ok=False, error="blocked\nby a\u202e chair")
    outcome = await fleet.go("drive", arguments=ONE_METER)
    assert (outcome.status, outcome.code, outcome.message) == ("failed", "action_failed", "blocked by a chair")


async def test_a_huge_result_is_left_out_and_said_so(fleet: Fleetful) -> None:
    fleet.devices.answer = answering(ok=False, error="e" * 70_000, result=["a" * 70_000])
    outcome = await fleet.go("drive", arguments=ONE_METER)
    assert outcome.result is None
    assert len(outcome.message) < 600
    assert "left out" in outcome.message


async def test_sequence_numbers_only_grow_and_outlive_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    fleet = await a_fleet(tmp_path, clock=clock)
    await fleet.go("take_photo")
    await fleet.go("take_photo")
    fleet.dispatcher.stop("rover", request_id="q2", speaker="rover")
    clock.advance(5)
    again = await a_fleet(tmp_path, clock=clock)
    await again.go("take_photo")
    numbers = [action.seq for action in (*fleet.devices.actions, *again.devices.actions)]
    assert numbers == sorted(set(numbers))
    assert max(numbers) < 2**31


async def test_a_request_that_ends_sooner_shortens_the_action(fleet: Fleetful) -> None:
    await fleet.go("drive", arguments=ONE_METER, expires_at_monotonic=fleet.clock.seconds + 2)
    assert fleet.devices.actions[0].ttl_ms == 2000
    assert datetime.fromisoformat(fleet.devices.actions[0].expires_at).second == 2


async def test_what_the_proposer_does_later_with_its_arguments_changes_nothing(fleet: Fleetful) -> None:
    arguments: dict[str, Any] = {"distance": 1}
    task, action = await begun(fleet, "drive", arguments=arguments)
    arguments["distance"] = 100
    task.cancel()
    assert action.arguments == ONE_METER


async def test_what_whoever_asked_does_with_the_outcome_changes_nothing(fleet: Fleetful) -> None:
    outcome = await fleet.go("drive", arguments={"distance": 1})
    outcome.proposal.arguments["distance"] = 100
    assert fleet.devices.actions[0].arguments == ONE_METER


async def test_a_parameter_is_set_within_its_limits(fleet: Fleetful) -> None:
    good = await fleet.go("set_parameter", arguments={"name": "max_speed", "value": 0.3})
    bad = await fleet.go("set_parameter", arguments={"name": "max_speed", "value": 3})
    fixed = await fleet.go("set_parameter", arguments={"name": "firmware", "value": "x"})
    assert [good.status, bad.code, fixed.status] == ["done", "out_of_range", "refused"]


# --- refused ---


async def test_a_refusal_is_told_to_the_speaker_and_nothing_is_sent(fleet: Fleetful) -> None:
    outcome = await fleet.go("drive", arguments={"distance": 10}, speaker="lamp", request_id="q7")
    assert (outcome.status, outcome.code) == ("refused", "out_of_range")
    [error] = fleet.devices.errors
    assert (error.device_id, error.id, error.code, error.message) == ("lamp", "q7", "out_of_range", outcome.message)
    assert fleet.devices.actions == []


async def test_an_offline_device_gets_nothing(fleet: Fleetful) -> None:
    fleet.tell("rover", "offline")
    assert (await fleet.go("beep")).code == "device_offline"
    fleet.tell("rover", "online")
    assert (await fleet.go("beep")).status == "done"


async def test_a_device_that_takes_its_capabilities_back_is_moved_no_more(fleet: Fleetful) -> None:
    await fleet.registry.declare(Capabilities(device_id="rover", document=None))
    assert (await fleet.go("beep")).code == "unknown_action"


async def test_permissions_hold(tmp_path: Path) -> None:
    rules = PermissionRules("deny", (PermissionRule(effect="allow", device="@speaker"),))
    fleet = await a_fleet(tmp_path, rules=rules)
    assert (await fleet.go("beep")).status == "done"
    assert (await fleet.go("beep", speaker="lamp")).code == "unknown_action"


async def test_a_request_that_was_cancelled_before_sends_nothing(fleet: Fleetful) -> None:
    cancelled = Cancellation()
    cancelled.cancel("deadline")
    outcome = await fleet.dispatcher.perform(a_proposal("beep"), cancellation=cancelled)
    assert (outcome.status, outcome.code) == ("refused", "expired")
    assert fleet.devices.actions == []


async def test_with_no_room_to_write_it_down_nothing_moves_but_a_stop(
    tmp_path: Path,
) -> None:
    fleet = await a_fleet(tmp_path, max_waiting=3)
    for _ in range(3):
        await fleet.go("fly")
    assert (await fleet.go("drive", arguments=ONE_METER)).code == "internal"
    assert fleet.dispatcher.stop("rover", request_id="q2", speaker="rover") == ("rover",)


# --- how often, and one at a time ---


async def test_the_declared_interval_is_kept(fleet: Fleetful) -> None:
    assert (await fleet.go("beep")).status == "done"
    fleet.clock.advance(0.4)
    refused = await fleet.go("beep")
    fleet.clock.advance(0.2)
    assert (refused.code, "allowed every 500 ms" in refused.message) == ("rate_limited", True)
    assert (await fleet.go("beep")).status == "done"


async def test_a_request_may_move_so_often_and_no_more(tmp_path: Path) -> None:
    fleet = await a_fleet(tmp_path, limits=Limits(per_request=3))
    codes = [(await fleet.go("take_photo")).code for _ in range(4)]
    assert codes == [None, None, None, "rate_limited"]
    assert (await fleet.go("take_photo", request_id="q2")).status == "done"


async def test_a_device_gets_so_many_a_minute_whoever_asks(tmp_path: Path) -> None:
    fleet = await a_fleet(tmp_path, limits=Limits(per_minute=3))
    codes = [(await fleet.go("take_photo", request_id=f"q{n}", speaker=f"s{n}")).code for n in range(4)]
    assert codes == [None, None, None, "rate_limited"]
    fleet.clock.advance(60)
    assert (await fleet.go("take_photo", request_id="q9")).status == "done"


async def test_of_two_at_once_only_one_gets_the_wheels(fleet: Fleetful) -> None:
    outcomes = await asyncio.gather(
        *(fleet.go("drive", arguments=ONE_METER, request_id=f"q{number}") for number in range(10))
    )
    assert sorted(str(outcome.code) for outcome in outcomes) == ["None", *["busy"] * 9]
    assert len(fleet.devices.actions) == 1


async def test_of_two_at_once_only_one_keeps_the_interval(fleet: Fleetful) -> None:
    await asyncio.gather(*(fleet.go("beep", request_id=f"q{number}") for number in range(10)))
    assert len(fleet.devices.actions) == 1


async def test_a_result_frees_the_group(fleet: Fleetful) -> None:
    assert (await fleet.go("drive", arguments=ONE_METER)).status == "done"
    assert (await fleet.go("go_to", arguments={"place": "dock"})).status == "done"


async def test_a_request_that_is_over_soon_frees_no_group_of_what_still_moves(fleet: Fleetful) -> None:
    until = fleet.clock.monotonic() + 0.05
    fleet.devices.answer = silent
    outcome = await fleet.go("drive", arguments=ONE_METER, expires_at_monotonic=until)
    assert outcome.status == "unanswered"
    assert (fleet.devices.actions[0].ttl_ms or 0) <= 50
    fleet.clock.advance(74.9)
    assert (await fleet.go("go_to", arguments={"place": "dock"})).code == "busy"
    fleet.dispatcher.take_result(ActionResult(device_id="rover", id=outcome.id, ok=True))
    fleet.devices.answer = answering()
    assert (await fleet.go("go_to", arguments={"place": "dock"})).status == "done"


async def test_the_broker_forgets_an_action_when_its_time_is_over_however_long_the_disk_took(fleet: Fleetful) -> None:
    fleet.journal.gate = asyncio.Event()
    task = asyncio.create_task(fleet.go("drive", arguments=ONE_METER))
    await asyncio.sleep(0)
    fleet.clock.advance(70)
    fleet.journal.gate.set()
    assert (await task).status == "done"
    assert (fleet.devices.actions[0].ttl_ms, fleet.devices.actions[0].expires_at) == (5_000, "2026-11-20T12:35:15.000Z")


async def test_a_group_stays_taken_while_nobody_knows_whether_it_still_moves(fleet: Fleetful) -> None:
    task, _ = await begun(fleet, "drive", arguments=ONE_METER)
    task.cancel()
    await asyncio.sleep(0)
    assert (await fleet.go("go_to", arguments={"place": "dock"})).code == "busy"
    assert fleet.dispatcher.view("rover").devices[0].running == ("drive",)
    fleet.clock.advance(75)
    fleet.devices.answer = answering()
    assert (await fleet.go("go_to", arguments={"place": "dock"})).status == "done"


# --- results that do not come as they should ---


async def test_a_device_that_never_answers_is_not_said_to_have_done_it(tmp_path: Path) -> None:
    fleet = await a_fleet(tmp_path, documents={"rover": quick()})
    fleet.devices.answer = silent
    outcome = await fleet.go("beep")
    assert (outcome.status, outcome.message) == ("unanswered", "rover did not say within 0.1 s whether beep was done")
    assert outcome.as_action().ok is None


async def test_a_late_result_changes_nothing_and_the_sender_is_told(tmp_path: Path) -> None:
    fleet = await a_fleet(tmp_path, documents={"rover": quick()})
    fleet.devices.answer = silent
    outcome = await fleet.go("beep")
    fleet.clock.advance(0.11)
    fleet.dispatcher.take_result(ActionResult(device_id="rover", id=outcome.id, ok=True))
    assert [(error.device_id, error.code) for error in fleet.devices.errors] == [("rover", "expired")]


async def test_the_first_of_two_results_stands(fleet: Fleetful) -> None:
    task, action = await begun(fleet, "drive", arguments=ONE_METER)
    for ok in (False, True):
        fleet.dispatcher.take_result(ActionResult(device_id="rover", id=action.id, ok=ok))
    assert (await task).status == "failed"
    assert [error.code for error in fleet.devices.errors] == ["bad_payload"]


async def test_nobody_answers_for_another_device(fleet: Fleetful) -> None:
    task, action = await begun(fleet, "drive", arguments=ONE_METER)
    fleet.dispatcher.take_result(ActionResult(device_id="arm", id=action.id, ok=True))
    fleet.dispatcher.take_result(ActionResult(device_id="rover", id="a-guess", ok=True))
    await asyncio.sleep(0)
    assert not task.done()
    assert [(error.device_id, error.code) for error in fleet.devices.errors] == [
        ("arm", "bad_payload"),
        ("rover", "bad_payload"),
    ]
    assert len({error.message.split(": ", 2)[2] for error in fleet.devices.errors}) == 1
    fleet.dispatcher.take_result(ActionResult(device_id="rover", id=action.id, ok=True))
    assert (await task).status == "done"


async def test_a_flood_of_results_is_not_answered_one_by_one(fleet: Fleetful) -> None:
    for number in range(1000):
        fleet.dispatcher.take_result(ActionResult(device_id="arm", id=f"x{number}", ok=True))
    assert len(fleet.devices.errors) == 30
    assert fleet.audit.waiting == 30


async def test_a_device_that_goes_offline_in_between_is_said_to_have(fleet: Fleetful) -> None:
    task, action = await begun(fleet, "drive", arguments=ONE_METER)
    fleet.tell("rover", "offline")
    outcome = await task
    assert (outcome.status, outcome.code) == ("unanswered", "device_offline")
    assert outcome.message == "rover went offline before it said whether drive was done"
    fleet.tell("rover", "online")
    assert (await fleet.go("turn", arguments={"angle": 90, "direction": "left"})).code == "busy"
    fleet.dispatcher.take_result(ActionResult(device_id="rover", id=action.id, ok=True))
    assert [error.code for error in fleet.devices.errors] == ["busy"]


@pytest.mark.parametrize("cause", ["cancelled", "deadline"])
async def test_who_stops_waiting_is_told_that_nothing_is_known(fleet: Fleetful, cause: Any) -> None:
    fleet.devices.answer = silent
    cancellation = Cancellation()
    task = asyncio.create_task(
        fleet.dispatcher.perform(a_proposal("drive", arguments=ONE_METER), cancellation=cancellation)
    )
    await asyncio.sleep(0)
    cancellation.cancel(cause)
    outcome = await task
    assert outcome.status == "unanswered"
    assert "before rover said whether drive was done" in outcome.message


# --- stop ---


async def test_a_stop_goes_out_at_once_and_ends_what_runs(fleet: Fleetful) -> None:
    task, drive = await begun(fleet, "drive", arguments=ONE_METER)
    assert fleet.dispatcher.stop("rover", request_id="q2", speaker="lamp") == ("rover",)
    stop = fleet.devices.actions[-1]
    assert (stop.name, stop.device_id, stop.arguments, stop.seq > drive.seq) == ("stop", "rover", {}, True)
    outcome = await task
    assert (outcome.status, outcome.as_action().ok) == ("stopped", False)
    fleet.devices.answer = answering()
    assert (await fleet.go("drive", arguments=ONE_METER, request_id="q3")).status == "done"


async def test_a_stop_reaches_a_device_that_declared_nothing_and_is_offline(fleet: Fleetful) -> None:
    fleet.tell("ghost", "offline")
    assert fleet.dispatcher.stop("ghost", request_id="q2", speaker="lamp") == ("ghost",)
    assert fleet.dispatcher.stop("a/+/#", request_id="q2", speaker="lamp") == ()


async def test_a_stop_of_all_reaches_whoever_was_ever_heard_of_those_who_move_first(fleet: Fleetful) -> None:
    fleet.tell("ghost", "online")
    task, _ = await begun(fleet, "wave", "arm")
    fleet.dispatcher.view("button")
    sent = fleet.dispatcher.stop(None, request_id="q2", speaker="button")
    assert (sent[:2], set(sent)) == (("arm", "button"), {"arm", "button", "rover", "lamp", "ghost"})
    assert (await task).status == "stopped"


async def test_a_speaker_that_is_no_device_is_sent_nothing(fleet: Fleetful) -> None:
    assert fleet.dispatcher.stop(None, request_id="q2", speaker="fleet") == ("arm", "lamp", "rover")


async def test_no_permission_rate_or_request_limit_holds_a_stop_up(tmp_path: Path) -> None:
    fleet = await a_fleet(tmp_path, rules=PermissionRules("deny"), limits=Limits(per_request=0, per_minute=0))
    for _ in range(100):
        assert (await fleet.go("stop", arguments={"ju": "nk"}, speaker="lamp")).status == "done"
    assert len(fleet.devices.actions) == 100
    assert all(action.arguments == {} for action in fleet.devices.actions)


async def test_a_stop_that_is_not_answered_blocks_nothing(fleet: Fleetful) -> None:
    for _ in range(100):
        fleet.dispatcher.stop("rover", request_id="q2", speaker="rover")
    assert fleet.dispatcher.view("rover").devices[0].running == ()
    fleet.devices.answer = answering()
    assert (await fleet.go("drive", arguments=ONE_METER, request_id="q3")).status == "done"


async def test_of_two_stops_neither_is_called_stopped(fleet: Fleetful) -> None:
    first, _ = await begun(fleet, "stop")
    fleet.dispatcher.stop("rover", request_id="q2", speaker="rover")
    assert (await first).status == "unanswered"


async def test_a_stop_of_a_thousand_devices_takes_no_time_to_speak_of(fleet: Fleetful) -> None:
    for number in range(1000):
        fleet.tell(f"d{number}", "online")
    begin = time.perf_counter()
    assert len(fleet.dispatcher.stop(None, request_id="q2", speaker="rover")) == 1003
    assert time.perf_counter() - begin < 1
    begin = time.perf_counter()
    fleet.dispatcher.stop("rover", request_id="q3", speaker="rover")
    assert time.perf_counter() - begin < 0.05


async def test_a_stop_that_is_proposed_says_what_the_device_said(fleet: Fleetful) -> None:
    fleet.devices.answer = answering(ok=False, error="brakes are worn")
    outcome = await fleet.go("stop", by="api")
    assert (outcome.status, outcome.message) == ("failed", "brakes are worn")


async def test_a_stop_ends_the_request_between_its_steps_too(fleet: Fleetful) -> None:
    assert (await fleet.go("drive", arguments=ONE_METER, speaker="lamp")).status == "done"
    fleet.dispatcher.stop("rover", request_id="q2", speaker="button")
    assert (await fleet.go("drive", arguments=ONE_METER, speaker="lamp")).code == "expired"
    assert (await fleet.go("drive", arguments=ONE_METER, speaker="lamp", request_id="q3")).status == "done"


async def test_what_a_stopped_action_reports_afterwards_is_no_mistake(fleet: Fleetful) -> None:
    task, action = await begun(fleet, "drive", arguments=ONE_METER)
    fleet.dispatcher.stop("rover", request_id="q2", speaker="rover")
    fleet.dispatcher.take_result(ActionResult(device_id="rover", id=action.id, ok=False, error="stopped"))
    assert (await task).status == "stopped"
    assert fleet.devices.errors == []


async def test_a_request_id_that_cannot_be_written_does_not_hold_a_stop_up(fleet: Fleetful) -> None:
    fleet.dispatcher.stop("rover", request_id="\ud800", speaker="rover")
    assert fleet.devices.actions[0].request_id.isalnum()


# --- a person's yes ---


async def asked(fleet: Fleetful, **changes: Any) -> Outcome:
    outcome: Outcome = await fleet.go("clear_map", **changes)
    assert outcome.status == "pending", outcome
    return outcome


async def test_what_needs_a_yes_is_asked_about_and_kept(fleet: Fleetful) -> None:
    outcome = await asked(fleet, speaker="lamp")
    [question] = fleet.devices.asked
    assert (question.device_id, question.id, question.name) == ("lamp", outcome.id, "clear_map")
    assert question.question == outcome.question == "Should Rover really do this: clear map?"
    assert question.expires_at == "2026-11-20T12:35:00.000Z"
    assert [pending.id for pending in fleet.dispatcher.pending("lamp")] == [outcome.id] == list(fleet.store.waiting)
    assert fleet.devices.actions == []


async def test_a_yes_is_good_for_one_time(fleet: Fleetful) -> None:
    outcome = await asked(fleet)
    await fleet.dispatcher.settle("rover", outcome.id, approve=True)
    first = await fleet.go("clear_map", confirmation=outcome.id)
    second = await fleet.go("clear_map", confirmation=outcome.id)
    assert (first.status, second.code) == ("done", "not_confirmed")
    assert fleet.store.waiting == {}


async def test_a_no_is_a_no(fleet: Fleetful) -> None:
    outcome = await asked(fleet)
    settled = await fleet.dispatcher.settle("rover", outcome.id, approve=False)
    assert settled.id == outcome.id
    assert (await fleet.go("clear_map", confirmation=outcome.id)).code == "not_confirmed"


async def test_an_answer_counts_once_and_only_at_the_device_that_asked(fleet: Fleetful) -> None:
    outcome = await asked(fleet)
    with pytest.raises(ContractError):
        await fleet.dispatcher.settle("lamp", outcome.id, approve=True)
    await fleet.dispatcher.settle("rover", outcome.id, approve=True)
    for unknown in (outcome.id, "nothing", "\ud800"):
        with pytest.raises(ContractError) as caught:
            await fleet.dispatcher.settle("rover", unknown, approve=True)
        assert caught.value.code == "not_confirmed"


async def test_where_no_yes_counts_nothing_is_asked_and_an_older_question_only_denied(tmp_path: Path) -> None:
    store = FakeDeviceStore()
    before = await a_fleet(tmp_path, store=store)
    asked_before, denied = await asked(before, speaker="lamp"), await asked(before, speaker="lamp")
    fleet = await a_fleet(tmp_path, store=store, rules=PermissionRules(approvers=("panel*",)))
    outcome = await fleet.go("clear_map", speaker="lamp")
    assert (outcome.status, outcome.code) == ("refused", "not_confirmed")
    assert "no yes of lamp counts: permissions.yaml" in outcome.message
    assert (await fleet.go("beep", speaker="lamp")).status == "done"
    assert (await asked(fleet, speaker="panel1")).status == "pending"
    with pytest.raises(ContractError, match="no yes of lamp counts") as caught:
        await fleet.dispatcher.settle("lamp", asked_before.id, approve=True)
    assert (caught.value.code, caught.value.device_id) == ("not_confirmed", "lamp")
    await fleet.dispatcher.settle("lamp", denied.id, approve=False)
    assert (await fleet.go("clear_map", speaker="lamp", confirmation=asked_before.id)).code == "not_confirmed"


async def test_two_answers_at_once_are_one(fleet: Fleetful) -> None:
    outcome = await asked(fleet)
    answers = await asyncio.gather(
        *(fleet.dispatcher.settle("rover", outcome.id, approve=True) for _ in range(5)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == [*["ContractError"] * 4, "Pending"]


async def test_a_yes_does_not_cover_anything_else(fleet: Fleetful) -> None:
    outcome = await asked(fleet)
    await fleet.dispatcher.settle("rover", outcome.id, approve=True)
    assert (await fleet.go("calibrate", "arm", confirmation=outcome.id)).code == "not_confirmed"
    assert fleet.devices.actions == []


async def test_without_a_yes_in_time_it_is_not_done(fleet: Fleetful) -> None:
    outcome = await asked(fleet)
    fleet.clock.advance(60)
    with pytest.raises(ContractError, match="has expired"):
        await fleet.dispatcher.settle("rover", outcome.id, approve=True)
    fleet.dispatcher.sweep()
    assert [pending.id for pending in fleet.expired] == [outcome.id]
    assert [(error.id, error.code) for error in fleet.devices.errors] == [("q1", "not_confirmed")]


async def test_a_yes_expires_too(fleet: Fleetful) -> None:
    outcome = await asked(fleet)
    await fleet.dispatcher.settle("rover", outcome.id, approve=True)
    fleet.clock.advance(60)
    assert (await fleet.go("clear_map", confirmation=outcome.id)).code == "not_confirmed"


async def test_what_waits_outlives_a_restart_and_a_yes_does_not(tmp_path: Path) -> None:
    store, clock = FakeDeviceStore(), FakeClock()
    before = await a_fleet(tmp_path, store=store, clock=clock)
    waiting, approved = await asked(before), await asked(before, request_id="q2")
    await before.dispatcher.settle("rover", approved.id, approve=True)
    after = await a_fleet(tmp_path, store=store, clock=clock)
    assert [pending.id for pending in after.dispatcher.pending("rover")] == [waiting.id]
    assert (await after.go("clear_map", confirmation=approved.id)).code == "not_confirmed"
    await after.dispatcher.settle("rover", waiting.id, approve=True)
    assert (await after.go("clear_map", confirmation=waiting.id)).status == "done"


async def test_what_waits_outlives_a_restart_in_the_real_database_to_the_last_bit(tmp_path: Path) -> None:
    clock, arguments = FakeClock(), {"distance": 1.0, "speed": 0.1, "direction": "forward"}
    rules = PermissionRules("confirm")
    async with Database(tmp_path / "naila.db") as database:
        before = await a_fleet(tmp_path, store=SqliteDeviceStore(database), clock=clock, rules=rules)
        pending = await before.go("drive", arguments=arguments, user_id="ada", by="model")
    async with Database(tmp_path / "naila.db") as database:
        after = await a_fleet(tmp_path, store=SqliteDeviceStore(database), clock=clock, rules=rules)
        [kept] = after.dispatcher.pending("rover")
        assert (kept.proposal.arguments, kept.proposal.user_id, kept.proposal.by) == (arguments, "ada", "model")
        await after.dispatcher.settle("rover", pending.id, approve=True)
        assert (await after.go("drive", arguments=arguments, confirmation=pending.id)).status == "done"
    async with Database(tmp_path / "naila.db") as database:
        again = await a_fleet(tmp_path, store=SqliteDeviceStore(database), clock=clock, rules=rules)
        assert again.dispatcher.pending("rover") == ()
        assert (await again.go("drive", arguments=arguments, confirmation=pending.id)).code == "not_confirmed"


@pytest.mark.parametrize("expires_at", ["2026-11-20T12:33:59Z", "2026-11-20T12:33:59", "soon"])
async def test_what_expired_while_the_brain_was_off_is_told_after_the_start(tmp_path: Path, expires_at: str) -> None:
    old = Pending(id="c1", proposal=a_proposal("clear_map"), question="?", expires_at=expires_at)
    fleet = await a_fleet(tmp_path, store=FakeDeviceStore(waiting={"c1": old}))
    running = asyncio.create_task(fleet.dispatcher.run())
    for _ in range(5):
        await asyncio.sleep(0)
    running.cancel()
    assert (fleet.expired, fleet.store.waiting) == ([old], {})


async def test_a_stop_takes_back_what_waits_and_what_was_approved(fleet: Fleetful) -> None:
    waiting, approved = await asked(fleet, speaker="lamp"), await asked(fleet, speaker="lamp", request_id="q2")
    await fleet.dispatcher.settle("lamp", approved.id, approve=True)
    fleet.dispatcher.stop("rover", request_id="q3", speaker="arm")
    assert {pending.id for pending in fleet.withdrawn} == {waiting.id, approved.id}
    with pytest.raises(ContractError):
        await fleet.dispatcher.settle("lamp", waiting.id, approve=True)
    refused = await fleet.go("clear_map", confirmation=approved.id, speaker="lamp", request_id="q2")
    assert refused.status == "refused"


async def test_a_stop_wins_over_an_answer_that_waits_for_the_disk(fleet: Fleetful) -> None:
    outcome = await asked(fleet)
    fleet.store.gate = asyncio.Event()
    answer = asyncio.create_task(fleet.dispatcher.settle("rover", outcome.id, approve=True))
    await asyncio.sleep(0)
    fleet.dispatcher.stop("rover", request_id="q2", speaker="rover")
    fleet.store.gate.set()
    with pytest.raises(ContractError, match="emergency stop"):
        await answer


async def test_a_stop_wins_over_a_question_that_waits_for_the_disk(fleet: Fleetful) -> None:
    fleet.store.gate = asyncio.Event()
    question = asyncio.create_task(fleet.go("clear_map"))
    await asyncio.sleep(0)
    fleet.dispatcher.stop("rover", request_id="q2", speaker="rover")
    fleet.store.gate.set()
    assert (await question).code == "expired"
    assert fleet.devices.asked == []


async def test_a_question_that_a_stop_withdrew_does_not_come_back_from_the_disk(fleet: Fleetful) -> None:
    gate = fleet.store.gate = asyncio.Event()
    question = asyncio.create_task(fleet.go("clear_map"))
    await asyncio.sleep(0)
    fleet.store.gate = None
    running = asyncio.create_task(fleet.dispatcher.run())
    fleet.dispatcher.stop("rover", request_id="q2", speaker="rover")
    await asyncio.sleep(0)
    gate.set()
    assert (await question).code == "expired"
    await until(lambda: not fleet.store.waiting, 1)
    running.cancel()


async def test_without_a_disk_nothing_is_asked_and_no_yes_counts(fleet: Fleetful) -> None:
    outcome = await asked(fleet)
    fleet.store.broken = True
    with pytest.raises(ContractError, match="disk full"):
        await fleet.dispatcher.settle("rover", outcome.id, approve=True)
    assert (await fleet.go("clear_map", confirmation=outcome.id)).code == "not_confirmed"
    assert (await fleet.go("clear_map", request_id="q2")).code == "internal"


async def test_questions_do_not_pile_up(fleet: Fleetful) -> None:
    outcomes = [await fleet.go("clear_map", request_id=f"q{number}") for number in range(9)]
    assert [outcome.code for outcome in outcomes] == [*[None] * 8, "busy"]


# --- what is written down ---


async def test_everything_is_written_down(tmp_path: Path) -> None:
    fleet = await a_fleet(tmp_path)
    async with fleet.audit:
        await fleet.go("drive", arguments=ONE_METER, user_id="ada", by="model")
        await fleet.go("drive", arguments={"distance": 10})
        outcome = await asked(fleet)
        await fleet.dispatcher.settle("rover", outcome.id, approve=True)
        await fleet.go("clear_map", confirmation=outcome.id)
        fleet.dispatcher.stop("rover", request_id="q2", speaker="lamp")
    lines = [json.loads(line) for line in fleet.audit.path.read_text().splitlines()]
    assert [(line["event"], line["name"]) for line in lines] == [
        ("sent", "drive"),
        ("done", "drive"),
        ("refused", "drive"),
        ("pending", "clear_map"),
        ("approved", "clear_map"),
        ("sent", "clear_map"),
        ("done", "clear_map"),
        ("sent", "stop"),
    ]
    assert {"speaker": "rover", "user_id": "ada", "by": "model", "arguments": ONE_METER}.items() <= lines[0].items()
    assert lines[0]["id"] == lines[1]["id"]
    assert lines[5]["confirmation"] == outcome.id


async def test_what_is_declared_otherwise_while_the_disk_is_waited_for_is_not_sent(tmp_path: Path) -> None:
    fleet = await a_fleet(tmp_path)
    fleet.journal.gate = asyncio.Event()
    task = asyncio.create_task(fleet.go("drive", "rover", arguments={"distance": 3}))
    await asyncio.sleep(0)
    document = example("rover")
    document["actions"][0]["parameters"]["properties"]["distance"]["maximum"] = 1
    await fleet.registry.declare(Capabilities(device_id="rover", document=document))
    fleet.journal.gate.set()
    assert (await task).code == "unknown_action"
    assert fleet.devices.actions == []
