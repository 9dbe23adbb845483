"""What a device declares, read and checked: a document becomes a profile or an error that names the path in it.

Unknown keys at the top and in a telemetry field are left out, so that newer devices can be understood; in an action and
in a parameter they are refused, so that no misspelt limit passes in silence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final, get_args

from naila.devices.declared_schema import MAX_UNIT_CHARS, check_clean, check_name, wrong
from naila.devices.schema import check_parameters
from naila.devices.schema_words import MAX_NUMBER, is_huge, value_words
from naila.errors import ContractError
from naila.events import JsonValue
from naila.fleet import (
    MAX_FIELDS,
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    SET_PARAMETER,
    STOP,
    ActionSpec,
    DeviceProfile,
    ParameterSpec,
    ParameterType,
    TelemetrySpec,
    is_clean,
    is_id,
)

MAX_ACTIONS: Final = 64
MAX_EXAMPLES: Final = 32
MAX_PARAMETERS: Final = 128
MAX_ENUM: Final = 64
MAX_DESCRIPTION_CHARS: Final = 500
MAX_EXAMPLE_CHARS: Final = 200
# Reading a device's examples takes time, and meanwhile nothing else is done.
MAX_ALL_EXAMPLES_CHARS: Final = 16_000
MIN_TTL_MS: Final = 100
MAX_TTL_MS: Final = 3_600_000
MAX_INTERVAL_MS: Final = 86_400_000

_TOP: Final = frozenset({"name", "description", "room", "actions", "telemetry", "parameters", "device_id"})
_ACTION: Final = frozenset(
    {"name", "description", "parameters", "confirm", "min_interval_ms", "ttl_ms", "group", "examples"}
)
_FIELD: Final = frozenset({"unit", "description", "minimum", "maximum"})
_PARAMETER: Final = frozenset({"type", "minimum", "maximum", "enum", "description", "unit", "writable"})
_KINDS: Final[tuple[ParameterType, ...]] = get_args(ParameterType)

Document = Mapping[str, JsonValue]


def read_profile(device_id: str, document: Document) -> DeviceProfile:
    """Return what a device declared.

    Args:
        device_id: whose document it is.
        document: the JSON object.

    Raises:
        ContractError: `bad_payload`; the message names the path: `capabilities: actions[2].ttl_ms: must be …`.
    """
    try:
        return _profile(device_id, document)
    except ContractError as exc:
        exc.device_id = exc.device_id or device_id
        raise


def unknown_keys(document: Document) -> tuple[str, ...]:
    """Return the paths of what `read_profile` leaves out of a document that it accepts."""
    found = [value_words(key) for key in document if key not in _TOP]
    fields = document.get("telemetry")
    for name, field in fields.items() if isinstance(fields, Mapping) else ():
        found += [f"telemetry.{value_words(name)}.{value_words(key)}" for key in field if key not in _FIELD]  # type: ignore[union-attr]
    return tuple(found)


def _profile(device_id: str, document: Document) -> DeviceProfile:
    top = "capabilities: "
    if document.get("device_id", device_id) != device_id:
        raise wrong(f"{top}device_id", f"differs from the topic's, which is {device_id}: leave it out")
    name = _line(document, "name", top, MAX_NAME_CHARS)
    if not name:
        raise wrong(f"{top}name", "is missing: what people call the device")
    parameters = dict(_parameters(document, f"{top}parameters"))
    return DeviceProfile(
        device_id=device_id,
        name=name,
        description=_line(document, "description", top, MAX_DESCRIPTION_CHARS),
        room=_line(document, "room", top, MAX_NAME_CHARS) or None,
        actions=_actions(document, parameters, f"{top}actions"),
        telemetry=dict(_telemetry(document, f"{top}telemetry")),
        parameters=parameters,
    )


def _actions(document: Document, parameters: Mapping[str, ParameterSpec], path: str) -> Mapping[str, ActionSpec]:
    declared = document.get("actions")
    if declared is None:
        raise wrong(path, "is missing: an empty array where it has none")
    if not isinstance(declared, list):
        raise wrong(path, "must be an array")
    if len(declared) > MAX_ACTIONS:
        raise wrong(path, f"has {len(declared)} entries, the limit is {MAX_ACTIONS}")
    actions: dict[str, ActionSpec] = {}
    for index, each in enumerate(declared):
        action = _action(each, f"{path}[{index}]")
        if action.name in actions:
            raise wrong(f"{path}[{index}].name", f"is {action.name}, which an earlier action has already")
        actions[action.name] = action
    said = sum(len(example) for action in actions.values() for example in action.examples)
    if said > MAX_ALL_EXAMPLES_CHARS:
        raise wrong(path, f"have {said} characters of examples in all, the limit is {MAX_ALL_EXAMPLES_CHARS}")
    writable = {name: spec for name, spec in parameters.items() if spec.writable}
    if writable:
        if SET_PARAMETER in actions:
            raise wrong(path, f"must not hold {SET_PARAMETER}: it is made of the writable parameters")
        actions[SET_PARAMETER] = _set_parameter(writable)
    return actions


def _action(declared: JsonValue, path: str) -> ActionSpec:
    fields = _object(declared, path)
    _only(fields, _ACTION, path)
    name = fields.get("name")
    if not isinstance(name, str) or not is_id(name):
        raise wrong(f"{path}.name", "must be 1 to 64 letters, digits, '_' or '-'")
    ttl_ms = fields.get("ttl_ms")
    action = ActionSpec(
        name=name,
        description=_line(fields, "description", f"{path}.", MAX_DESCRIPTION_CHARS),
        parameters=check_parameters(
            fields.get("parameters", {"type": "object", "properties": {}}), f"{path}.parameters"
        ),
        confirm=_flag(fields, "confirm", path),
        min_interval_ms=_whole(fields, "min_interval_ms", path, 0, MAX_INTERVAL_MS) or 0,
        ttl_ms=10_000 if ttl_ms is None else _whole(fields, "ttl_ms", path, MIN_TTL_MS, MAX_TTL_MS),
        group=_line(fields, "group", f"{path}.", MAX_NAME_CHARS) or None,
        examples=_examples(fields, f"{path}.examples"),
    )
    if name == STOP and (action.confirm or action.min_interval_ms or action.group or action.parameters.get("required")):
        raise wrong(path, f"{STOP} must not be held back: no confirm, min_interval_ms, group or required arguments")
    return action


def _set_parameter(writable: Mapping[str, ParameterSpec]) -> ActionSpec:
    alternatives: list[JsonValue] = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "value": value_schema(spec)},
            "required": ["name", "value"],
            "additionalProperties": False,
        }
        for name, spec in writable.items()
    ]
    return ActionSpec(
        name=SET_PARAMETER,
        description=f"Set a parameter: {', '.join(writable)}."[:MAX_DESCRIPTION_CHARS],
        parameters={"type": "object", "anyOf": alternatives},
    )


def value_schema(spec: ParameterSpec) -> dict[str, JsonValue]:
    """Return the JSON Schema of a parameter's value."""
    schema: dict[str, JsonValue] = {"type": spec.type}
    if spec.enum:
        schema["enum"] = list(spec.enum)
    elif spec.type == "string":
        schema["maxLength"] = MAX_TEXT_CHARS
    else:
        limits = {"minimum": spec.minimum, "maximum": spec.maximum}
        schema |= {keyword: limit for keyword, limit in limits.items() if limit is not None}
    texts = {"unit": spec.unit, "description": spec.description}
    return schema | {keyword: text for keyword, text in texts.items() if text}


