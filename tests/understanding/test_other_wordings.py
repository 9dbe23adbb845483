"""Follow-ups, orders, shared verbs and refusals in words that nothing declared; and talk that is near to commands."""

from __future__ import annotations

import pytest

from naila.config.lexicon import load_lexicon
from naila.devices.capabilities import read_profile
from naila.events import JsonValue
from naila.fleet import DeviceView
from naila.understanding.reader import CommandReader
from naila.understanding.reading import (
    AskBack,
    CannotDo,
    Commands,
    Doubtful,
    NotACommand,
    Reading,
    Repeat,
    StateQuestion,
    Stop,
)
from understanding.fleets import fleet, house, robots, seen
from understanding.scoring import Conversation

READER = CommandReader(load_lexicon())
ROBOTS = robots()
HOUSE = house()


def said(devices: dict[str, DeviceView], speaker: str, *texts: str) -> Reading:
    """Return what the last of several texts of one conversation is read as."""
    conversation = Conversation()
    return [conversation.read(READER.read, text, fleet(speaker, devices)) for text in texts][-1]


def steps(reading: Reading) -> list[str]:
    assert isinstance(reading, Commands), reading
    return [f"{step.device_id}.{step.name} {dict(step.arguments)}" for step in reading.steps]


@pytest.mark.parametrize(
    ("texts", "step"),
    [
        (("turn left 90 degrees", "no, right"), "rover.turn {'direction': 'right', 'angle': 90.0}"),
        (("drive forward 1 meter", "I meant backwards"), "rover.drive {'direction': 'backward', 'distance': 1.0}"),
        (("go to the door", "no, the window"), "rover.go_to {'place': 'window'}"),
        (("turn 90 degrees", "the other way, I mean right"), "rover.turn {'angle': 90.0, 'direction': 'right'}"),
    ],
)
def test_a_correction_changes_only_what_it_says(texts: tuple[str, str], step: str) -> None:
    assert steps(said(ROBOTS, "rover", *texts)) == [step]


@pytest.mark.parametrize("text", ["no", "sorry, that was my brother", "no, that is wrong", "and the weather is nice"])
def test_talk_after_a_command_corrects_nothing(text: str) -> None:
    assert not isinstance(said(ROBOTS, "rover", "go to the door", text), Commands)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("before you go to the dock, beep twice", ["rover.beep {'times': 2}", "rover.go_to {'place': 'dock'}"]),
        ("go to the door after beeping twice", ["rover.beep {'times': 2}", "rover.go_to {'place': 'door'}"]),
        ("beep beep beep, do it three times", ["rover.beep {'times': 3}"]),
        ("tell the rover to beep and the arm to wave", ["rover.beep {}", "arm.wave {}"]),
        (
            "rover beep twice arm wave lamp off",
            ["rover.beep {'times': 2}", "arm.wave {}", "lamp.switch {'state': 'off'}"],
        ),
    ],
)
def test_steps_come_in_the_order_in_which_they_are_wanted(text: str, wanted: list[str]) -> None:
    assert steps(said(ROBOTS, "rover", text)) == wanted


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        (("go to the door and then to the attic",), "bad_arguments"),
        (("go to the door", "I mean the garden"), "bad_arguments"),
        (("move to 30 degrees", "the knee"), "bad_arguments"),
        (("turn left one meter",), "bad_arguments"),
        (("change the firmware",), "bad_arguments"),
    ],
)
def test_what_is_not_declared_is_refused_as_a_whole(texts: tuple[str, ...], code: str) -> None:
    reading = said(ROBOTS, "arm" if "knee" in texts[-1] else "rover", *texts)

    assert isinstance(reading, CannotDo), reading
    assert reading.code == code


@pytest.mark.parametrize("text", ["turn off", "power off", "home"])
def test_what_only_another_device_knows_is_not_done_unasked(text: str) -> None:
    assert isinstance(said(ROBOTS, "rover", text), Doubtful | NotACommand)


def test_a_comparison_is_no_count() -> None:
    assert isinstance(said(ROBOTS, "lamp", "blink twice as fast"), Doubtful)
    assert steps(said(ROBOTS, "lamp", "half as bright")) == ["lamp.set_brightness {'level': 30}"]


@pytest.mark.parametrize("text", ["what robots are around", "which devices can I use", "how many robots do you know"])
def test_it_is_asked_who_is_there(text: str) -> None:
    assert said(ROBOTS, "rover", text) == StateQuestion(topic="presence")


