"""Reading the fields of a JSON object by their rules; a wrong one is named with what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from naila.errors import ContractError
from naila.events import JsonValue
from naila.fleet import ID_RULE, is_id

T = TypeVar("T")

# NUL and the C0 controls other than tab, newline and carriage return.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def check_text(text: str, name: str) -> str:
    """Return `text` if a person could have said it.

    Raises:
        ContractError: `bad_payload`: blank, or holds control characters.
    """
    if not text.strip():
        raise ContractError("bad_payload", f"{name} must not be blank")
    if match := _CONTROL.search(text):
        raise ContractError(
            "bad_payload", f"{name} holds the control character U+{ord(match[0]):04X} at character {match.start()}"
        )
    return text


class Fields:
    """The fields of one object. A `null` is an absent field; unknown fields are nobody's business.

    Args:
        values: the object.
        path: where the object stands, for messages; empty at the top.
    """

    def __init__(self, values: Mapping[str, JsonValue], path: str = "") -> None:
        self.values = values
        self._path = path

    def wrong(self, name: str, rule: str) -> ContractError:
        """Return the refusal of a field."""
        return ContractError("bad_payload", f"{self._path}{name} {rule}")

    def optional_string(self, name: str) -> str | None:
        """Return a string, if there."""
        return self._typed(name, str, "must be a string")

    def string(self, name: str) -> str:
        """Return a string that must be there."""
        return self._required(name, self.optional_string(name))

    def optional_id(self, name: str) -> str | None:
        """Return an id, if there."""
        value = self.optional_string(name)
        if value is not None and not is_id(value):
            raise self.wrong(name, f"must be 1 to 64 letters, digits, '_' or '-' ({ID_RULE})")
        return value

    def id(self, name: str) -> str:
        """Return an id that must be there."""
        return self._required(name, self.optional_id(name))

    def optional_flag(self, name: str) -> bool | None:
        """Return a boolean, if there."""
        return self._typed(name, bool, "must be true or false")

    def flag(self, name: str) -> bool:
        """Return a boolean that must be there."""
        return self._required(name, self.optional_flag(name))

    def optional_integer(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number from `low` to `high`, if there; true is no number."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"must be a whole number from {low} to {high}")
        return value

    def integer(self, name: str, low: int = 0, high: int = 2**63 - 1) -> int:
        """Return a whole number that must be there."""
        return self._required(name, self.optional_integer(name, low, high))

    def optional_number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """Return a number from `low` to `high`, if there; true is no number."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            limits = "" if math.isinf(high) else f" from {low:g} to {high:g}"
            raise self.wrong(name, f"must be a number{limits}")
        return float(value)

    def number(self, name: str) -> float:
        """Return a number that must be there."""
        return self._required(name, self.optional_number(name))

    def object(self, name: str) -> dict[str, JsonValue]:
        """Return an object, empty if not there."""
        return self._typed(name, dict, "must be an object") or {}

    def fields(self, name: str) -> Fields:
        """Return the fields of an object within this one, none if not there."""
        return Fields(self.object(name), f"{self._path}{name}.")

    def each(self, name: str) -> Sequence[Fields]:
        """Return the fields of every object in an array, none if not there."""
        items = self._typed(name, list, "must be an array") or []
        for index, item in enumerate(items):
            if not isinstance(item, dict):
                raise self.wrong(f"{name}[{index}]", "must be an object")
        return [Fields(item, f"{self._path}{name}[{index}].") for index, item in enumerate(items)]

    def choice(self, name: str, literal: Any) -> Any:
        """Return one of the strings of a `Literal`."""
        value, allowed = self.string(name), get_args(literal)
        if value not in allowed:
            raise self.wrong(name, f"must be one of {', '.join(allowed)}")
        return value

    def without(self, *names: str) -> dict[str, JsonValue]:
        """Return every field but these."""
        return {key: value for key, value in self.values.items() if key not in names}

    def _typed(self, name: str, kind: type[T], rule: str) -> T | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, kind):
            raise self.wrong(name, rule)
        return value

    def _required(self, name: str, value: T | None) -> T:
        if value is None:
            raise self.wrong(name, "is missing")
        return value
