"""How well texts are read, judged against a set of utterances such as `utterances.yaml`, which explains its fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from naila.config.yaml_file import read_yaml
from naila.devices.capabilities import read_profile
from naila.fleet import ActionSpec, DeviceView, FleetView
from naila.fleet import Reading as Measured
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
    Withdrawn,
)

TOLERANCE = 0.01
PANEL = "panel"

Verdict = Literal["right", "wrong action", "asked", "refused", "stopped", "told", "doubtful", "missed"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
INSTEAD: Mapping[type, Verdict] = {
    AskBack: "asked",
    CannotDo: "refused",
    Stop: "stopped",
    StateQuestion: "told",
    Doubtful: "doubtful",
}
Expectation = Mapping[str, Any]


class Reader(Protocol):
    """What is judged: `CommandReader.read`, or something that answers like it."""

    def __call__(
        self,
        text: str,
        view: FleetView,
        *,
        question: OpenQuestion | None = None,
        about: str | None = None,
        last: Sequence[Step] = (),
    ) -> Reading:
        """Read one text."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A sentence and what has to come of it.

    Attributes:
        say: the words.
        through: the device that they are said to.
        kind: for the report.
        expect: what has to come of it, then what is right as well.
        before: the words said before in the same conversation, each with what had to come of it.
    """

    say: str
    through: str
    kind: str
    expect: tuple[Expectation, ...]
    before: tuple[tuple[str, Expectation], ...] = ()


@dataclass(frozen=True, slots=True)
class UtteranceSet:
    """Sentences, and the devices that they are about.

    Attributes:
        devices: what is known of each.
        utterances: in the file's order.
    """

    devices: tuple[DeviceView, ...]
    utterances: tuple[Utterance, ...]

    def view(self, speaker: str) -> FleetView:
        """Return the fleet as one of them, or a panel that declared nothing, sees it."""
        own = [each for each in self.devices if each.profile.device_id == speaker]
        return FleetView(speaker, (*own, *(each for each in self.devices if each not in own)))


@dataclass(frozen=True, slots=True)
class Judged:
    """One utterance, read.

    Attributes:
        utterance: what was said.
        reading: what it was read as.
        verdict: whether that is right, else what came instead. `asked` includes a wrong question, `told` is an
            answer from telemetry or declarations, `missed` conversation instead of a command or only a part of it.
    """

    utterance: Utterance
    reading: Reading
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Score:
    """All utterances of a set, judged."""

    judged: tuple[Judged, ...]

    def share_right(self) -> float:
        """Return the share that was read exactly right, from 0 to 1."""
        return sum(each.verdict == "right" for each in self.judged) / len(self.judged)

    def with_verdict(self, verdict: Verdict) -> tuple[Judged, ...]:
        """Return those that were judged so."""
        return tuple(each for each in self.judged if each.verdict == verdict)

    def counts(self) -> dict[str, dict[Verdict, int]]:
        """Return how often each verdict fell, by kind of utterance, in the set's order."""
        table: dict[str, dict[Verdict, int]] = {}
        for each in self.judged:
            row = table.setdefault(each.utterance.kind, dict.fromkeys(VERDICTS, 0))
            row[each.verdict] += 1
        return table


@dataclass(slots=True)
class Conversation:
    """What a reader is told of the words before."""

    question: OpenQuestion | None = None
    about: str | None = None
    steps: tuple[Step, ...] = ()

    def read(self, read: Reader, text: str, view: FleetView) -> Reading:
        """Let a reader read a text, and remember what came of it."""
        return self.take(read(text, view, question=self.question, about=self.about, last=self.steps))

    def take(self, reading: Reading) -> Reading:
        """Remember what was read; return it, a repetition as what is repeated."""
        self.question = reading.question if isinstance(reading, AskBack) else None
        if isinstance(reading, Repeat):
            return Commands(self.steps) if self.steps else NotACommand()
        if isinstance(reading, Commands):
            self.steps = reading.steps
            self.about = reading.steps[-1].device_id
        elif isinstance(reading, AskBack):
            self.about = reading.question.device_id or self.about
        elif isinstance(reading, StateQuestion):
            self.about = reading.device_id or self.about
        return reading


def load_set(path: Path) -> UtteranceSet:
    """Read a set of utterances and the capabilities of the devices that it names."""
    document = read_yaml(path)
    readings = document.get("readings", {})
    devices = tuple(
        DeviceView(
            profile=read_profile(name, json.loads((path.parent / file).read_text(encoding="utf-8"))),
            online=True,
            readings={what: measured(value) for what, value in readings.get(name, {}).items()},
        )
        for name, file in document["devices"].items()
    )
    utterances = tuple(
        Utterance(
            say=each["say"],
            through=each["through"],
            kind=each["kind"],
            expect=(each["expect"], *each.get("or", ())),
            before=tuple((earlier["say"], earlier["expect"]) for earlier in each.get("before", ())),
        )
        for each in document["utterances"]
    )
    return UtteranceSet(devices, utterances)


def measured(value: float | bool | str) -> Measured:
    """Return a fresh reading with a short history."""
    if isinstance(value, bool | str):
        return Measured(value, 1.0)
    return Measured(value, 1.0, ((value, 61.0), (value, 31.0)))


def score(utterances: UtteranceSet, read: Reader) -> Score:
    """Read every utterance, each in a conversation of its own, and judge what came of it."""
    return Score(tuple(judge(each, utterances, read) for each in utterances.utterances))