def _telemetry(document: Document, path: str) -> Iterator[tuple[str, TelemetrySpec]]:
    for name, declared in _entries(document, "telemetry", path, MAX_FIELDS):
        where = f"{path}.{name}"
        fields = _object(declared, where)
        minimum, maximum = _limits(fields, where)
        yield (
            name,
            TelemetrySpec(
                unit=_line(fields, "unit", f"{where}.", MAX_UNIT_CHARS) or None,
                description=_line(fields, "description", f"{where}.", MAX_DESCRIPTION_CHARS),
                minimum=minimum,
                maximum=maximum,
            ),
        )


def _parameters(document: Document, path: str) -> Iterator[tuple[str, ParameterSpec]]:
    for name, declared in _entries(document, "parameters", path, MAX_PARAMETERS):
        where = f"{path}.{name}"
        fields = _object(declared, where)
        _only(fields, _PARAMETER, where)
        kind = next((each for each in _KINDS if each == fields.get("type")), None)
        if kind is None:
            raise wrong(f"{where}.type", f"must be {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")
        minimum, maximum = _limits(fields, where)
        if kind not in {"number", "integer"} and (minimum is not None or maximum is not None):
            raise wrong(f"{where}.{'maximum' if minimum is None else 'minimum'}", f"means nothing beside type {kind}")
        yield (
            name,
            ParameterSpec(
                type=kind,
                minimum=minimum,
                maximum=maximum,
                enum=_enum(fields, kind, minimum, maximum, where),
                description=_line(fields, "description", f"{where}.", MAX_DESCRIPTION_CHARS),
                unit=_line(fields, "unit", f"{where}.", MAX_UNIT_CHARS) or None,
                writable=_flag(fields, "writable", where),
            ),
        )