@pytest.mark.parametrize("devices", [ROBOTS, HOUSE], ids=["robots", "house"])
@pytest.mark.parametrize(
    "text",
    [
        "wave goodbye to your savings",
        "the power of red",
        "make yourself at home",
        "turn up at eight",
        "let me turn left 90 degrees",
        "set it and forget it",
        "run as fast as you can",
        "never beep before you turn left 90 degrees",
        "I beep before you go to the door",
        "could the rover be happy",
        "tell the arm a story",
        "pick up my kids from school",
        "actually two of them are red",
        "the meeting should start at 3",
        "sales are up 20 percent",
        "record the minutes of the meeting",
        "after you left, I cried",
        "bring me to the table",
        "turn left is what I said",
    ],
)
def test_talk_near_to_commands_moves_nothing(devices: dict[str, DeviceView], text: str) -> None:
    for speaker in (*devices, "panel"):
        assert not isinstance(said(devices, speaker, text), Commands | Repeat), speaker


@pytest.mark.parametrize(
    ("speaker", "text"),
    [
        ("rover", "drive around the table"),
        ("rover", "go to the window next to the door"),
        ("rover", "go to the back door"),
        ("rover", "almost go to the door"),
        ("rover", "go to the door and back"),
        ("rover", "drive forward 1 meter back"),
        ("rover", "turn left and right 90 degrees"),
        ("rover", "turn left to 90 degrees"),
        ("rover", "switch yourself off"),
        ("rover", "drop it"),
        ("rover", "go green"),
        ("panel", "rover, switch yourself off"),
        ("panel", "rover, switch off"),
        ("lamp", "blink five times a second"),
        ("lamp", "set the brightness between 20 and 40"),
        ("lamp", "set the brightness above 50 percent"),
        ("arm", "hold the fort"),
        ("arm", "hold your fire"),
    ],
)
def test_a_word_beside_a_value_is_not_dropped(speaker: str, text: str) -> None:
    assert not isinstance(said(ROBOTS, speaker, text), Commands)


@pytest.mark.parametrize(
    ("speaker", "text", "step"),
    [
        ("rover", "drive forward a meter, no, half a meter", "rover.drive {'direction': 'forward', 'distance': 0.5}"),
        ("lamp", "make it blue no no make it green", "lamp.set_color {'color': 'green'}"),
        ("rover", "turn left one eight zero degrees", "rover.turn {'direction': 'left', 'angle': 180.0}"),
        ("arm", "wave at me you beautiful machine", "arm.wave {}"),
        ("rover", "go to the door, soldier", "rover.go_to {'place': 'door'}"),
        ("lamp", "turn the brightness all the way down", "lamp.set_brightness {'level': 0}"),
        ("lamp", "dim the light all the way", "lamp.set_brightness {'level': 0}"),
    ],
)
def test_what_only_calls_mends_or_spells_is_understood(speaker: str, text: str, step: str) -> None:
    assert steps(said(ROBOTS, speaker, text)) == [step]


BREW: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "drink": {"type": "string", "enum": ["espresso", "latte"]},
        "cups": {"type": "integer", "minimum": 1, "maximum": 2, "default": 1},
    },
    "required": ["drink"],
}
SLEW: dict[str, JsonValue] = {
    "type": "object",
    "properties": {name: {"type": "number", "maximum": 360, "unit": "deg"} for name in ("azimuth", "altitude")},
    "required": ["azimuth", "altitude"],
}
FLOOR: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"floor": {"type": "integer", "minimum": 0, "maximum": 4}},
    "required": ["floor"],
}
WALK: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"steps": {"type": "integer", "minimum": 1, "maximum": 20}},
    "required": ["steps"],
}
MUTE: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"state": {"type": "string", "enum": ["on", "off"]}},
    "required": ["state"],
}
ACTIONS: dict[str, dict[str, JsonValue]] = {
    "bar": {"name": "brew", "parameters": BREW, "examples": ["brew a latte", "two lattes please"]},
    "lift": {"name": "go_to_floor", "parameters": FLOOR, "examples": ["go to floor 2"]},
    "bug": {"name": "walk", "parameters": WALK, "examples": ["walk 5 steps"]},
    "radio": {"name": "mute", "parameters": MUTE, "examples": ["mute", "mute off"]},
    "scope": {"name": "slew", "parameters": SLEW, "examples": ["slew to azimuth 120 altitude 40"]},
}
OTHERS = {
    name: seen(read_profile(name, {"name": name, "description": "A machine.", "actions": [action]}), {})
    for name, action in ACTIONS.items()
}


