"""People's sentences are read right, and none of them moves what nobody wanted moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from naila.config.lexicon import load_lexicon
from naila.fleet import SET_PARAMETER
from naila.understanding.reader import CommandReader
from naila.understanding.reading import (
    AskBack,
    CannotDo,
    Commands,
    Doubtful,
    NotACommand,
    OpenQuestion,
    Reading,
    Repeat,
    StateQuestion,
    Step,
    Stop,
)
from understanding.scoring import Score, Utterance, UtteranceSet, failures, judge, load_set, score, table, verdict

SET = Path(__file__).with_name("utterances.yaml")
SETS = (
    "utterances.yaml",
    "other_people.yaml",
    "other_devices.yaml",
    "more_people.yaml",
    "more_devices.yaml",
    "fresh_people.yaml",
    "later_people.yaml",
    "traps.yaml",
    "probes.yaml",
)
ENOUGH = 150
DRIVE = Step(device_id="rover", name="drive", arguments={"distance": 1.0})
WANTED = {"steps": [{"device": "rover", "action": "drive", "arguments": {"distance": 1}}]}


@pytest.fixture(scope="module")
def utterances() -> UtteranceSet:
    return load_set(SET)


@pytest.fixture(scope="module", params=SETS)
def result(request: pytest.FixtureRequest) -> Score:
    return score(load_set(SET.with_name(request.param)), CommandReader(load_lexicon()).read)


def test_the_set_is_large_and_about_three_robots(utterances: UtteranceSet) -> None:
    assert len(utterances.utterances) >= ENOUGH
    assert len({(each.say, str(each.before), each.through) for each in utterances.utterances}) == len(
        utterances.utterances
    )
    assert {each.profile.device_id for each in utterances.devices} == {"rover", "arm", "lamp"}


def test_every_expected_step_is_declared(utterances: UtteranceSet) -> None:
    view = utterances.view("panel")
    for each in utterances.utterances:
        for step in (step for expected in each.expect for step in expected.get("steps", ())):
            device = view.device(step["device"])
            assert device, each.say
            arguments = step.get("arguments", {})
            if step["action"] == SET_PARAMETER:
                assert device.profile.parameters[arguments["name"]].writable, each.say
            else:
                properties = device.profile.actions[step["action"]].parameters["properties"]
                assert isinstance(properties, dict)
                assert arguments.keys() <= properties.keys(), each.say


def test_sentences_are_read_right(result: Score) -> None:
    assert result.share_right() >= 0.95, f"{table(result)}\n{failures(result)}"


def test_no_sentence_moves_what_it_should_not(result: Score) -> None:
    assert failures(result, lambda each: each.verdict == "wrong action") == ""


@pytest.mark.parametrize(
    ("reading", "fell"),
    [
        (Commands((DRIVE,)), "right"),
        (Commands((Step(device_id="rover", name="drive", arguments={"distance": 1.005}),)), "right"),
        (
            Commands((Step(device_id="rover", name="drive", arguments={"distance": 1, "direction": "forward"}),)),
            "right",
        ),
        (Commands((Step(device_id="rover", name="drive", arguments={"distance": 1.1}),)), "wrong action"),
        (
            Commands((Step(device_id="rover", name="drive", arguments={"distance": 1, "direction": "backward"}),)),
            "wrong action",
        ),
        (Commands((Step(device_id="rover", name="drive", arguments={"distance": 1, "speed": 0.5}),)), "wrong action"),
        (Commands((DRIVE, DRIVE)), "wrong action"),
        (AskBack(OpenQuestion(kind="argument", action="drive", argument="distance")), "asked"),
        (CannotDo(code="out_of_range"), "refused"),
        (Stop(), "stopped"),
        (StateQuestion(topic="capabilities"), "told"),
        (Doubtful(), "doubtful"),
        (NotACommand(), "missed"),
        (Repeat(), "missed"),
    ],
)
def test_the_judge_tells_right_from_wrong(utterances: UtteranceSet, reading: Reading, fell: str) -> None:
    assert verdict(reading, [WANTED], utterances.view("rover")) == fell


def test_a_repetition_is_judged_by_what_it_repeats(utterances: UtteranceSet) -> None:
    readings = iter((Commands((DRIVE,)), Repeat()))

    def read(*_: object, **__: object) -> Reading:
        return next(readings)

    again = Utterance(
        say="again", through="rover", kind="answer", expect=(WANTED,), before=(("drive a meter", WANTED),)
    )
    assert judge(again, utterances, read).verdict == "right"


def test_a_part_of_several_steps_is_no_wrong_action(utterances: UtteranceSet) -> None:
    beep = Step(device_id="rover", name="beep")
    both = {"steps": [*WANTED["steps"], {"device": "rover", "action": "beep"}]}
    view = utterances.view("rover")

    assert verdict(Commands((DRIVE, beep)), [both], view) == "right"
    assert verdict(Commands((beep,)), [both], view) == "missed"
    assert verdict(Commands((beep, DRIVE)), [both], view) == "wrong action"
    assert verdict(Commands((DRIVE,)), [{"talk": True}], view) == "wrong action"
