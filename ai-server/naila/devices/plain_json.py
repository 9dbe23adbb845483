"""Values of anybody's making turned into plain JSON of bounded size, and words of anybody's making into one line."""

from __future__ import annotations

import json
import math
import re
from typing import Final

from naila.events import JsonValue
from naila.fleet import is_name, on_one_line

_MAX_DEPTH: Final = 16
_MAX_NODES: Final = 2_000
_MAX_INTEGER: Final = 2**63
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")
_INNER_QUOTES = {0x201C: 0x27, 0x201D: 0x27}


def canonical(value: object, path: str, *, max_bytes: int) -> str:
    """Return the one JSON text of a value; equal texts mean equal values, of equal types.

    Args:
        value: anything.
        path: what to call it in messages.
        max_bytes: bound on the text.

    Raises:
        ValueError: it is not plain JSON, or too big; the message begins with the path of what is wrong.
    """
    _check(value, path, max_bytes)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    if len(text.encode()) > max_bytes:
        raise ValueError(f"{path}: {len(text.encode())} bytes, the limit is {max_bytes}")
    return text


def shown(text: object, length: int = 120) -> str:
    """Return somebody else's words as one line without tricks, at most `length` characters."""
    words = on_one_line(str(text)[: 4 * length])
    return words if len(words) <= length else f"{words[: length - 1]}…"


def named(text: object, length: int = 64) -> str:
    """Return what somebody else calls a thing: bare where it is a name, quoted where it tells something."""
    words = shown(text, length)
    return words if is_name(words) else f"\u201c{words.translate(_INNER_QUOTES)}\u201d"


def _check(value: object, path: str, max_bytes: int) -> None:
    """Walk through it without recursion: depth, number of values and each length have a bound before it is written."""
    waiting: list[tuple[object, str, int]] = [(value, path, 0)]
    nodes = 0
    while waiting:
        item, where, depth = waiting.pop()
        nodes += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"{where}: nested deeper than {_MAX_DEPTH} levels")
        if nodes > _MAX_NODES:
            raise ValueError(f"{path}: more than {_MAX_NODES} values")
        kind = type(item)
        if kind is dict:
            assert isinstance(item, dict)  # noqa: S101 - for mypy; the exact type was asked for
            if len(item) > _MAX_NODES:
                raise ValueError(f"{where}: more than {_MAX_NODES} values")
            for key, inner in item.items():
                if type(key) is not str:
                    raise ValueError(f"{where}: a key is a {type(key).__name__}, no string")
                _check_text(key, where, max_bytes)
                waiting.append((inner, f"{where}.{shown(key, 40)}", depth + 1))
        elif kind is list or kind is tuple:
            assert isinstance(item, list | tuple)  # noqa: S101 - as above
            if len(item) > _MAX_NODES:
                raise ValueError(f"{where}: more than {_MAX_NODES} values")
            waiting.extend((inner, f"{where}[{index}]", depth + 1) for index, inner in enumerate(item))
        else:
            _check_scalar(item, where, max_bytes)


def _check_scalar(item: object, where: str, max_bytes: int) -> None:
    # Exact types only: a subclass may be one thing when it is checked and another when it is written.
    if item is None or type(item) is bool:
        return
    if type(item) is str:
        _check_text(item, where, max_bytes)
    elif type(item) is int:
        if not -_MAX_INTEGER <= item < _MAX_INTEGER:
            raise ValueError(f"{where}: an integer beyond 64 bits")
    elif type(item) is float:
        if not math.isfinite(item):
            raise ValueError(f"{where}: {item} is not a finite number")
    else:
        raise ValueError(f"{where}: {type(item).__name__} is not a type of JSON")


def _check_text(text: str, where: str, max_bytes: int) -> None:
    if len(text) > max_bytes:
        raise ValueError(f"{where}: {len(text)} characters, the limit is {max_bytes} bytes")
    if _HALF_PAIR.search(text):
        raise ValueError(f"{where}: half of a surrogate pair")


def parsed(text: str) -> JsonValue:
    """Return the value of a text that `canonical` wrote."""
    value: JsonValue = json.loads(text)
    return value
