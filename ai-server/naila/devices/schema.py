"""Arguments against the JSON Schema that a device declared for them: the only home of jsonschema.

What a device may declare is `naila.devices.declared_schema`. Beyond the schema, arguments are plain JSON, bounded in
size and depth, without a key that was not declared, and with finite numbers that every JSON parser reads exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry as References
from referencing.exceptions import Unresolvable

from naila.devices.declared_schema import CHOICES, MAX_STRING_CHARS, Schema, read_parameters, size_of, wrong
from naila.devices.schema_words import MAX_NUMBER, allowed_words, either, is_huge, value_words
from naila.events import JsonValue
from naila.fleet import is_clean

__all__ = ["Violation", "allowed_words", "check_parameters", "value_words", "violations"]

MAX_ARGUMENT_BYTES: Final = 16 * 1024
MAX_ARGUMENT_DEPTH: Final = 8
MAX_VIOLATIONS: Final = 8
MAX_PATH_CHARS: Final = 200

Code = Literal["bad_arguments", "out_of_range"]

_NOT_ALLOWED: Final = frozenset(
    {"enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """What is wrong with one argument.

    Attributes:
        argument: its name, with the place inside it where it has parts: `path[2].x`; empty for all of
            them together.
        code: `out_of_range` for a value of the right type that is not among the allowed ones, else `bad_arguments`.
        asked: what was asked for, in words: `10 m`; `nothing` where it is missing.
        allowed: what is allowed, in words: `0.05 to 3 m`, `forward or backward`.
        message: all of it in a sentence.
    """

    argument: str
    code: Code
    asked: str
    allowed: str
    message: str


def check_parameters(schema: JsonValue, path: str) -> dict[str, JsonValue]:
    """Return the schema of an action's arguments as it is enforced: `$ref` written out, every object closed.

    Args:
        schema: as declared.
        path: where it stands, for messages: `capabilities: actions[2].parameters`.

    Raises:
        ContractError: `bad_payload`: it is no schema of an object, holds what cannot be enforced, or a default that it
            does not allow; names the path.
    """
    checked = read_parameters(schema, path)
    _check_defaults(checked, path)
    return checked


def violations(schema: Schema, arguments: Mapping[str, JsonValue]) -> tuple[Violation, ...]:
    """Return what is wrong with the arguments of an action, at most `MAX_VIOLATIONS` things; nothing if they are fine.

    Args:
        schema: as `check_parameters` returned it.
        arguments: from wherever; need not even be JSON.
    """
    if not isinstance(arguments, Mapping):
        return (_bad("", value_words(arguments), "an object"),)
    try:
        plain = _plain(arguments, "", 0)
    except _UnfitError as unfit:
        return (unfit.violation,)
    if (size := size_of(plain)) > MAX_ARGUMENT_BYTES:
        return (_bad("", f"{size} bytes", f"at most {MAX_ARGUMENT_BYTES} bytes"),)
    found: dict[str, Violation] = {}
    try:
        for error in _VALIDATOR(schema, registry=References()).iter_errors(plain):
            for violation in _in_words(error):
                known = found.get(violation.argument)
                if known is None or (known.code == "out_of_range" and violation.code == "bad_arguments"):
                    found[violation.argument] = violation
    except Unresolvable:
        return (_bad("", "arguments", "none, since their schema refers to what is not there"),)
    return tuple(found.values())[:MAX_VIOLATIONS]


def _check_defaults(schema: JsonValue, path: str) -> None:
    """Refuse a default that the schema itself does not allow."""
    if isinstance(schema, list):
        for index, each in enumerate(schema):
            _check_defaults(each, f"{path}[{index}]")
    if not isinstance(schema, dict):
        return
    if "default" in schema:
        probe: Schema = {"type": "object", "properties": {"default": schema}}
        if found := violations(probe, {"default": schema["default"]}):
            raise wrong(f"{path}.default", f"must be {found[0].allowed}, not {found[0].asked}")
    properties = schema.get("properties")
    for name, each in properties.items() if isinstance(properties, dict) else ():
        _check_defaults(each, f"{path}.properties.{name}")
    for keyword in ("items", *CHOICES):
        _check_defaults(schema.get(keyword), f"{path}.{keyword}")


def _multiple_of(_validator: Any, step: float, value: Any, _schema: Any) -> Iterator[ValidationError]:
    """Hold to `multipleOf` as people mean it: 0.3 is a multiple of 0.1, whatever binary fractions say."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    steps = value / step
    if not math.isfinite(steps) or abs(steps - round(steps)) > 1e-9 * max(1.0, abs(steps)):
        yield ValidationError(f"{value} is not a multiple of {step}")


_VALIDATOR: Final[Any] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"multipleOf": _multiple_of}
)


