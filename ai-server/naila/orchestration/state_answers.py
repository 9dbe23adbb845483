"""Questions about devices, answered from what they declared and measured, with the figure to judge by."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from naila.config.patterns import Condition, fold
from naila.fleet import SET_PARAMETER, DeviceView, FleetView, Reading, TelemetrySpec, is_name
from naila.orchestration.naming import (
    allowed_words,
    device_name,
    duration_words,
    listed,
    name_of,
    plain,
    quoted,
    reading_words,
    room_of,
    rounded,
    schema_of,
    sentence,
    spoken,
    value_words,
    with_unit,
)
from naila.orchestration.patterns import Voice
from naila.orchestration.trend import trend_of
from naila.understanding.reading import StateQuestion

STALE_S: Final = 30.0
SHOWN_FIELDS: Final = 8
SHOWN_ACTIONS: Final = 8
SHOWN_EXAMPLES: Final = 3
SHOWN_DEVICES: Final = 12
_MAX_SAID_WORDS: Final = 16
_WHETHER: Final = re.compile(r"whether (?P<fact>(?P<thing>[\w' -]+?) (?P<is>is|are) (?P<what>[\w' -]+))", re.IGNORECASE)
_WORD: Final = re.compile(r"[^\W\d_]+")
_NO_SPEC: Final = TelemetrySpec()
_Tell: TypeAlias = Callable[[DeviceView, str, Reading], str]


def answer_state(question: StateQuestion, view: FleetView, voice: Voice, request_id: str) -> str:
    """Return the answer to a question about one device, or about all of them."""
    return _Answer(question, view, voice, request_id).words()


@dataclass(frozen=True, slots=True)
class _Answer:
    question: StateQuestion
    view: FleetView
    voice: Voice
    request_id: str

    def words(self) -> str:
        """Return the whole answer."""
        devices = self._devices()
        if not devices:
            return self._say("state_no_device")
        match self.question.topic:
            case "reading":
                said = self._readings(devices)
            case "condition":
                said = self._conditions(devices)
            case "trend":
                said = self._trends(devices)
            case "capabilities":
                said = self._capabilities(devices)
            case "presence":
                said = [self._presence(device) for device in devices]
            case "activity":
                said = [self._activity(device) for device in devices]
            case "parameter":
                said = self._parameters(devices)
        if self.question.topic not in {"capabilities", "presence"}:
            said += [self._say("state_offline", device=self._name(each)) for each in devices if each.online is False]
        return " ".join(said)

    def _say(self, key: str, **fields: str) -> str:
        return sentence(self.voice.say(key, self.request_id, fields))

    def _devices(self) -> tuple[DeviceView, ...]:
        wanted = self.question.device_id
        if wanted is None:
            return self.view.devices[:SHOWN_DEVICES]
        found = self.view.device(wanted)
        return (found,) if found is not None else ()

    def _name(self, device: DeviceView) -> str:
        return device_name(self.view, device.profile.device_id)

    def _subject(self, device: DeviceView, field: str) -> str:
        name = spoken(field)
        spec = device.profile.telemetry.get(field)
        if len(name) <= 2 and spec is not None and spec.description:
            name = f"{name} ({_first_words(spec.description)})"
        return f"the {name}" if device.profile.device_id == self.view.speaker else f"the {name} of {self._name(device)}"

    # Readings

    def _readings(self, devices: Sequence[DeviceView]) -> list[str]:
        if self.question.names:
            return self._named(devices, self._fact)
        said = []
        for device in devices:
            facts = [
                f"{spoken(field)} {reading_words(device.readings[field].value, _unit(device, field))}{_when(reading)}"
                for field, reading in list(device.readings.items())[:SHOWN_FIELDS]
            ]
            name = self._name(device)
            said.append(sentence(f"{name}: {', '.join(facts)}") if facts else self._say("state_nothing", device=name))
        return said

    def _named(self, devices: Sequence[DeviceView], tell: _Tell) -> list[str]:
        """Tell of each field that is asked about by those who know it; of the first who should, if nobody does."""
        said = []
        for name in self.question.names[:SHOWN_FIELDS]:
            known = [device for device in devices if name in device.readings]
            said += [tell(device, name, device.readings[name]) for device in known]
            if not known:
                likely = next((each for each in devices if name in each.profile.telemetry), devices[0])
                said.append(self._say("state_unknown", field=spoken(name), device=self._name(likely)))
        return said

    def _fact(self, device: DeviceView, field: str, reading: Reading) -> str:
        if isinstance(reading.value, bool):
            return self._truth(device, field, reading, value=reading.value)
        value = reading_words(reading.value, _unit(device, field))
        return self._say("state_is", subject=self._subject(device, field), value=value, when=_when(reading))

    def _truth(self, device: DeviceView, field: str, reading: Reading, *, value: bool) -> str:
        """Return a field that is true or false as a sentence."""
        stated = _WHETHER.match(plain(_spec(device, field).description, 80))
        words = spoken(field).split()
        if stated is not None:
            what, thing = stated["what"], stated["thing"]
            own = device.profile.device_id == self.view.speaker or thing.lower() == "it"
            thing = self._name(device) if thing.lower() == "it" else thing
            said = f"{thing} {stated['is']} {self._state(what, value=value)}"
            return sentence(f"{said}{'' if own else f' ({self._name(device)})'}{_when(reading)}")
        if words and (words[-1] in self.voice.phrasebook.conditions or words[-1].endswith("ing")):
            said = self._state(words[-1], value=value)
            rest = " ".join(words[:-1])
            thing = self._subject(device, rest) if rest else self._name(device)
            return sentence(f"{thing} is {said}{_when(reading)}")
        yes_no = reading_words(value)
        return sentence(f"{self._name(device)}: {spoken(field)}, {yes_no}{_when(reading)}")

    def _state(self, word: str, *, value: bool) -> str:
        if value:
            return word
        condition = self.voice.phrasebook.conditions.get(fold(word))
        return condition.opposite if condition is not None and condition.opposite else f"not {word}"

    # Conditions

    def _conditions(self, devices: Sequence[DeviceView]) -> list[str]:
        adjective = fold(self.question.adjective or "")
        condition = self.voice.phrasebook.conditions.get(adjective)
        if self.question.names:
            return self._named(devices, lambda device, field, reading: self._judged(device, field, reading, condition))
        found = [(rank, device) for device in devices if (rank := _rank(device, adjective, condition)) is not None]
        # Of several, those that measure the thing itself: the room's temperature rather than a motor's.
        best = min((rank.distance for rank, _ in found), default=None)
        said = [
            self._judged(device, rank.field, device.readings[rank.field], condition)
            for rank, device in found
            if rank.distance == best
        ]
        if said:
            return said
        device = self._name(devices[0])
        if condition is not None and condition.holds is None:
            return [self._say("state_unknown", field=condition.about[0], device=device)]
        return [self._say("state_untold", device=device)]

    def _judged(self, device: DeviceView, field: str, reading: Reading, condition: Condition | None) -> str:
        fact = self._fact(device, field, reading)
        verdict = self._verdict(device, field, reading, condition)
        if verdict is None:
            return fact
        fact = f"the {fact.removeprefix('The ')}" if fact.startswith("The ") else fact
        return self._say("state_yes" if verdict else "state_no", fact=fact)

    def _verdict(self, device: DeviceView, field: str, reading: Reading, condition: Condition | None) -> bool | None:
        """Tell whether the condition holds; None where that is for the person to judge."""
        value, spec = reading.value, _spec(device, field)
        if condition is None or isinstance(value, str):
            return None
        if isinstance(value, bool):
            words = set(_WORD.findall(spoken(field)))
            conditions = self.voice.phrasebook.conditions
            inverted = any(word in conditions and conditions[word].holds is False for word in words)
            return None if condition.holds is None else (value != inverted) == condition.holds
        if condition.unit is not None and spec.unit is not None and spec.unit != condition.unit:
            return None
        if condition.above is not None:
            top = spec.maximum
            share = condition.share is not None and top is not None and top > 2 * condition.above
            limit = top * condition.share if share and top is not None and condition.share else condition.above
            return value >= limit
        if condition.below is not None:
            limit = spec.minimum if condition.limit and spec.minimum is not None else condition.below
            return value < limit
        return None if condition.holds is None else (value != 0) == condition.holds

    # Trends

    def _trends(self, devices: Sequence[DeviceView]) -> list[str]:
        if self.question.names:
            return self._named(devices, self._trend)
        said = [
            self._trend(device, field, reading)
            for device in devices
            for field, reading in list(device.readings.items())[:SHOWN_FIELDS]
            if reading.history
        ]
        return said or [self._say("state_nothing", device=self._name(devices[0]))]

    def _trend(self, device: DeviceView, field: str, reading: Reading) -> str:
        spec = _spec(device, field)
        trend = trend_of(reading, spec.minimum, spec.maximum)
        subject = self._subject(device, field)
        if trend is None:
            return self._say("state_no_trend", field=spoken(field), fact=self._fact(device, field, reading))
        span = duration_words(trend.span_s)
        last = with_unit(rounded(trend.last), spec.unit)
        if trend.direction == "steady":
            return self._say("state_steady", subject=subject, value=last, span=span)
        first = rounded(trend.first)
        return self._say("state_trend", subject=subject, trend=trend.direction, first=first, last=last, span=span)

    # Abilities

    def _capabilities(self, devices: Sequence[DeviceView]) -> list[str]:
        if len(devices) > 1:
            return [self._abilities_in_short(device) for device in devices]
        device = devices[0]
        profile = device.profile
        wanted = [profile.actions[name] for name in self.question.names if name in profile.actions]
        actions = wanted or [action for name, action in profile.actions.items() if name != SET_PARAMETER]
        if not actions and not profile.telemetry:
            return [self._say("state_can_nothing", device=self._name(device))]
        who = "I" if profile.device_id == self.view.speaker else self._name(device)
        said = []
        if actions:
            shown = [_first_words(action.description) or spoken(action.name) for action in actions[:SHOWN_ACTIONS]]
            more = [f"and {len(actions) - SHOWN_ACTIONS} more"] if len(actions) > SHOWN_ACTIONS else []
            said.append(self._say("state_can", who=who, actions="; ".join([*shown, *more])))
            examples = [quoted(action.examples[0], 60) for action in actions if action.examples]
            if examples:
                said.append(self._say("state_can_say", examples=listed(examples[:SHOWN_EXAMPLES], "or")))
        asked = [spoken(name) for name in profile.telemetry]
        if asked and not wanted:
            said.append(self._say("state_measures", who=who, fields=listed(asked[:SHOWN_FIELDS])))
        return said

    def _abilities_in_short(self, device: DeviceView) -> str:
        names = [spoken(name) for name in device.profile.actions if name != SET_PARAMETER]
        room = room_of(device.profile)
        name = name_of(device.profile)
        who = f"{name} in the {room}" if room else self._name(device)
        if not names:
            return self._say("state_can_nothing", device=who)
        more = [f"{len(names) - SHOWN_ACTIONS} more"] if len(names) > SHOWN_ACTIONS else []
        return self._say("state_can", who=who, actions=listed([*names[:SHOWN_ACTIONS], *more]))

    # Presence and activity

    def _presence(self, device: DeviceView) -> str:
        key = {True: "state_online", False: "state_offline", None: "state_presence_unknown"}[device.online]
        fields = [name for name in self.question.names if name in device.readings]
        where = [
            f"{self._subject(device, name)} is {reading_words(device.readings[name].value, _unit(device, name))}"
            for name in fields[:SHOWN_FIELDS]
        ]
        room = room_of(device.profile)
        is_known = bool(room) and device.online is True
        said = [self._say(f"{key}_in" if is_known else key, device=self._name(device), room=room)]
        if where:
            said.append(sentence(f"{listed(where)}{_when(device.readings[fields[0]])}"))
        return " ".join(said)

    def _activity(self, device: DeviceView) -> str:
        if device.running:
            actions = listed([spoken(name) for name in device.running[:SHOWN_ACTIONS]])
            return self._say("state_busy", device=self._name(device), actions=actions)
        moving = device.readings.get("moving")
        if moving is not None and moving.value:
            return self._fact(device, "moving", moving)
        idle = self._say("state_idle", device=self._name(device))
        return f"{idle} {self._fact(device, 'moving', moving)}" if moving is not None else idle

    # Parameters

    def _parameters(self, devices: Sequence[DeviceView]) -> list[str]:
        said = []
        for device in devices:
            declared = device.profile.parameters
            names = [name for name in self.question.names or declared if name in declared]
            said += [self._parameter(device, name) for name in names[:SHOWN_FIELDS]]
        field = spoken(self.question.names[0]) if self.question.names else "parameters"
        return said or [self._say("state_parameter_unknown", field=field, device=self._name(devices[0]))]

    def _parameter(self, device: DeviceView, name: str) -> str:
        spec, reading = device.profile.parameters[name], device.readings.get(name)
        if reading is None:
            said = self._say("state_parameter_unknown", field=spoken(name), device=self._name(device))
        else:
            value = value_words(reading.value, spec.unit)
            said = self._say("state_parameter", subject=self._subject(device, name), value=value, when=_when(reading))
        allowed = allowed_words(schema_of(spec))
        if not spec.writable or not allowed:
            return said
        return f"{said} {self._say('state_parameter_range', allowed=allowed)}"


def _spec(device: DeviceView, field: str) -> TelemetrySpec:
    return device.profile.telemetry.get(field, _NO_SPEC)


def _unit(device: DeviceView, field: str) -> str | None:
    return _spec(device, field).unit


def _when(reading: Reading) -> str:
    return f" as of {duration_words(reading.age_s)} ago" if reading.age_s > STALE_S else ""


def _first_words(description: str) -> str:
    """Return what a device says of a thing, as a part of a sentence; quoted where it tells something itself."""
    words = plain(description, 80).split(". ")[0].rstrip(".!? ")
    bare = words[:1].lower() + words[1:]
    return bare if is_name(bare, max_words=_MAX_SAID_WORDS) else quoted(words, 80)


@dataclass(frozen=True, slots=True)
class _Rank:
    """A field that an adjective may be said of, and how far its name is from what the adjective is about."""

    field: str
    distance: tuple[int, int]


def _rank(device: DeviceView, adjective: str, condition: Condition | None) -> _Rank | None:
    """Return the field that an adjective is said of: named so rather than described so, the plainest name first."""
    about = set(condition.about) if condition is not None else {adjective}
    wants_truth = condition is not None and condition.holds is not None
    found: list[_Rank] = []
    for field, reading in device.readings.items():
        if isinstance(reading.value, bool) != wants_truth or isinstance(reading.value, str):
            continue
        name = spoken(field).split()
        described = _WORD.findall(_spec(device, field).description.lower())
        if about & set(name):
            found.append(_Rank(field, (0, len(name))))
        elif about & set(described):
            found.append(_Rank(field, (1, len(name))))
    return min(found, key=lambda rank: rank.distance, default=None)
