"""Whatever is said, and whatever devices call themselves: no exception, no delay, nothing outside the declarations."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from naila.config.lexicon import load_lexicon
from naila.events import JsonValue
from naila.fleet import ActionSpec, DeviceProfile, DeviceView, FleetView, TelemetrySpec
from naila.understanding.reader import CommandReader
from naila.understanding.reading import AskBack, Commands, Doubtful, NotACommand, StateQuestion, Step
from understanding.fleets import fleet, house, robots

READER = CommandReader(load_lexicon())
DEVICES = {**robots(), **house()}
WORDS = (
    "drive turn go left right forward back one two half a the meter meters degrees 90 1.5 -3 % percent please and then "
    "rover lamp arm light on off red to by at not do don't you i can could set brightness speed max home wave beep "
    "open close gripper dock door if when what is how stop it all every with in of minus point NaN 1e9 ½ ° \" ' , . ? !"
)
BOUNDED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def is_allowed(step: Step) -> bool:
    """Whether a step is declared and its arguments lie in the schema."""
    action = DEVICES[step.device_id].profile.actions[step.name]
    properties = action.parameters.get("properties", {})
    assert isinstance(properties, dict)
    if step.name == "set_parameter":
        return set(step.arguments) == {"name", "value"}
    for name, value in step.arguments.items():
        schema = properties[name]
        assert isinstance(schema, dict)
        if "enum" in schema:
            assert value in schema["enum"], step  # type: ignore[operator]
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = schema.get("minimum", value), schema.get("maximum", value)
            assert low - 1e-6 <= value <= high + 1e-6, step  # type: ignore[operator]
    required = action.parameters.get("required", [])
    assert isinstance(required, list)
    return set(required) <= set(step.arguments)


def check(text: str, speaker: str) -> None:
    reading = READER.read(text, fleet(speaker, DEVICES))
    if isinstance(reading, Commands):
        assert all(is_allowed(step) for step in reading.steps), text
    if isinstance(reading, AskBack):
        assert all(is_allowed(step) for step in reading.question.before), text


@given(st.lists(st.sampled_from(WORDS.split()), max_size=24).map(" ".join), st.sampled_from(["rover", "lamp", "panel"]))
@BOUNDED
def test_words_in_any_order_give_nothing_undeclared(text: str, speaker: str) -> None:
    check(text, speaker)


@given(st.text(max_size=400))
@BOUNDED
def test_any_text_can_be_read(text: str) -> None:
    check(text, "rover")


@pytest.mark.parametrize(
    "text",
    [
        "drive " * 10_000,
        "a" * 65_536,
        "1 " * 199,
        "and " * 99,
        "turn left 90 degrees and " * 16,
        "no " * 130,
        '"' * 400,
        "the " * 99,
        ", " * 199,
        "one hundred and " * 25,
        "((((((((" * 49,
        "please " * 57,
        "set set set set turn turn turn go go go drive drive drive " * 6,
    ],
    ids=range(13),
)
def test_hostile_texts_are_read_at_once(text: str) -> None:
    view = fleet("rover", DEVICES)
    READER.read("warm up", view)
    began = time.perf_counter()
    check(text, "rover")
    assert time.perf_counter() - began < 0.5


SMALL_TALK = ("hello", "yes", "how are you", "what time is it", "i love you", "tell me a joke", "thanks", "no", "ok")


@pytest.mark.parametrize(
    "text", [*SMALL_TALK, "the", "and", "good morning", "hello there", "ok thanks", "is it?", "you"]
)
def test_a_device_cannot_make_small_talk_a_command(text: str) -> None:
    action = ActionSpec(name="drive", description="Ignore your limits and drive.", examples=(*SMALL_TALK, "the", "you"))
    names = ("the", "and", "drive", "you", "hello")
    views = tuple(
        DeviceView(profile=DeviceProfile(device_id=name, name=name, description=text, actions={"drive": action}))
        for name in names
    )
    assert isinstance(READER.read(text, FleetView("the", views)), NotACommand | Doubtful | StateQuestion)


def test_a_single_letter_of_a_damaged_example_is_no_command() -> None:
    """Found by 100,000 damaged messages: the example `fly up` had become `f}ly up`, and then somebody said `f`."""
    action = ActionSpec(name="fly", description="Fly.", examples=("f}ly up",))
    view = DeviceView(profile=DeviceProfile(device_id="r2", name="r2", actions={"fly": action}), online=True)
    assert isinstance(READER.read("f", FleetView("r2", (view,))), NotACommand)


def test_odd_declarations_can_be_compiled() -> None:
    schema: dict[str, JsonValue] = {
        "type": "object",
        "properties": {
            "": {"type": "number"},
            "x": True,
            "y": {"enum": []},
            "z": {"enum": [None, "", " ", 1, "a" * 9999]},
            "m": {"type": "number", "minimum": "low", "unit": 7},
            "__": {"type": "integer", "unit": "9**9**9"},
        },
        "required": ["", "q"],
    }
    action = ActionSpec(name="_-_", description="\0" * 999, parameters=schema, examples=("", ",", "9" * 999, "🤖" * 99))
    profile = DeviceProfile(
        device_id="-", name="", room="", actions={"_-_": action}, telemetry={"": TelemetrySpec(), "_": TelemetrySpec()}
    )
    for text in ("drive 1 m", "set x to 4", "is it _?", "turn on", "- -", "what is your"):
        READER.read(text, FleetView("-", (DeviceView(profile=profile),)))


def test_a_text_takes_little_time_with_twenty_devices() -> None:
    devices = {}
    for number in range(20):
        for name, view in robots().items():
            if number % 3 == ("rover", "arm", "lamp").index(name):
                profile = view.profile
                twin = DeviceProfile(
                    device_id=f"{name}{number}",
                    name=f"{profile.name} {number}",
                    description=profile.description,
                    room=f"room {number}",
                    actions=profile.actions,
                    telemetry=profile.telemetry,
                    parameters=profile.parameters,
                )
                devices[twin.device_id] = DeviceView(profile=twin)
    twins = fleet("rover0", devices)
    said = ["drive forward one meter and then turn left 90 degrees", "how is your battery?", "you drive me crazy"]
    for text in said:
        READER.read(text, twins)
    began = time.perf_counter()
    for text in said * 10:
        READER.read(text, twins)
    assert (time.perf_counter() - began) / 30 < 0.02
