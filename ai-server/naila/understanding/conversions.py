"""Conversions: which units of measurement there are, and what one is in another. To import this takes a while."""

from __future__ import annotations

import pint


class Conversions:
    """Knows units, by the names of the quantity library."""

    def __init__(self) -> None:
        self._registry: pint.UnitRegistry[float] = pint.UnitRegistry(cache_folder=None)

    def known(self, unit: str) -> bool:
        """Whether it is a unit."""
        try:
            self._registry.parse_units(unit)
        except (pint.PintError, ValueError, TypeError, AttributeError):
            return False
        return True

    def line(self, unit: str, into: str) -> tuple[float, float] | None:
        """Return the factor and the offset of a conversion, None where it is another kind of quantity."""
        try:
            zero = self._registry.Quantity(0.0, unit).to(into).magnitude
            one = self._registry.Quantity(1.0, unit).to(into).magnitude
        except (pint.PintError, ValueError, TypeError, AttributeError):
            return None
        return float(one) - float(zero), float(zero)
