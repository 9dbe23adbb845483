"""Strict JSON: what `json.loads` lets through and a robot should not.

Refused with a `ContractError` that says what and where: non-UTF-8, anything but an object at the top, NaN, Infinity
and numbers that overflow, duplicate keys, lone surrogates, integers beyond 64 bits, deep nesting, excessive size.
Nothing else is ever raised, whatever the bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NoReturn

from naila.errors import ContractError
from naila.events import JsonValue

MAX_DEPTH = 32

# A string (consumed whole, closed or not, without backtracking) or one bracket.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.|\\\Z)*+"?|[\[\]{}]', re.DOTALL)

_SURROGATE = re.compile("[\ud800-\udfff]")


class _Flaw:
    """Stands in the parsed tree where a value cannot be taken, so that its key path can be told."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def decode_text(payload: bytes, *, max_bytes: int) -> str:
    """Return the payload as text, without a byte order mark.

    Raises:
        ContractError: `too_large`, or `bad_payload` for what is not UTF-8.
    """
    if len(payload) > max_bytes:
        raise ContractError("too_large", f"the payload has {len(payload)} bytes, the limit is {max_bytes}")
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ContractError("bad_payload", f"the payload is not UTF-8 (byte {exc.start})") from exc


def loads(text: str) -> dict[str, JsonValue]:
    """Return the object that `text` holds.

    Raises:
        ContractError: `bad_payload`, with the key path or the position.
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        _refuse_depth(text)
        _refuse("nested too deep")
    except json.JSONDecodeError as exc:
        _refuse(f"not valid JSON: {exc.msg} at line {exc.lineno} column {exc.colno}")
    if isinstance(value, _Flaw):
        _refuse(value.reason)
    if not isinstance(value, dict):
        _refuse(f"the payload must be a JSON object, got {_kind(value)}")
    if not _is_clean(value):
        _refuse_depth(text)
        for path, reason in _flaws(value, ""):
            _refuse(f"{path}: {reason}" if path else reason)
    return value


def dumps(value: Mapping[str, object]) -> bytes:
    """Return compact UTF-8 JSON.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _refuse(message: str) -> NoReturn:
    raise ContractError("bad_payload", message)


def _is_clean(value: dict[str, Any]) -> bool:
    """Whether there is nothing to refuse: one quick look at everything, since a flood may be made of this."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for container in level:
            for item in chain(container, container.values()) if type(container) is dict else container:
                kind = type(item)
                if kind is list or kind is dict:
                    deeper.append(item)
                elif kind is _Flaw or (kind is str and not _encodes(item)):
                    return False
        if not deeper:
            return True
        level = deeper
    return False


def _refuse_depth(text: str) -> None:
    """Refuse what is nested too deep, with the place. To look for that costs more than to parse."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                _refuse(f"nested deeper than {MAX_DEPTH} levels at character {match.start()}")
        elif bracket in "]}":
            depth -= 1


def _integer(literal: str) -> int | _Flaw:
    if len(literal) <= 20 and -(2**63) <= (value := int(literal)) < 2**63:
        return value
    return _Flaw(f"the integer {_short(literal)} does not fit in 64 bits")


def _number(literal: str) -> float | _Flaw:
    value = float(literal)
    return value if math.isfinite(value) else _Flaw(f"the number {_short(literal)} is not finite")


def _constant(literal: str) -> _Flaw:
    return _Flaw(f"{literal} is not a finite number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        result[key] = _Flaw("the key stands there twice") if key in result else value
    return result


def _flaws(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, _Flaw):
        yield path, value.reason
    elif isinstance(value, str):
        if not _encodes(value):
            yield path, "holds half a surrogate pair, which is no character"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not _encodes(key):
                yield path, "a key holds half a surrogate pair, which is no character"
            yield from _flaws(item, f"{path}.{_short(key)}" if path else _short(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flaws(item, f"{path}[{index}]")


def _encodes(text: str) -> bool:
    return text.isascii() or _SURROGATE.search(text) is None


def _short(text: str) -> str:
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    return text if len(text) <= 40 else f"{text[:30]}… ({len(text)} characters)"


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
)