def _enum(
    fields: Document, kind: ParameterType, minimum: float | None, maximum: float | None, path: str
) -> tuple[JsonValue, ...]:
    values = fields.get("enum")
    if values is None:
        return ()
    if not isinstance(values, list) or not 0 < len(values) <= MAX_ENUM:
        raise wrong(f"{path}.enum", f"must be an array of 1 to {MAX_ENUM} values")
    for value in values:
        number = _number(value)
        fits = {
            "boolean": isinstance(value, bool),
            "string": isinstance(value, str) and len(value) <= MAX_TEXT_CHARS and is_clean(value),
            "number": number is not None,
            "integer": number is not None and number == int(number),
        }
        if not fits[kind]:
            raise wrong(f"{path}.enum", f"holds {value_words(value)}, which is no usable {kind}")
        low, high = -math.inf if minimum is None else minimum, math.inf if maximum is None else maximum
        if number is not None and not low <= number <= high:
            raise wrong(f"{path}.enum", f"holds {value_words(value)}, which is outside minimum and maximum")
    return tuple(values)


def _entries(document: Document, key: str, path: str, limit: int) -> Iterator[tuple[str, JsonValue]]:
    declared = document.get(key)
    entries = {} if declared is None else _object(declared, path)
    if len(entries) > limit:
        raise wrong(path, f"has {len(entries)} entries, the limit is {limit}")
    for name, value in entries.items():
        check_name(name, path)
        yield name, value


def _examples(fields: Document, path: str) -> tuple[str, ...]:
    examples = fields.get("examples")
    if examples is None:
        return ()
    if not isinstance(examples, list) or len(examples) > MAX_EXAMPLES:
        raise wrong(path, f"must be an array of at most {MAX_EXAMPLES} strings")
    for index, example in enumerate(examples):
        if not isinstance(example, str) or not example.strip() or len(example) > MAX_EXAMPLE_CHARS:
            raise wrong(f"{path}[{index}]", f"must be a string of 1 to {MAX_EXAMPLE_CHARS} characters")
        check_clean(example, f"{path}[{index}]")
    return tuple(" ".join(str(example).split()) for example in examples)


def _limits(fields: Document, path: str) -> tuple[float | None, float | None]:
    limits = [_number(fields.get(key)) for key in ("minimum", "maximum")]
    for key, limit in zip(("minimum", "maximum"), limits, strict=True):
        if limit is None and fields.get(key) is not None:
            raise wrong(f"{path}.{key}", f"must be a number from -{MAX_NUMBER} to {MAX_NUMBER}")
    low, high = limits
    if low is not None and high is not None and low > high:
        raise wrong(f"{path}.minimum", "is above maximum")
    return low, high


def _number(value: JsonValue) -> float | None:
    """Return a number that may be used as one, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or is_huge(value):
        return None
    return value


def _line(fields: Document, key: str, prefix: str, limit: int) -> str:
    """Return a text on one line, trimmed; empty if not there."""
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong(f"{prefix}{key}", "must be a string")
    line = " ".join(value.split())
    check_clean(line, f"{prefix}{key}")
    if len(line) > limit:
        raise wrong(f"{prefix}{key}", f"has {len(line)} characters, the limit is {limit}")
    return line


def _flag(fields: Document, key: str, path: str) -> bool:
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise wrong(f"{path}.{key}", "must be true or false")
    return value


def _whole(fields: Document, key: str, path: str, low: int, high: int) -> int:
    value = fields.get(key, low)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise wrong(f"{path}.{key}", f"must be a whole number of milliseconds from {low} to {high}")
    return value


def _object(value: JsonValue, path: str) -> Document:
    if not isinstance(value, dict):
        raise wrong(path, "must be an object")
    return value


def _only(fields: Document, known: frozenset[str], path: str) -> None:
    if unknown := sorted(fields.keys() - known):
        raise wrong(f"{path}.{value_words(unknown[0])}", f"is not known; known: {', '.join(sorted(known))}")
