"""Ten thousand hostile proposals, and an oracle that shares nothing with the envelope: nothing gets out that must not.

The oracle reads the examples' documents by itself, in plain Python. It knows nothing of JSON Schema, of the registry or
of the dispatcher; what is published is held against it, and what it allows must be published.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from naila.devices.dispatcher import Limits
from naila.events import Action, ActionResult
from naila.fleet import Proposal
from support.fleets import Fleetful, a_fleet, a_proposal, example, silent

COUNT = 12_000
ROBOTS = {name: example(name) for name in ("rover", "arm", "lamp")}
DECLARED = [(device, action["name"]) for device, document in ROBOTS.items() for action in document["actions"]]
DECLARED += [(device, "set_parameter") for device in ROBOTS]
HUGE = [10**30, 2**63, 2**64, -(2**70), 10**4000, 1e308, -1e308, 1.7976931348623157e308]
UNSOUND = [math.nan, math.inf, -math.inf]
LOOKALIKES = ["dr\u0131ve", "drive\u200b", "\u0501rive", "Drive", "drive ", "\u202edrive", "drive\x00", "\uff44rive"]


# --- the oracle ---


def fits(value: Any, rule: dict[str, Any]) -> bool:
    kind = rule["type"]
    if kind in ("number", "integer"):
        if type(value) not in (int, float) or (type(value) is float and not math.isfinite(value)):
            return False
        if kind == "integer" and value != int(value):
            return False
        if not rule.get("minimum", -(2**53)) <= value <= rule.get("maximum", 2**53):
            return False
    elif kind == "string":
        if type(value) is not str:
            return False
    elif kind == "boolean":
        if type(value) is not bool:
            return False
    else:
        pytest.fail(f"the examples have no {kind}")
    return "enum" not in rule or any(type(value) is type(one) and value == one for one in rule["enum"])


def allowed(device: Any, name: Any, arguments: Any) -> bool:
    """Whether a device may be asked this at all, as its document says."""
    if type(device) is not str or device not in ROBOTS or type(arguments) is not dict:
        return False
    if name == "set_parameter":
        parameters = ROBOTS[device].get("parameters", {})
        if set(arguments) != {"name", "value"} or type(arguments["name"]) is not str:
            return False
        rule = parameters.get(arguments["name"])
        return bool(rule) and rule.get("writable", False) and fits(arguments["value"], rule)
    action = next((each for each in ROBOTS[device]["actions"] if each["name"] == name), None)
    if action is None:
        return False
    rules = action["parameters"]["properties"]
    required = action["parameters"].get("required", [])
    return (
        all(key in arguments for key in required)
        and all(type(key) is str and key in rules for key in arguments)
        and all(fits(value, rules[key]) for key, value in arguments.items())
    )


def needs_yes(device: str, name: str) -> bool:
    return any(each["name"] == name and each.get("confirm", False) for each in ROBOTS[device]["actions"])


# --- hostile proposals ---


def sound(dice: random.Random, device: str, name: str) -> dict[str, Any]:
    """Arguments that are as they should be."""
    if name == "set_parameter":
        parameters = {key: rule for key, rule in ROBOTS[device]["parameters"].items() if rule.get("writable")}
        key = dice.choice(sorted(parameters))
        return {"name": key, "value": a_value(dice, parameters[key])}
    schema = next(each for each in ROBOTS[device]["actions"] if each["name"] == name)["parameters"]
    return {
        key: a_value(dice, rule)
        for key, rule in schema["properties"].items()
        if key in schema.get("required", []) or dice.random() < 0.5
    }


def a_value(dice: random.Random, rule: dict[str, Any]) -> Any:
    if "enum" in rule:
        return dice.choice(rule["enum"])
    if rule["type"] == "integer":
        return dice.randint(rule["minimum"], rule["maximum"])
    if rule["type"] == "number":
        return dice.choice([rule["minimum"], rule["maximum"], dice.uniform(rule["minimum"], rule["maximum"])])
    return dice.random() < 0.5


def junk(dice: random.Random) -> Any:
    deep: Any = "x"
    for _ in range(dice.choice([3, 20, 2000])):
        deep = [deep] if dice.random() < 0.5 else {"distance": deep}
    return dice.choice(
        [
            *HUGE,
            *UNSOUND,
            deep,
            True,
            False,
            None,
            "",
            "1",
            "forward\n",
            "on\u200b",
            "forwárd",
            "\ud800",
            "left; drive(3)",
            "a" * 100_000,
            [],
            {},
            [1],
            {"value": 1},
            -0.0,
            1e-320,
            b"1",
            {1, 2},
            complex(1, 1),
            ["x"] * 5000,
        ]
    )


def out_of_range(dice: random.Random, wish: Proposal) -> Proposal:
    arguments: dict[str, Any] = dict(wish.arguments)
    numbers = [key for key, value in arguments.items() if type(value) in (int, float)]
    if not numbers:
        return extra_key(dice, wish)
    key = dice.choice(numbers)
    arguments[key] += dice.choice([1, -1]) * dice.choice([1000.5, 1e6, 2**40, 121])
    return replace(wish, arguments=arguments)


def wrong_type(dice: random.Random, wish: Proposal) -> Proposal:
    arguments: dict[str, Any] = dict(wish.arguments)
    key = dice.choice([*arguments, "distance"])
    arguments[key] = junk(dice)
    return replace(wish, arguments=arguments)


def extra_key(dice: random.Random, wish: Proposal) -> Proposal:
    keys: list[Any] = [
        "speed",
        "override",
        "",
        "distance\u200b",
        "Distance",
        "$ref",
        "__class__",
        "a" * 70_000,
        1,
        None,
    ]
    return replace(wish, arguments={**wish.arguments, dice.choice(keys): dice.choice([1, "x", None, junk(dice)])})


def missing(dice: random.Random, wish: Proposal) -> Proposal:
    arguments = dict(wish.arguments)
    if arguments:
        del arguments[dice.choice(sorted(arguments))]
    return replace(wish, arguments=arguments)


def no_number(dice: random.Random, wish: Proposal) -> Proposal:
    arguments: dict[str, Any] = dict(wish.arguments)
    for key in arguments:
        arguments[key] = dice.choice([*UNSOUND, *HUGE, True, False])
    return replace(wish, arguments=arguments)


def unknown(dice: random.Random, wish: Proposal) -> Proposal:
    names: list[Any] = [*LOOKALIKES, "fly", "", "a" * 65, "drive/../stop", "action", "set_parameters", None, 7]
    return replace(wish, name=dice.choice(names))


def anothers(dice: random.Random, wish: Proposal) -> Proposal:
    devices: list[Any] = [
        "rover",
        "arm",
        "lamp",
        "rover ",
        "ROVER",
        "+",
        "#",
        "fleet",
        "lamp/action",
        "",
        None,
        "ghost",
    ]
    return replace(wish, device_id=dice.choice(devices))


def expired(dice: random.Random, wish: Proposal) -> Proposal:
    return replace(wish, expires_at_monotonic=dice.choice([0.0, -1.0, -math.inf, math.nan, 999.0]))


def replayed(dice: random.Random, wish: Proposal) -> Proposal:
    return replace(wish, confirmation=dice.choice(["", "c1", "0" * 24, "a" * 10_000, "\ud800"]))


def untouched(_: random.Random, wish: Proposal) -> Proposal:
    return wish


KINDS: list[Callable[[random.Random, Proposal], Proposal]] = [
    out_of_range,
    wrong_type,
    extra_key,
    missing,
    no_number,
    unknown,
    anothers,
    expired,
    replayed,
    untouched,
]


def expected(wish: Proposal) -> bool:
    """Whether it must get out; everything else must not."""
    soon_enough = wish.expires_at_monotonic is None or wish.expires_at_monotonic > 1e12
    return (
        allowed(wish.device_id, wish.name, wish.arguments)
        and soon_enough
        and wish.confirmation is None
        and not needs_yes(wish.device_id, wish.name)
    )


async def test_ten_thousand_hostile_proposals_move_nothing(tmp_path: Path) -> None:
    dice = random.Random(20261120)
    fleet = await a_fleet(tmp_path, limits=Limits(per_request=3))
    tried: Counter[str] = Counter()
    let_out = 0
    for number in range(COUNT):
        kind, (device, name) = KINDS[number % len(KINDS)], DECLARED[number // len(KINDS) % len(DECLARED)]
        wish = a_proposal(name, device, arguments=sound(dice, device, name), request_id=f"q{number}")
        wish = kind(dice, replace(wish, speaker=dice.choice(["rover", "lamp"]), by=dice.choice(["model", "api"])))
        fleet.clock.advance(61)
        fleet.devices.published.clear()
        asked = copy.deepcopy(dict(wish.arguments)) if expected(wish) else {}
        outcome = await fleet.dispatcher.perform(wish)
        tried[f"{kind.__name__}: {outcome.status}"] += 1
        if expected(wish):
            let_out += 1
            [action] = fleet.devices.actions
            assert (action.device_id, action.name, action.arguments) == (wish.device_id, wish.name, asked)
            assert {key: type(value) for key, value in asked.items()} == {
                key: type(value) for key, value in action.arguments.items()
            }
        else:
            assert fleet.devices.actions == [], wish
            assert outcome.status in {"refused", "pending"}
            assert fleet.devices.errors or fleet.devices.asked
    assert sum(tried.values()) - let_out >= 10_000, tried
    assert let_out > 900, tried


async def test_no_replay_mix_up_or_race_of_answers_moves_more_than_was_approved(tmp_path: Path) -> None:
    dice = random.Random(7)
    fleet = await a_fleet(tmp_path, limits=Limits(per_request=100, per_minute=1000))
    risky = [("rover", "clear_map", "rover"), ("rover", "clear_map", "lamp"), ("arm", "calibrate", "rover")]
    known: list[tuple[str, str, str, str]] = [("c1", *risky[0])]
    approved: Counter[tuple[str, str, str]] = Counter()
    moved: Counter[tuple[str, str, str]] = Counter()
    for number in range(3000):
        pending_id, device, name, speaker = dice.choice(known[-4:])
        if dice.random() < 0.3:
            device, name, speaker = dice.choice(risky)
        fleet.clock.advance(dice.choice([0.0, 1.0, 10.0]))
        choice = dice.randrange(3)
        if choice == 0:
            device, name, speaker = dice.choice(risky)
            outcome = await fleet.go(name, device, speaker=speaker, request_id=f"q{number}")
            known.append((outcome.id, device, name, speaker))
        elif choice == 1:
            approve = dice.random() < 0.9
            answers = await asyncio.gather(
                *(fleet.dispatcher.settle(speaker, pending_id, approve=approve) for _ in range(2)),
                return_exceptions=True,
            )
            settled = [answer.proposal for answer in answers if not isinstance(answer, BaseException)]
            approved.update((wish.device_id, wish.name, wish.speaker) for wish in settled if approve)
        else:
            outcomes = await asyncio.gather(
                *(
                    fleet.go(name, device, speaker=speaker, request_id=f"q{number}", confirmation=pending_id)
                    for _ in range(2)
                )
            )
            moved.update((device, name, speaker) for outcome in outcomes if outcome.status == "done")
    assert len(fleet.devices.actions) == sum(moved.values()) > 50
    assert moved <= approved


async def test_a_flood_of_sound_wishes_keeps_every_limit(tmp_path: Path) -> None:
    dice = random.Random(3)
    fleet = await a_fleet(tmp_path, limits=Limits(per_request=4, per_minute=20))
    fleet.devices.answer = lambda action: None if dice.random() < 0.3 else _done(action)
    sent: list[tuple[float, Action]] = []
    wishes: list[asyncio.Task[Any]] = []
    for number in range(3000):
        device, name = dice.choice(DECLARED)
        arguments = sound(dice, device, name)
        wish = a_proposal(name, device, arguments=arguments, request_id=f"q{number // 20}")
        wishes.append(asyncio.create_task(fleet.dispatcher.perform(wish)))
        if dice.random() < 0.3:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            sent += [(fleet.clock.seconds, action) for action in fleet.devices.actions]
            fleet.devices.published.clear()
            fleet.clock.advance(dice.choice([0.01, 0.1, 3.0]))
    for wish_task in wishes:
        wish_task.cancel()
    await asyncio.gather(*wishes, return_exceptions=True)
    assert len(sent) > 300
    for device in ROBOTS:
        mine = [(at, action) for at, action in sent if action.device_id == device]
        assert all(later[0] - earlier[0] >= 60 for earlier, later in zip(mine, mine[20:], strict=False))
        beeps = [at for at, action in mine if action.name == "beep"]
        assert all(later - earlier >= 0.5 for earlier, later in pairwise(beeps))
    assert max(Counter(action.request_id for _, action in sent).values()) <= 4


def _done(action: Action) -> ActionResult:
    return ActionResult(device_id=action.device_id, id=action.id, ok=True)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["forward", "left", "on", "dock", 1, 0.5, "max_speed", "camera", True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["distance", "direction", "speed", "angle", "times", "name", "value", "state", "level", "x"])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(DECLARED), st.dictionaries(KEYS, ANYTHING, max_size=4))
def test_whatever_arguments_are_made_of_the_oracle_agrees(
    tmp_path: Path, target: tuple[str, str], arguments: dict[str, Any]
) -> None:
    async def tried() -> Fleetful:
        fleet = await a_fleet(tmp_path, documents={target[0]: ROBOTS[target[0]]})
        await fleet.go(target[1], target[0], arguments=arguments)
        return fleet

    fleet = asyncio.run(tried())
    assert bool(fleet.devices.actions) == (allowed(*target, arguments) and not needs_yes(*target))
    for action in fleet.devices.actions:
        assert json.loads(json.dumps(action.arguments, allow_nan=False)) == arguments


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["mine", "other", "made up"]), st.booleans(), ANYTHING), max_size=6))
def test_only_the_first_result_of_the_right_device_is_believed(
    tmp_path: Path, results: list[tuple[str, bool, Any]]
) -> None:
    async def tried() -> Any:
        fleet = await a_fleet(tmp_path, documents={"rover": ROBOTS["rover"]})
        fleet.devices.answer = silent
        task = asyncio.create_task(fleet.go("take_photo"))
        await asyncio.sleep(0)
        [action] = fleet.devices.actions
        for whose, ok, value in results:
            fleet.dispatcher.take_result(
                ActionResult(
                    device_id="lamp" if whose == "other" else "rover",
                    id="made-up" if whose == "made up" else action.id,
                    ok=ok,
                    result=value,
                )
            )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            return None
        return await task

    outcome = asyncio.run(tried())
    mine = [ok for whose, ok, _ in results if whose == "mine"]
    assert (outcome is None) == (mine == [])
    if outcome is not None:
        assert outcome.status == ("done" if mine[0] else "failed")