@pytest.mark.parametrize(
    ("speaker", "texts", "wanted"),
    [
        ("bar", ("two espressos",), ["bar.brew {'drink': 'espresso', 'cups': 2}"]),
        ("bar", ("i'd like a latte",), ["bar.brew {'drink': 'latte'}"]),
        ("bar", ("can you make me two cups of espresso",), ["bar.brew {'drink': 'espresso', 'cups': 2}"]),
        ("lift", ("go to the third floor",), ["lift.go_to_floor {'floor': 3}"]),
        ("bug", ("walk a step",), ["bug.walk {'steps': 1}"]),
        ("radio", ("mute it please",), ["radio.mute {'state': 'on'}"]),
        ("radio", ("mute off",), ["radio.mute {'state': 'off'}"]),
        ("scope", ("azimuth 180 altitude 45",), ["scope.slew {'azimuth': 180.0, 'altitude': 45.0}"]),
    ],
)
def test_devices_are_told_in_few_words(speaker: str, texts: tuple[str, ...], wanted: list[str]) -> None:
    assert steps(said(OTHERS, speaker, *texts)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "two espressos were cold",
        "a latte",
        "five minutes please",
        "we had two lattes",
        "the azimuth is 180",
        "my office is on the third floor",
        "a step in the right direction",
        "mute is on",
    ],
)
def test_what_only_names_things_orders_none(text: str) -> None:
    for speaker in OTHERS:
        assert not isinstance(said(OTHERS, speaker, text), Commands), speaker


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (("spin round once",), ["rover.turn {'angle': 360.0, 'direction': 'left'}"]),
        (("turn a quarter to the right",), ["rover.turn {'direction': 'right', 'angle': 90.0}"]),
        (("go to the table and beep when you get there",), ["rover.go_to {'place': 'table'}", "rover.beep {}"]),
        (
            ("turn left 45 degrees", "and now the same to the right"),
            ["rover.turn {'direction': 'right', 'angle': 45.0}"],
        ),
        (("drive to the charger and charge",), ["rover.go_to {'place': 'dock'}"]),
        (("your battery is low, go to the dock",), ["rover.go_to {'place': 'dock'}"]),
        (("drive forward 40 cm", "another 0.3"), ["rover.drive {'direction': 'forward', 'distance': 0.3}"]),
        (("open the gripper", "ok now close it"), ["arm.close_gripper {}"]),
        (("elbow to 30 degrees", "the wrist too"), ["arm.move_joint {'joint': 'wrist', 'angle': 30.0}"]),
    ],
)
def test_what_goes_on_from_what_was_said(texts: tuple[str, ...], wanted: list[str]) -> None:
    speaker = "arm" if wanted[0].startswith("arm") else "rover"
    assert steps(said(ROBOTS, speaker, *texts)) == wanted


@pytest.mark.parametrize(
    "texts",
    [
        ("beep when you get there",),
        ("I go to work, beep when you get there",),
        ("pick up my socks",),
        ("on three, beep",),
        ("the plan is simple, drive to the door",),
        ("drive forward 1 meter", "another 25"),
        ("drive forward 40 cm", "another 0.3?"),
        ("turn left 45 degrees", "same to you"),
        ("open the gripper", "I will close it"),
    ],
)
def test_what_does_not_go_on_moves_nothing(texts: tuple[str, ...]) -> None:
    assert not isinstance(said(ROBOTS, "rover", *texts), Commands)


def test_your_motors_are_no_other_device() -> None:
    garage = seen(
        read_profile("garage", {"name": "Gate", "description": "A motor that opens a gate.", "actions": []}), {}
    )
    assert said({**ROBOTS, "garage": garage}, "rover", "are your motors hot") == StateQuestion(
        topic="condition", device_id="rover", names=("motor_temperature",), adjective="hot"
    )


def test_a_movement_that_may_be_done_is_not_done_again() -> None:
    reading = said(ROBOTS, "rover", "drive forward 1 meter", "no, two meters")

    assert isinstance(reading, AskBack), reading
    assert reading.question.argument == "distance"


@pytest.mark.parametrize("text", ["stop stop you idiot", "stop, there's a child", "I said stop", "stoooop"])
def test_an_outcry_stops(text: str) -> None:
    assert isinstance(said(ROBOTS, "rover", text), Stop)


@pytest.mark.parametrize("text", ["never say stop stop", "what does stop stop mean", "the knight stopped"])
def test_talk_of_stopping_does_not_stop(text: str) -> None:
    assert not isinstance(said(ROBOTS, "rover", text), Stop)
