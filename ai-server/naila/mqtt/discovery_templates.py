"""Templates that Home Assistant evaluates. What a device wrote gets into one as inert escapes, or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

# Stands in a document where the value that a person sets belongs.
VALUE: Final = object()
# What it becomes: its JSON where it may be any text, itself where it is a number.
ANY_TEXT: Final = "{{ value | to_json }}"
A_NUMBER: Final = "{{ value }}"

_HARMLESS: Final = re.compile(r"[A-Za-z0-9 _.:-]")
# A device's status is a word, or an object with one; only `offline` means that it is not there.
DEVICE_AVAILABLE: Final = (
    "{% set word = value_json.status if value_json is defined and value_json is mapping else value | trim %}"
    "{{ 'online' if word and word != 'offline' else 'offline' }}"
)
BRAIN_AVAILABLE: Final = "{{ 'online' if value in ('online', 'degraded') else 'offline' }}"
BRAIN_CONNECTED: Final = "{{ 'ON' if value in ('online', 'degraded') else 'OFF' }}"
BRAIN_HEALTH: Final = (
    "{{ {'version': value_json.version, 'phase': value_json.phase, 'components': value_json.components} | to_json }}"
)
REPLY_TEXT: Final = "{{ value_json.text[:255] }}"
REPLY_DETAILS: Final = (
    "{{ {'text': value_json.text, 'intent': value_json.intent, 'source': value_json.source, "
    "'degraded': value_json.degraded} | to_json }}"
)
ALERT_TEXT: Final = "{{ value_json.message[:255] }}"


def number_of(field: str) -> str:
    """Return a template that shows a number of a telemetry message; what is none changes nothing."""
    value = f"value_json['{_escaped(field)}']"
    return f"{{% if {value} is number and {value} is not boolean %}}{{{{ {value} }}}}{{% endif %}}"


def flag_of(field: str) -> str:
    """Return a template that shows a boolean of a telemetry message as ON or OFF."""
    value = f"value_json['{_escaped(field)}']"
    return f"{{% if {value} is boolean %}}{{{{ 'ON' if {value} else 'OFF' }}}}{{% endif %}}"


def text_of(field: str) -> str:
    """Return a template that shows a text of a telemetry message; a message without it changes nothing."""
    value = f"value_json['{_escaped(field)}']"
    return f"{{{{ {value}[:255] if {value} is string else this.state }}}}"


def json_with(document: Mapping[str, object], value: str) -> str:
    """Return a document as a template in which `value` stands in the place of `VALUE`.

    Everything else in it is escaped, so that no text in it can be read as a part of the template.
    """
    return _json(document, value)


def _json(part: object, value: str) -> str:
    if part is VALUE:
        return value
    if isinstance(part, str):
        return f'"{_escaped(part, utf16=True)}"'
    if isinstance(part, Mapping):
        return "{" + ",".join(f"{_json(key, value)}:{_json(each, value)}" for key, each in part.items()) + "}"
    return json.dumps(part, allow_nan=False)


def _escaped(text: str, *, utf16: bool = False) -> str:
    """Return text with all but the plainest characters as escapes, as both JSON (UTF-16) and Jinja read them."""
    return "".join(char if _HARMLESS.fullmatch(char) else _escape(char, utf16=utf16) for char in text)


def _escape(char: str, *, utf16: bool) -> str:
    if ord(char) <= 0xFFFF:
        return f"\\u{ord(char):04x}"
    if not utf16:
        return f"\\U{ord(char):08x}"
    above = ord(char) - 0x10000
    return f"\\u{0xD800 + (above >> 10):04x}\\u{0xDC00 + (above & 0x3FF):04x}"