def judge(utterance: Utterance, utterances: UtteranceSet, read: Reader) -> Judged:
    """Read what was said before, then the utterance, and judge that; a wrong action before it is one too."""
    view = utterances.view(utterance.through)
    conversation = Conversation()
    for text, expected in utterance.before:
        reading = conversation.read(read, text, view)
        if verdict(reading, (expected,), view) == "wrong action":
            return Judged(utterance, reading, "wrong action")
    reading = conversation.read(read, utterance.say, view)
    return Judged(utterance, reading, verdict(reading, utterance.expect, view))


def verdict(reading: Reading, expected: Sequence[Expectation], view: FleetView) -> Verdict:
    """Say whether a reading is one of those expected, else what it is instead."""
    if any(meets(reading, each, view) for each in expected):
        return "right"
    if isinstance(reading, Commands):
        return "missed" if any(is_part(reading.steps, each, view) for each in expected) else "wrong action"
    return INSTEAD.get(type(reading), "missed")


def meets(reading: Reading, expected: Expectation, view: FleetView) -> bool:
    """Tell whether a reading is exactly what was expected."""
    ((what, detail),) = expected.items()
    match what, reading:
        case "steps", Commands(steps):
            met = len(steps) == len(detail) and all(is_step(*pair, view) for pair in zip(steps, detail, strict=True))
        case "ask", AskBack(question):
            met = is_question(question, detail)
        case "refuse", CannotDo(code=code):
            met = code in several(detail["code"])
        case "stop", Stop():
            met = is_stop(reading, detail, view)
        case "state", StateQuestion():
            met = is_state(reading, detail)
        case _:
            met = isinstance(reading, {"doubtful": (Doubtful,), "talk": (NotACommand, Withdrawn)}.get(what, ()))
    return met


def is_part(steps: Sequence[Step], expected: Expectation, view: FleetView) -> bool:
    """Tell whether every step was wanted, in this order, though others were wanted too."""
    wanted: Iterator[Expectation] = iter(expected.get("steps", ()))
    return all(any(is_step(step, each, view) for each in wanted) for step in steps)


def is_step(step: Step, expected: Expectation, view: FleetView) -> bool:
    """Compare device, action and arguments."""
    if (step.device_id, step.name) != (expected["device"], expected["action"]):
        return False
    wanted = expected.get("arguments", {})
    device = view.device(step.device_id)
    defaults = defaults_of(device.profile.actions[step.name]) if device and step.name in device.profile.actions else {}
    for name in {*wanted, *step.arguments}:
        if name not in wanted:
            fine = name in defaults and is_value(step.arguments[name], defaults[name])
        elif name in step.arguments:
            fine = is_value(step.arguments[name], wanted[name])
        elif isinstance(wanted[name], Mapping) and wanted[name].get("optional"):
            fine = True
        else:
            fine = name in defaults and is_value(defaults[name], wanted[name])
        if not fine:
            return False
    return True


def defaults_of(action: ActionSpec) -> dict[str, Any]:
    """Return the declared defaults of an action's arguments."""
    properties: Any = action.parameters.get("properties", {})
    return {name: schema["default"] for name, schema in properties.items() if "default" in schema}


def is_value(value: object, expected: Any) -> bool:
    """Compare an argument: numbers within 1 %, a boolean is no number."""
    if isinstance(expected, Mapping):
        if "one_of" in expected:
            return any(is_value(value, each) for each in expected["one_of"])
        low, high = expected["between"]
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if isinstance(expected, bool) or isinstance(value, bool) or not isinstance(expected, int | float):
        return type(value) is type(expected) and value == expected
    return isinstance(value, int | float) and abs(value - expected) <= abs(expected) * TOLERANCE


def is_question(question: OpenQuestion, expected: Expectation) -> bool:
    """Compare what is asked back."""
    if question.kind not in several(expected["kind"]):
        return False
    if "action" in expected and question.action not in several(expected["action"]):
        return False
    return "argument" not in expected or question.argument in several(expected["argument"])


def is_stop(stop: Stop, expected: str | list[str], view: FleetView) -> bool:
    """Compare who has to stop; naming everybody is as good as naming nobody."""
    everybody = {each.profile.device_id for each in view.devices}
    return (set(stop.device_ids) or everybody) == (everybody if expected == "all" else set(expected))


def is_state(question: StateQuestion, expected: Expectation) -> bool:
    """Compare what is asked about whom; more names than the expected ones do no harm."""
    if question.topic not in several(expected["topic"]):
        return False
    if "device" in expected and question.device_id != (None if expected["device"] == "all" else expected["device"]):
        return False
    return set(expected.get("names", ())) <= set(question.names)


def several(one_or_more: str | list[str]) -> list[str]:
    """Return a list of what may be a single one."""
    return [one_or_more] if isinstance(one_or_more, str) else one_or_more


def table(result: Score) -> str:
    """Return the score as a Markdown table, a row for each kind of utterance."""
    head = ("kind", "utterances", *VERDICTS)
    rows = [(kind, sum(row.values()), *row.values()) for kind, row in result.counts().items()]
    rows.append(("all", len(result.judged), *(len(result.with_verdict(each)) for each in VERDICTS)))
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("_", " ") for cell in line) + " |" for line in lines)


def failures(result: Score, only: Callable[[Judged], bool] = lambda each: each.verdict != "right") -> str:
    """Return the utterances that were not read right, a line each."""
    return "\n".join(
        f"{each.verdict:<12} [{each.utterance.kind}, {each.utterance.through}] {each.utterance.say!r} -> {each.reading}"
        for each in result.judged
        if only(each)
    )
