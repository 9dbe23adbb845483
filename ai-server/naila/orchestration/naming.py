"""Devices, actions, values and times in words.

What devices and people wrote is data: shown on one line, bounded, without characters that control anything.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

from naila.events import JsonValue
from naila.fleet import SET_PARAMETER, ActionSpec, DeviceProfile, FleetView, ParameterSpec, ReadingValue, is_name

NAME_CHARS: Final = 64
WORDS_CHARS: Final = 160
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
TIMES: Final = frozenset({"times", "count", "repetitions", "repeats"})
_OFTEN: Final = {1: "once", 2: "twice"}


def plain(text: str, limit: int = WORDS_CHARS) -> str:
    """Return foreign text on one line of bounded length, without control, format or private characters."""
    visible = "".join(
        " " if char.isspace() else char
        for char in text[: 4 * limit]
        if char.isspace() or unicodedata.category(char)[0] != "C"
    )
    line = " ".join(visible.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def quoted(text: str, limit: int = WORDS_CHARS) -> str:
    """Return foreign text between quotation marks that it cannot close."""
    return f"“{plain(text, limit).translate({0x201C: 0x27, 0x201D: 0x27})}”"


def named(text: str, limit: int = NAME_CHARS) -> str:
    """Return what somebody else chose to call a thing: bare where it is a name, quoted where it tells something."""
    words = plain(text, limit)
    return words if is_name(words) else quoted(words, limit)


def spoken(identifier: str) -> str:
    """Return an identifier as it is said: `go_to` is "go to"."""
    return named(_CAMEL.sub(" ", identifier).replace("_", " ").replace("-", " ")).lower()


def sentence(text: str) -> str:
    """Return words as a sentence."""
    words = text.strip()
    if not words:
        return ""
    return words[0].upper() + words[1:] + ("" if words[-1] in ".!?…" else ".")


def listed(words: Sequence[str], last: str = "and") -> str:
    """Return words as a list in a sentence."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def exact(value: float) -> str:
    """Return a number without zeros that say nothing."""
    if isinstance(value, int):
        return str(value) if abs(value) < 10**15 else f"{value:.3g}"
    if not math.isfinite(value) or (value != 0 and not 1e-4 <= abs(value) < 1e15):
        return f"{value:.3g}"
    return f"{value:.4f}".rstrip("0").rstrip(".")


def rounded(value: float) -> str:
    """Return a measured number with as many digits as a person wants to hear."""
    if isinstance(value, int) or not math.isfinite(value):
        return exact(value)
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return exact(round(value, digits))


def with_unit(number: str, unit: str | None) -> str:
    """Return a number with its unit as declared."""
    unit = named(unit or "", 16)
    return f"{number}{'' if unit in {'', '%', '°'} else ' '}{unit}"


def value_words(value: JsonValue, unit: str | None = None) -> str:
    """Return any value as it is said."""
    match value:
        case bool():
            return "on" if value else "off"
        case int() | float():
            return with_unit(exact(value), unit)
        case str():
            return named(value, WORDS_CHARS)
        case None:
            return "nothing"
    return named(raw_words(value), WORDS_CHARS)


def raw_words(value: JsonValue) -> str:
    """Return any value for a quotation: as it is, but bounded."""
    if isinstance(value, str | dict | list):
        return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
    return value_words(value)


def reading_words(value: ReadingValue, unit: str | None = None) -> str:
    """Return what was measured as it is said."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return quoted(value, 80)
    return with_unit(rounded(value), unit)


def span_words(minimum: float | None, maximum: float | None, unit: str | None) -> str:
    """Return a range as it is said: `0.05 to 3 m`."""
    if minimum is not None and maximum is not None:
        return f"{exact(minimum)} to {with_unit(exact(maximum), unit)}"
    if minimum is not None:
        return f"at least {with_unit(exact(minimum), unit)}"
    return f"at most {with_unit(exact(maximum), unit)}" if maximum is not None else ""


def duration_words(seconds: float) -> str:
    """Return a time span as it is said."""
    for name, size, limit in (("second", 1, 90), ("minute", 60, 90), ("hour", 3600, 48)):
        count = max(1, round(seconds / size))
        if count < limit:
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{max(2, round(seconds / 86_400))} days"


def device_name(view: FleetView, device_id: str) -> str:
    """Return what people call a device; with its room where two are called the same."""
    found = view.device(device_id)
    if found is None:
        return plain(device_id, NAME_CHARS)
    name = name_of(found.profile)
    twins = [other for other in view.devices if name_of(other.profile).lower() == name.lower()]
    return f"{name} ({room_of(found.profile) or plain(device_id, NAME_CHARS)})" if len(twins) > 1 else name


def name_of(profile: DeviceProfile) -> str:
    """Return the name that a device gave itself, else its id."""
    return named(profile.name) or plain(profile.device_id, NAME_CHARS)


def room_of(profile: DeviceProfile) -> str:
    """Return the room that a device says it is in, if it does."""
    return named(profile.room or "")


def spec_of(view: FleetView, device_id: str | None, action: str | None) -> ActionSpec | None:
    """Return a declared action."""
    found = view.device(device_id) if device_id is not None else None
    return found.profile.actions.get(action) if found is not None and action is not None else None


def parameter_of(view: FleetView, device_id: str | None, name: object) -> ParameterSpec | None:
    """Return a declared parameter."""
    found = view.device(device_id) if device_id is not None else None
    return found.profile.parameters.get(name) if found is not None and isinstance(name, str) else None


def schema_of(parameter: ParameterSpec) -> dict[str, JsonValue]:
    """Return the JSON Schema of a parameter's value, with its unit."""
    stated: dict[str, JsonValue] = {
        "minimum": parameter.minimum,
        "maximum": parameter.maximum,
        "enum": list(parameter.enum) or None,
        "unit": parameter.unit,
    }
    return {"type": parameter.type, **{key: value for key, value in stated.items() if value is not None}}