class _UnfitError(Exception):
    """A value is no JSON that may be sent."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.message)
        self.violation = violation


def _plain(value: object, path: str, depth: int) -> JsonValue:
    """Return a copy of plain dicts and lists, which is all that the validator knows."""
    if depth > MAX_ARGUMENT_DEPTH:
        raise _UnfitError(_bad(path, "a value nested too deeply", f"at most {MAX_ARGUMENT_DEPTH} levels"))
    if isinstance(value, Mapping):
        return {
            _plain_key(key, path): _plain(item, f"{path}.{key}" if path else str(key), depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _plain_number(value, path)
    if isinstance(value, str):
        return _plain_text(value, path)
    raise _UnfitError(_bad(path, f"a {type(value).__name__}", "a JSON value"))


def _plain_key(key: object, path: str) -> str:
    if not isinstance(key, str) or len(key) > MAX_STRING_CHARS or not is_clean(key):
        raise _UnfitError(_bad(path, f"the name {value_words(key)}", "names without control characters"))
    return key


def _plain_number(value: float, path: str) -> float:
    if isinstance(value, float) and not math.isfinite(value):
        raise _UnfitError(_bad(path, str(value), "a finite number"))
    if is_huge(value):
        allowed = f"-{MAX_NUMBER} to {MAX_NUMBER}"
        raise _UnfitError(_violation(path, "out_of_range", "a number too large to be exact", allowed))
    return value


def _plain_text(value: str, path: str) -> str:
    if len(value) > MAX_STRING_CHARS:
        raise _UnfitError(_bad(path, f"{len(value)} characters", f"at most {MAX_STRING_CHARS} characters"))
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise _UnfitError(_bad(path, "text with NUL or half a surrogate pair", "text"))
    return value


def _in_words(error: ValidationError) -> Iterator[Violation]:
    """Turn one error of the library into what a person is told."""
    path, value = _path(error.absolute_path), _instance(error)
    schema: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    match error.validator:
        case "required":
            yield from _missing(schema, value, path)
        case "additionalProperties":
            yield from _undeclared(schema, value, path)
        case "anyOf" | "oneOf":
            yield from _of_alternatives(error, schema, path)
        case keyword:
            code: Code = "out_of_range" if keyword in _NOT_ALLOWED else "bad_arguments"
            whole = "a whole number, " if keyword == "type" and schema.get("type") == "integer" else ""
            yield _violation(path, code, value_words(value, schema.get("unit")), f"{whole}{allowed_words(schema)}")


def _instance(error: ValidationError) -> Any:
    return error.instance


def _missing(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[Violation]:
    for name in schema["required"]:
        if name not in value:
            where = f"{path}.{name}" if path else name
            allowed = allowed_words(schema.get("properties", {}).get(name))
            message = f"{where} is missing: it must be {allowed}"
            yield Violation(argument=where, code="bad_arguments", asked="nothing", allowed=allowed, message=message)


def _undeclared(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[Violation]:
    declared = list(schema.get("properties", {}))
    among = either(declared, "and") if declared else "none"
    for name in value.keys() - declared:
        where = value_words(f"{path}.{name}" if path else name)
        yield Violation(
            argument=where,
            code="bad_arguments",
            asked=value_words(value[name]),
            allowed=among,
            message=f"{where} is not declared; declared: {among}",
        )


def _of_alternatives(error: ValidationError, schema: dict[str, Any], path: str) -> Iterator[Violation]:
    """Tell what is wrong by the alternative that was most likely meant."""
    branches: dict[Any, list[ValidationError]] = {}
    for each in error.context or ():
        branches.setdefault(each.schema_path[0], []).append(each)
    names = [[each for each in errors if each.validator == "const"] for errors in branches.values()]
    if branches and all(names) and len({_path(each[0].absolute_path) for each in names}) == 1:
        # No alternative has this name: what is wrong with the rest depends on it.
        first, among = names[0][0], either(value_words(each[0].validator_value) for each in names)
        yield _violation(_path(first.absolute_path), "out_of_range", value_words(first.instance), among)
        return
    likely = [errors for errors, constants in zip(branches.values(), names, strict=True) if not constants]
    if likely and (len(likely) == 1 or isinstance(error.instance, dict)):
        for each in min(likely, key=len):
            yield from _in_words(each)
        return
    fits = any(all(each.validator != "type" for each in errors) for errors in branches.values())
    asked = value_words(error.instance, schema.get("unit"))
    yield _violation(path, "out_of_range" if fits else "bad_arguments", asked, allowed_words(schema))


def _path(steps: Sequence[str | int]) -> str:
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _violation(argument: str, code: Code, asked: str, allowed: str) -> Violation:
    where = argument if len(argument) <= MAX_PATH_CHARS else value_words(argument)
    message = f"{where or 'the arguments'} must be {allowed}, not {asked}"
    return Violation(argument=where, code=code, asked=asked, allowed=allowed, message=message)


def _bad(argument: str, asked: str, allowed: str) -> Violation:
    return _violation(argument, "bad_arguments", asked, allowed)
