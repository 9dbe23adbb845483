"""Follow-ups, orders, shared verbs and refusals in words that nothing declared; and talk that is near to commands."""

from __future__ import annotations

import pytest

from naila.config.lexicon import load_lexicon
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
from understanding.fleets import fleet, house, robots
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