def properties_of(spec: ActionSpec | None) -> dict[str, Mapping[str, JsonValue]]:
    """Return the arguments that an action declares, by name."""
    declared = spec.parameters.get("properties") if spec is not None else None
    if not isinstance(declared, Mapping):
        return {}
    return {name: schema for name, schema in declared.items() if isinstance(schema, Mapping)}


def required_of(spec: ActionSpec | None) -> tuple[str, ...]:
    """Return the arguments that an action cannot do without."""
    declared = spec.parameters.get("required") if spec is not None else None
    return tuple(name for name in declared if isinstance(name, str)) if isinstance(declared, list) else ()


def text_of(schema: Mapping[str, JsonValue], key: str) -> str:
    """Return a schema's annotation of a name, where it is text."""
    value = schema.get(key)
    return value if isinstance(value, str) else ""


def bound_of(schema: Mapping[str, JsonValue], *keys: str) -> float | None:
    """Return the first of these bounds that a schema states."""
    for key in keys:
        value = schema.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
    return None


def allowed_words(schema: Mapping[str, JsonValue]) -> str:
    """Return what an argument may be, in words; nothing where everything may."""
    values = schema.get("enum")
    if isinstance(values, list) and values:
        return listed([value_words(value) for value in values[:20]], "or")
    if schema.get("type") == "boolean":
        return "on or off"
    lowest = bound_of(schema, "minimum", "exclusiveMinimum")
    return span_words(lowest, bound_of(schema, "maximum", "exclusiveMaximum"), text_of(schema, "unit"))


def deed(view: FleetView, device_id: str, action: str, arguments: Mapping[str, JsonValue]) -> str:
    """Return what is to be done, exactly, in words: `drive forward 0.5 m`."""
    if action == SET_PARAMETER:
        return _setting(view, device_id, arguments)
    spec = spec_of(view, device_id, action)
    schemas = properties_of(spec)
    units = [text_of(schema, "unit") for name, schema in schemas.items() if name in arguments]
    bare: list[str] = []
    labelled: list[str] = []
    for name in [
        *(known for known in schemas if known in arguments),
        *(new for new in arguments if new not in schemas),
    ]:
        value, schema = arguments[name], schemas.get(name, {})
        unit = text_of(schema, "unit")
        if isinstance(value, str) and isinstance(schema.get("enum"), list):
            bare.insert(0, named(value, WORDS_CHARS))
        elif _is_number(value) and name in TIMES and not unit:
            often = _OFTEN.get(value) if isinstance(value, int) else None
            bare.append(often or f"{value_words(value)} times")
        elif _is_number(value) and unit and name in required_of(spec) and units.count(unit) == 1:
            bare.append(value_words(value, unit))
        elif isinstance(value, str):
            labelled.append(f"{spoken(name)} {quoted(value)}")
        else:
            labelled.append(f"{spoken(name)} {value_words(value, unit)}")
    return ", ".join([" ".join([spoken(action), *bare]), *labelled])


def _setting(view: FleetView, device_id: str, arguments: Mapping[str, JsonValue]) -> str:
    name, value = arguments.get("name"), arguments.get("value")
    parameter = parameter_of(view, device_id, name)
    said = spoken(name) if isinstance(name, str) else value_words(name)
    if isinstance(value, bool):
        return f"switch {said} {value_words(value)}"
    return f"set {said} to {value_words(value, parameter.unit if parameter is not None else None)}"


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
