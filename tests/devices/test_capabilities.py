"""Declarations of devices, right and wrong."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.devices.capabilities import read_profile, unknown_keys
from naila.devices.schema import violations
from naila.errors import ContractError
from naila.fleet import DeviceProfile, is_clean

EXAMPLES = Path(__file__).parents[2] / "examples"
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def example(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return document


def profile(**changes: Any) -> DeviceProfile:
    return read_profile("r2", {"name": "Rover", "actions": [], **changes})


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


@pytest.mark.parametrize("name", ["rover", "arm", "lamp"])
def test_the_robots_that_come_with_it_are_understood(name: str) -> None:
    document = example(name)
    found = read_profile(name, document)
    assert found.name == document["name"]
    assert [*found.actions] == [*(action["name"] for action in document["actions"]), "set_parameter"]
    assert unknown_keys(document) == ()


def test_an_action_is_taken_up_as_declared() -> None:
    drive = read_profile("rover", example("rover")).actions["drive"]
    assert (drive.ttl_ms, drive.group, drive.confirm, drive.min_interval_ms) == (75_000, "wheels", False, 0)
    assert drive.examples[1] == "go back 20 cm"


def test_a_parameter_is_set_within_its_own_limits() -> None:
    schema = read_profile("rover", example("rover")).actions["set_parameter"].parameters
    assert violations(schema, {"name": "max_speed", "value": 0.3}) == ()
    assert violations(schema, {"name": "max_speed", "value": 3})[0].code == "out_of_range"
    assert violations(schema, {"name": "max_speed", "value": True})[0].code == "bad_arguments"
    assert violations(schema, {"name": "firmware", "value": "x"})[0].argument == "name"


def test_without_a_writable_parameter_nothing_is_set() -> None:
    assert "set_parameter" not in profile(parameters={"version": {"type": "string"}}).actions


def test_texts_are_trimmed_to_one_line_in_any_script() -> None:
    found = profile(name="  Живой\n робот ", room=" ", description="a\tb")
    assert profile(name="👩\u200d🚀").name == "👩\u200d🚀"
    assert (found.name, found.room, found.description) == ("Живой робот", None, "a b")


def test_an_action_without_parameters_takes_no_arguments() -> None:
    beep = profile(actions=[{"name": "beep"}]).actions["beep"]
    assert violations(beep.parameters, {"times": 2})[0].code == "bad_arguments"


def test_what_is_unknown_at_the_top_and_in_telemetry_is_left_out() -> None:
    document = {"name": "R", "actions": [], "colour": 1, "telemetry": {"t": {"unit": "°C", "window": 3}}}
    assert read_profile("r2", document).telemetry["t"].unit == "°C"  # type: ignore[arg-type]
    assert unknown_keys(document) == ("colour", "telemetry.t.window")  # type: ignore[arg-type]


def act(**fields: Any) -> dict[str, Any]:
    return {"actions": [{"name": "beep"}, {"name": "act", **fields}]}


SETTABLE = {"speed": {"type": "number", "writable": True}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "name: is missing"),
        ({"name": " "}, "name: is missing"),
        ({"name": 3}, "name: must be a string"),
        ({"name": "x" * 65}, "name: has 65 characters, the limit is 64"),
        ({"name": "a\x1b[2Jb"}, "name: must not hold control characters"),
        ({"name": "a\u202eb"}, "name: must not hold control characters"),
        ({"name": "Ro\u200bver"}, "name: must not hold control characters"),
        ({"description": "hi\U000e0049\U000e0067"}, "description: must not hold control characters"),
        ({"device_id": "other"}, "device_id: differs from the topic's, which is r2"),
        ({"actions": None}, "actions: is missing"),
        ({"actions": {}}, "actions: must be an array"),
        ({"actions": [{"name": f"a{n}"} for n in range(65)]}, "actions: has 65 entries, the limit is 64"),
        ({"actions": [3]}, "actions[0]: must be an object"),
        ({"actions": [{"name": "drive fast"}]}, "actions[0].name: must be 1 to 64 letters"),
        ({"actions": [{"name": "a"}, {"name": "a"}]}, "actions[1].name: is a, which an earlier action has"),
        (act(comfirm=True), "actions[1].comfirm: is not known; known: confirm,"),
        (act(confirm="true"), "actions[1].confirm: must be true or false"),
        (act(confirm=None), "actions[1].confirm: must be true or false"),
        (act(ttl_ms=50), "actions[1].ttl_ms: must be a whole number of milliseconds from 100 to 3600000"),
        (act(ttl_ms=True), "actions[1].ttl_ms: must be a whole"),
        (act(min_interval_ms=-1), "actions[1].min_interval_ms: must be a whole"),
        (act(examples=["go"] * 33), "actions[1].examples: must be an array of at most 32"),
        (act(examples=["go", ""]), "actions[1].examples[1]: must be a string of 1 to 200"),
        (act(description="x" * 501), "actions[1].description: has 501 characters"),
        (act(parameters=[]), "actions[1].parameters: must be a JSON Schema object"),
        (
            act(parameters={"type": "object", "properties": {"d": {"type": "number", "maximun": 3}}}),
            "actions[1].parameters.properties.d.maximun: is not supported",
        ),
        ({"actions": [{"name": "stop", "confirm": True}]}, "actions[0]: stop must not be held back"),
        ({"actions": [{"name": "stop", "min_interval_ms": 5}]}, "actions[0]: stop must not be held back"),
        ({"actions": [{"name": "stop", "group": "wheels"}]}, "actions[0]: stop must not be held back"),
        ({"actions": [{"name": "set_parameter"}], "parameters": SETTABLE}, "actions: must not hold set_parameter"),
        ({"telemetry": []}, "telemetry: must be an object"),
        ({"telemetry": {"t": 3}}, "telemetry.t: must be an object"),
        ({"telemetry": {"t": {"minimum": 2, "maximum": 1}}}, "telemetry.t.minimum: is above maximum"),
        ({"telemetry": {"t": {"maximum": "hot"}}}, "telemetry.t.maximum: must be a number"),
        ({"telemetry": {"a\nb": {}}}, "telemetry: has the name 'a b'"),
        ({"telemetry": {f"t{n}": {} for n in range(257)}}, "telemetry: has 257 entries, the limit is 256"),
        ({"parameters": {"p": {"type": "float"}}}, "parameters.p.type: must be number, integer, boolean or string"),
        ({"parameters": {"p": {"type": ["number"]}}}, "parameters.p.type: must be number"),
        ({"parameters": {"p": {"type": "number", "maximun": 1}}}, "parameters.p.maximun: is not known"),
        ({"parameters": {"p": {"type": "string", "maximum": 1}}}, "parameters.p.maximum: means nothing beside"),
        ({"parameters": {"p": {"type": "number", "maximum": float("inf")}}}, "parameters.p.maximum: must be a number"),
        ({"parameters": {"p": {"type": "integer", "enum": [1, 1.5]}}}, "parameters.p.enum: holds 1.5"),
        ({"parameters": {"p": {"type": "number", "maximum": 2, "enum": [3]}}}, "parameters.p.enum: holds 3, which"),
        ({"parameters": {"p": {"type": "string", "enum": []}}}, "parameters.p.enum: must be an array of 1 to 64"),
        ({"parameters": {"p": {"type": "string", "writable": 1}}}, "parameters.p.writable: must be true or false"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_path(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError) as caught:
        profile(**changes)
    assert (caught.value.code, caught.value.device_id) == ("bad_payload", "r2")
    assert str(caught.value).startswith(f"capabilities: {message}")


@given(st.data())
def test_a_damaged_declaration_is_understood_or_refused(data: st.DataObject) -> None:
    document = copy.deepcopy(example("arm"))
    *path, last = data.draw(st.sampled_from(places(document)[1:]))
    where: Any = document
    for step in path:
        where = where[step]
    where[last] = data.draw(JUNK)
    try:
        found = read_profile("arm", document)
    except ContractError as exc:
        text = str(exc)
    else:
        text = found.name + found.description
    assert is_clean(text)


@given(st.dictionaries(st.text(max_size=5) | st.sampled_from(["name", "actions", "telemetry", "parameters"]), JUNK))
def test_any_object_is_understood_or_refused(document: dict[str, Any]) -> None:
    try:
        read_profile("r2", document)
    except ContractError:
        return
    unknown_keys(document)
