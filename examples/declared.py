"""What a device declared, as it reads it itself: the brain checks every argument, and a robot checks once more."""

from __future__ import annotations

from typing import Any

KINDS: dict[str, tuple[type, ...]] = {
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "string": (str,),
}


class Failed(Exception):  # noqa: N818 - it is what the device answers, not an error of the program
    """An action was not done, or not all of it.

    Attributes:
        result: how far it came, where that can be said.
    """

    def __init__(self, why: str, result: Any = None) -> None:
        super().__init__(why)
        self.result = result


def problem(action: dict[str, Any], arguments: dict[str, Any]) -> str | None:
    """Return why the arguments of an action are not as declared, or None."""
    properties = action["parameters"].get("properties", {})
    for name in action["parameters"].get("required", []):
        if name not in arguments:
            return f"{name} is missing"
    for name, value in arguments.items():
        if name not in properties:
            return f"{name} is not an argument of {action['name']}"
        if wrong := problem_of_value(name, properties[name], value):
            return wrong
    return None


def problem_of_parameter(document: dict[str, Any], name: str, value: Any) -> str | None:
    """Return why a parameter cannot be set to a value, or None."""
    parameter = document.get("parameters", {}).get(name)
    if parameter is None or not parameter.get("writable", False):
        return f"{name} cannot be set"
    return problem_of_value(name, parameter, value)


def problem_of_value(name: str, rule: dict[str, Any], value: Any) -> str | None:
    """Return why a value breaks its rule, or None."""
    kinds = KINDS[rule["type"]]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return f"{name} must be of type {rule['type']}"
    if "enum" in rule and value not in rule["enum"]:
        return f"{name} must be one of {', '.join(map(str, rule['enum']))}"
    if not isinstance(value, str):
        # Written so that NaN, which compares as false with everything, is refused.
        above, below = value >= rule.get("minimum", value), value <= rule.get("maximum", value)
        if not (above and below):
            return f"{name} must be from {rule.get('minimum', '-∞')} to {rule.get('maximum', '∞')}, not {value}"
    return None
