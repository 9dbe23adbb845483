"""What a unit says about a sensor in Home Assistant, which refuses a class whose unit it does not know."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

StateClass = Literal["measurement", "total"]
Quantity: TypeAlias = "tuple[str | None, StateClass]"

_SPELLINGS: Final = {
    **dict.fromkeys(("℃", "ºC", "degC", "celsius", "Celsius"), "°C"),
    **dict.fromkeys(("℉", "ºF", "degF", "fahrenheit", "Fahrenheit"), "°F"),
    **dict.fromkeys(("percent", "pct"), "%"),
    **dict.fromkeys(("deg", "degree", "degrees"), "°"),
    **dict.fromkeys(("meter", "meters", "metre", "metres"), "m"),
    **dict.fromkeys(("second", "seconds", "sec"), "s"),
    **dict.fromkeys(("volt", "volts"), "V"),
    **dict.fromkeys(("watt", "watts"), "W"),
    **dict.fromkeys(("amp", "amps", "ampere"), "A"),
    **dict.fromkeys(("lux",), "lx"),
    **dict.fromkeys(("mps",), "m/s"),
    **dict.fromkeys(("l",), "L"),
    **dict.fromkeys(("kph",), "km/h"),
}
_CLASSES: Final[dict[str, str]] = {
    **dict.fromkeys(("°C", "°F", "K"), "temperature"),
    **dict.fromkeys(("V", "mV"), "voltage"),
    **dict.fromkeys(("A", "mA"), "current"),
    **dict.fromkeys(("W", "kW"), "power"),
    **dict.fromkeys(("mm", "cm", "m", "km", "in", "ft", "yd", "mi"), "distance"),
    **dict.fromkeys(("mm/s", "m/s", "km/h", "mph", "ft/s", "kn"), "speed"),
    **dict.fromkeys(("Hz", "kHz", "MHz", "GHz"), "frequency"),
    **dict.fromkeys(("Pa", "hPa", "kPa", "bar", "mbar", "psi"), "pressure"),
    **dict.fromkeys(("g", "kg", "mg", "lb", "oz"), "weight"),
    **dict.fromkeys(("s", "min", "h", "d", "ms"), "duration"),
    **dict.fromkeys(("B", "kB", "MB", "GB", "KiB", "MiB", "GiB"), "data_size"),
    **dict.fromkeys(("bit/s", "kbit/s", "Mbit/s", "B/s", "kB/s", "MB/s"), "data_rate"),
    **dict.fromkeys(("mL", "L", "m³"), "volume_storage"),
    "lx": "illuminance",
    "W/m²": "irradiance",
    "dBm": "signal_strength",
    "dBA": "sound_pressure",
}
_BY_NAME: Final[dict[tuple[str, str], str]] = {
    **{("%", word): "battery" for word in ("battery", "soc", "charge")},
    **{("%", word): "humidity" for word in ("humidity",)},
    **{("%", word): "moisture" for word in ("moisture", "soil")},
    **{("dB", word): "signal_strength" for word in ("rssi", "signal", "snr")},
    **{("dB", word): "sound_pressure" for word in ("noise", "sound", "loudness")},
    ("ppm", "co2"): "carbon_dioxide",
    **{(unit, word): "energy_storage" for unit in ("Wh", "kWh") for word in ("battery", "charge", "capacity")},
}
_ENERGY: Final = frozenset({"Wh", "kWh", "MWh", "J", "kJ", "MJ"})


def spelled(unit: str) -> str:
    """Return a unit as Home Assistant spells it."""
    return _SPELLINGS.get(unit, unit)


def quantity(field: str, unit: str | None) -> Quantity:
    """Return the device class, where one surely fits, and the state class of a number.

    Args:
        field: the telemetry field's name; of a unit that stands for many things (`%`) its words decide.
        unit: as `spelled` returns it.
    """
    if unit is None:
        return None, "measurement"
    for word in re.findall(r"[a-z]+[0-9]*", field.casefold()):
        if (unit, word) in _BY_NAME:
            return _BY_NAME[unit, word], "measurement"
    if unit in _ENERGY:
        return "energy", "total"
    return _CLASSES.get(unit), "measurement"
