"""Wishes that leave out their verb or say it by another: `back to the dock`, `blinds down please`, `bed to 60`."""

from __future__ import annotations

from pathlib import Path

import pytest

from naila.config.lexicon import load_lexicon
from naila.understanding.reader import CommandReader
from naila.understanding.reading import AskBack, Commands, Reading, StateQuestion
from understanding.scoring import load_set

READER = CommandReader(load_lexicon())
LATER = load_set(Path(__file__).with_name("later_people.yaml"))


def said(speaker: str, text: str) -> Reading:
    return READER.read(text, LATER.view(speaker))


@pytest.mark.parametrize(
    ("speaker", "text", "steps"),
    [
        ("rover", "over to the window", ["rover.go_to {'place': 'window'}"]),
        ("rover", "go to the door you opened", ["rover.go_to {'place': 'door'}"]),
        ("rover", "your battery is low go to the dock", ["rover.go_to {'place': 'dock'}"]),
        ("lamp", "I am cold turn on the light", ["lamp.switch {'state': 'on'}"]),
        ("blind", "blinds down please", ["blind.close {}"]),
        ("blind", "raise the blind", ["blind.open {}"]),
        ("blind", "open the blind halfway", ["blind.set_position {'position': 50}"]),
        ("blind", "put it to 30 percent", ["blind.set_position {'position': 30}"]),
        ("printer", "nozzle to 200", ["printer.heat_nozzle {'temperature': 200.0}"]),
        ("printer", "print me the bracket", ["printer.print_file {'file': 'bracket'}"]),
        ("mower", "front lawn please", ["mower.mow {'area': 'front lawn'}"]),
        ("panel", "turn off the lamp", ["lamp.switch {'state': 'off'}"]),
    ],
)
def test_what_is_left_out_is_understood(speaker: str, text: str, steps: list[str]) -> None:
    reading = said(speaker, text)

    assert isinstance(reading, Commands), reading
    assert [f"{step.device_id}.{step.name} {dict(step.arguments)}" for step in reading.steps] == steps


@pytest.mark.parametrize(
    ("speaker", "text"),
    [
        ("printer", "heat up the nozzle"),
        ("printer", "heat the nozzle up"),
        ("oven", "get the oven up to 190"),
        ("oven", "put it to 30 percent"),
        ("blind", "lower the blind a bit"),
        ("blind", "blinds up 20 percent"),
        ("blind", "shut up"),
        ("panel", "raise it"),
        ("panel", "get down please"),
        ("blind", "the blinds were down all day"),
        ("drone", "back home please"),
        ("rover", "back to the future"),
        ("rover", "back to the dock?"),
        ("rover", "back to the dock never"),
        ("rover", "back to the table we were dancing"),
        ("rover", "take me to the door"),
        ("arm", "back to your dock"),
        ("lamp", "it is not too dark turn the light on"),
        ("lamp", "it is too dark to turn the light on"),
        ("mower", "nobody does the orchard like you"),
        ("mower", "do the front lawn owners pay"),
        ("printer", "keep printing money"),
        ("printer", "the gear you printed broke"),
        ("lamp", "lamp"),
    ],
)
def test_what_may_mean_something_else_moves_nothing(speaker: str, text: str) -> None:
    assert not isinstance(said(speaker, text), Commands)


@pytest.mark.parametrize(
    ("speaker", "text", "argument"),
    [
        ("arm", "move one of your joints to 20 degrees", "joint"),
        ("mower", "mow a lawn", "area"),
        ("printer", "print the cube twice", "file"),
        ("printer", "load some new filament", "material"),
    ],
)
def test_a_value_that_is_left_open_is_asked_for(speaker: str, text: str, argument: str) -> None:
    reading = said(speaker, text)

    assert isinstance(reading, AskBack), reading
    assert reading.question.argument == argument


@pytest.mark.parametrize(
    ("speaker", "text", "topic", "name"),
    [
        ("drone", "how high can you fly", "parameter", "max_height"),
        ("rover", "how far can you drive", "capabilities", "drive"),
        ("mower", "what is the cutting height", "parameter", "cutting_height"),
        ("heatpump", "is the hot water hot", "condition", "tank_temperature"),
        ("heatpump", "what is the hot water target", "parameter", "hot_water_target"),
        ("printer", "when will it be finished", "reading", "time_left"),
    ],
)
def test_what_is_asked_is_the_nearest_thing(speaker: str, text: str, topic: str, name: str) -> None:
    reading = said(speaker, text)

    assert isinstance(reading, StateQuestion), reading
    assert (reading.topic, reading.names) == (topic, (name,))
