"""What the envelope clears, refuses and asks about, rule by rule."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from naila.devices.envelope import (
    MAX_QUESTION_CHARS,
    Circumstances,
    Cleared,
    NeedsConfirmation,
    Refused,
    approval_id,
    decide,
    question_of,
)
from naila.fleet import ActionSpec, DeviceProfile, Pending, Proposal

DRIVE = ActionSpec(
    name="drive",
    parameters={
        "type": "object",
        "properties": {
            "distance": {"type": "number", "minimum": 0.05, "maximum": 3, "unit": "m"},
            "speed": {"type": "number", "maximum": 0.5, "default": 0.2},
        },
        "required": ["distance"],
        "additionalProperties": False,
    },
    ttl_ms=20_000,
    group="wheels",
)
CLEAR = ActionSpec(name="clear_map", confirm=True)
ROVER = DeviceProfile(device_id="rover", name="Rover", actions={"drive": DRIVE, "clear_map": CLEAR})
WISH = Proposal(device_id="rover", name="drive", arguments={"distance": 1}, request_id="q1", speaker="rover")
CLEARING = replace(WISH, name="clear_map", arguments={}, confirmation="c1")
NOW = Circumstances(
    profile=ROVER,
    online=True,
    permitted=lambda _: "allow",
    running=(),
    too_often=lambda _: None,
    may_approve=lambda _: True,
    approval=None,
    stopped=False,
    now=100.0,
)


def refusal(wish: Proposal, given: Circumstances = NOW) -> Refused:
    decision = decide(wish, given)
    assert isinstance(decision, Refused), decision
    return decision


def approved(wish: Proposal) -> Circumstances:
    pending = Pending(
        id=approval_id(ROVER.actions.get(wish.name, CLEAR)),
        proposal=wish,
        question="?",
        expires_at="2026-11-20T12:00:00Z",
    )
    return replace(NOW, approval=pending)


def test_what_is_declared_and_in_range_is_cleared_for_its_time_to_live() -> None:
    assert decide(WISH, NOW) == Cleared(DRIVE, '{"distance":1}', 20.0)


def test_defaults_are_not_filled_in() -> None:
    decision = decide(WISH, NOW)
    assert isinstance(decision, Cleared)
    assert "speed" not in decision.arguments


def test_a_request_that_ends_sooner_shortens_the_time_to_live() -> None:
    decision = decide(replace(WISH, expires_at_monotonic=103.0), NOW)
    assert isinstance(decision, Cleared)
    assert decision.left_s == pytest.approx(3.0)


def test_a_device_that_declared_nothing_does_nothing() -> None:
    assert refusal(WISH, replace(NOW, profile=None)).code == "unknown_action"


def test_what_is_denied_is_refused_with_who_and_whom() -> None:
    refused = refusal(replace(WISH, user_id="bob"), replace(NOW, permitted=lambda _: "deny"))
    assert refused.code == "unknown_action"
    assert "bob at rover may not have rover do drive" in refused.message


def test_an_offline_device_gets_nothing() -> None:
    assert refusal(WISH, replace(NOW, online=False)).code == "device_offline"


def test_a_device_that_never_said_whether_it_is_there_counts_as_there() -> None:
    assert isinstance(decide(WISH, replace(NOW, online=None)), Cleared)


def test_an_undeclared_action_is_refused_with_what_is_declared() -> None:
    refused = refusal(replace(WISH, name="fly"))
    assert refused.code == "unknown_action"
    assert "it declared drive, clear_map" in refused.message


@pytest.mark.parametrize("name", ["drive ", "Drive", "dr\u0131ve", "drive\u200b", "drive\n", "", "a" * 65, "../drive"])
def test_a_name_that_only_looks_like_a_declared_one_is_none(name: str) -> None:
    assert refusal(replace(WISH, name=name)).code == "unknown_action"


@pytest.mark.parametrize("field", ["request_id", "speaker", "user_id"])
def test_whoever_asks_is_named_by_an_id(field: str) -> None:
    changes: dict[str, Any] = {field: "a/+/#"}
    assert refusal(replace(WISH, **changes)).code == "bad_arguments"


@pytest.mark.parametrize("distance", [10, -1, 0, 3.0000001, 2**53 - 1])
def test_out_of_range_is_told_with_what_was_asked_and_what_is_allowed(distance: float) -> None:
    refused = refusal(replace(WISH, arguments={"distance": distance}))
    assert refused.code == "out_of_range"
    assert "0.05 to 3 m" in refused.message


@pytest.mark.parametrize(
    "distance", [math.nan, math.inf, -math.inf, 2**63, 10**400, True, "1", None, [1], {"m": 1}, b"1", object()]
)
def test_what_is_no_finite_number_of_json_is_no_number(distance: object) -> None:
    arguments: Any = {"distance": distance}
    assert refusal(replace(WISH, arguments=arguments)).code == "bad_arguments"


def test_a_number_of_a_class_of_its_own_is_no_number() -> None:
    class Sly(float):
        """One number when it is checked, another when it is written."""

    assert refusal(replace(WISH, arguments={"distance": Sly(1)})).code == "bad_arguments"


@pytest.mark.parametrize("extra", ["speeed", "distance ", "Distance", "$schema", "__proto__"])
def test_keys_that_nobody_declared_are_refused(extra: str) -> None:
    assert refusal(replace(WISH, arguments={"distance": 1, extra: 1})).code == "bad_arguments"


def test_a_missing_argument_is_named() -> None:
    refused = refusal(replace(WISH, arguments={}))
    assert refused.code == "bad_arguments"
    assert "distance is missing" in refused.message


def test_arguments_that_never_end_are_refused() -> None:
    circle: dict[str, Any] = {}
    circle["distance"] = circle
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert refusal(replace(WISH, arguments=circle)).code == "bad_arguments"
    assert refusal(replace(WISH, arguments={"distance": deep})).code == "bad_arguments"
    assert refusal(replace(WISH, arguments={"distance": "a" * 1_000_000})).code == "bad_arguments"


@pytest.mark.parametrize("expires", [100.0, 99.9, -math.inf, math.nan])
def test_what_is_no_longer_wanted_is_not_done(expires: float) -> None:
    assert refusal(replace(WISH, expires_at_monotonic=expires)).code == "expired"


def test_after_a_stop_the_request_moves_nothing_more() -> None:
    assert refusal(WISH, replace(NOW, stopped=True)).code == "expired"


def test_too_often_is_refused_with_the_reason() -> None:
    refused = refusal(WISH, replace(NOW, too_often=lambda spec: f"{spec.name}: every 500 ms"))
    assert refused == Refused("rate_limited", "drive: every 500 ms")


def test_a_group_does_one_thing_at_a_time() -> None:
    assert refusal(WISH, replace(NOW, running=(("turn", "wheels"),))).code == "busy"
    assert isinstance(decide(WISH, replace(NOW, running=(("beep", None), ("grip", "hand")))), Cleared)


def test_not_even_actions_without_a_group_run_without_bound() -> None:
    assert refusal(WISH, replace(NOW, running=(("beep", None),) * 32)).code == "busy"


def test_what_needs_a_person_is_asked_about() -> None:
    assert decide(replace(CLEARING, confirmation=None), NOW) == NeedsConfirmation(CLEAR, "{}")
    assert isinstance(decide(WISH, replace(NOW, permitted=lambda _: "confirm")), NeedsConfirmation)


def test_a_wrong_wish_is_refused_before_anybody_is_asked() -> None:
    wish = replace(CLEARING, confirmation=None, arguments={"all": True})
    assert refusal(wish).code == "bad_arguments"


def test_exactly_what_was_approved_is_cleared() -> None:
    assert isinstance(decide(CLEARING, approved(CLEARING)), Cleared)


@pytest.mark.parametrize(
    "other",
    [
        {"arguments": {"distance": 2}},
        {"arguments": {"distance": 1.0}},
        {"device_id": "arm"},
        {"name": "turn"},
        {"speaker": "lamp"},
    ],
)
def test_an_approval_is_for_nothing_else(other: dict[str, Any]) -> None:
    wish = replace(WISH, confirmation="c1")
    assert refusal(wish, approved(replace(wish, **other))).code == "not_confirmed"


def test_the_order_of_keys_makes_no_difference_to_an_approval() -> None:
    wish = replace(WISH, confirmation="c1", arguments={"distance": 1, "speed": 0.1})
    same = replace(wish, arguments={"speed": 0.1, "distance": 1})
    assert isinstance(decide(wish, approved(same)), Cleared)


def test_an_approval_that_is_named_must_hold_even_where_none_is_needed() -> None:
    assert refusal(replace(WISH, confirmation="c9")).code == "not_confirmed"


def test_an_emergency_stop_is_not_for_the_envelope() -> None:
    assert refusal(replace(WISH, name="stop")).code == "unknown_action"


def test_a_person_is_asked_exactly_what_would_be_done() -> None:
    assert question_of(WISH, ROVER) == "Should Rover really do this: drive (distance 1)?"
    setting = replace(WISH, name="set_parameter", arguments={"name": "max_speed", "value": 0.3})
    assert question_of(setting, ROVER) == "Should Rover really set max_speed to 0.3?"
    assert question_of(CLEARING, replace(ROVER, name="A\nB\u202e")) == "Should A B really do this: clear map?"


def test_what_a_person_is_not_shown_is_counted() -> None:
    many = {f"word{number:02}": "x" * 300 for number in range(20)} | {"zone": "cellar"}
    question = question_of(replace(WISH, arguments=many), ROVER)
    assert len(question) <= MAX_QUESTION_CHARS
    assert question.endswith(" and 19 more arguments)?")


@pytest.mark.parametrize("change", [{"description": "Through the wall."}, {"ttl_ms": 99}, {"group": "wheels"}])
def test_an_approval_is_for_what_was_declared_then(change: dict[str, Any]) -> None:
    rover = replace(ROVER, actions={**ROVER.actions, "clear_map": replace(CLEAR, **change)})
    assert refusal(CLEARING, replace(approved(CLEARING), profile=rover)).code == "not_confirmed"


def test_where_no_yes_counts_nothing_is_asked_and_no_approval_holds() -> None:
    nobody = replace(approved(CLEARING), may_approve=lambda speaker: speaker == "panel")
    assert (
        refusal(CLEARING, nobody).code == refusal(replace(CLEARING, confirmation=None), nobody).code == "not_confirmed"
    )
    assert isinstance(decide(WISH, nobody), Cleared)
    assert isinstance(decide(CLEARING, approved(CLEARING)), Cleared)
