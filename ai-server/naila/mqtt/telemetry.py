"""Reading telemetry: a flat object whose wrong fields are named."""

from __future__ import annotations

import re
from collections.abc import Mapping

from naila.errors import ContractError
from naila.events import JsonValue
from naila.fleet import MAX_FIELDS, MAX_NAME_CHARS, MAX_TEXT_CHARS, is_clean

NAMED_FLAWS = 5

# Every control character but tab and newline: readings are shown in terminals.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def read_values(values: Mapping[str, JsonValue]) -> dict[str, float | int | bool | str]:
    """Return the readings; a `null` is an absent one.

    Raises:
        ContractError: `bad_payload`: too many fields, or some break the rule; the first of these are named.
    """
    if len(values) > MAX_FIELDS:
        raise ContractError("bad_payload", f"telemetry has {len(values)} fields, the limit is {MAX_FIELDS}")
    readings: dict[str, float | int | bool | str] = {}
    flaws: list[str] = []
    for name, value in values.items():
        flaw = _name_flaw(name)
        if flaw is None and isinstance(value, bool | int | float | str):
            flaw = _text_flaw(value) if isinstance(value, str) else None
            readings[name] = value
        elif flaw is None and value is not None:
            flaw = "must be a number, true, false or a string: telemetry is flat"
        if flaw is not None:
            flaws.append(f"{_shown(name)} {flaw}")
    if flaws:
        more = f"; and {len(flaws) - NAMED_FLAWS} more" if len(flaws) > NAMED_FLAWS else ""
        raise ContractError("bad_payload", "; ".join(flaws[:NAMED_FLAWS]) + more)
    return readings


def _name_flaw(name: str) -> str | None:
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        return f"is no name of a field: it must have 1 to {MAX_NAME_CHARS} characters"
    return None if is_clean(name) else "is no name of a field: it holds a control character, or an invisible one"


def _text_flaw(text: str) -> str | None:
    if len(text) > MAX_TEXT_CHARS:
        return f"has {len(text)} characters, the limit is {MAX_TEXT_CHARS}"
    if match := _CONTROL.search(text):
        return f"holds the control character U+{ord(match[0]):04X}"
    return None


def _shown(name: str) -> str:
    quoted = ascii(name)
    return quoted if len(quoted) <= MAX_NAME_CHARS else f"{quoted[:40]}… ({len(name)} characters)"
