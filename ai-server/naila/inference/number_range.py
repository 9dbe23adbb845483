"""The grammar of the numbers between two bounds, digit by digit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

_MAX_INTEGER: Final = 2**53 - 1
_OPEN_END: Final = 10**9 - 1
_DIGITS: Final = 15
_DECIMALS: Final = 6
_ANY: Final = '"-"? ("0" | [1-9] [0-9]{0,14}) ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?'

_Bounds = Sequence[tuple[float, bool]]  # each with whether it is itself excluded


def between(lows: _Bounds, highs: _Bounds, *, is_integer: bool) -> str:
    """Return what the numbers between all the bounds look like, in GBNF; empty where there are none.

    Integers stay within ±(2⁵³ - 1). Other numbers have no exponent and at most 6 decimals, and 15 digits in all, which
    a double tells apart; where none of their bounds is beyond 10⁹, neither are they. Without any bound they may be
    whatever a double holds.
    """
    if not (is_integer or lows or highs):
        return _ANY
    near = not is_integer and all(abs(bound) <= _OPEN_END for bound, _ in [*lows, *highs])
    far = _OPEN_END if near else _MAX_INTEGER
    # Through its decimal form, since a bound of 0.1 means a tenth.
    low, above = max([(Fraction(str(bound)), excluded) for bound, excluded in lows] + [(Fraction(-far), False)])
    high, below = min(
        [(Fraction(str(bound)), excluded) for bound, excluded in highs] + [(Fraction(far), False)],
        key=lambda bound: (bound[0], not bound[1]),
    )
    digits = len(str(math.ceil(max(abs(low), abs(high)))))
    forms = []
    for decimals in range(1 if is_integer else 1 + min(_DECIMALS, max(_DIGITS - digits, 0))):
        unit = 10**decimals
        least = math.floor(low * unit) + 1 if above else math.ceil(low * unit)
        most = math.ceil(high * unit) - 1 if below else math.floor(high * unit)
        if most >= max(least, 0):
            forms.append(_from_to(max(least, 0), most, decimals))
        if least <= min(most, -1):
            forms.append(f'"-" {_from_to(max(-most, 1), -least, decimals)}')
    return " | ".join(forms)


def _from_to(least: int, most: int, decimals: int) -> str:
    """Match the numbers between two natural ones, whose last digits are decimals."""
    low, high = (str(bound).zfill(decimals + 1) for bound in (least, most))
    if len(low) == len(high):
        return _span(low, high, decimals)
    forms = [_span(low, "9" * len(low), decimals)]
    if len(high) - len(low) > 1:
        point = f'"." [0-9]{{{decimals}}}' if decimals else ""
        forms.append(f"[1-9] [0-9]{{{len(low) - decimals},{len(high) - 2 - decimals}}} {point}")
    return f"({' | '.join([*forms, _span('1'.ljust(len(high), '0'), high, decimals)])})"


def _span(low: str, high: str, decimals: int) -> str:
    """Match the strings of digits between two of equal length; a point stands before the last digits."""
    if not low:
        return ""
    point, rest = ('"." ' if 0 < decimals == len(low) else ""), len(low) - 1
    zeros, nines = "0" * rest, "9" * rest
    if low[0] == high[0]:
        return f'{point}"{low[0]}" {_span(low[1:], high[1:], decimals)}'
    first, last, forms = int(low[0]), int(high[0]), []
    if low[1:] != zeros:
        forms.append(f'"{first}" {_span(low[1:], nines, decimals)}')
        first += 1
    if high[1:] != nines:
        forms.append(f'"{last}" {_span(zeros, high[1:], decimals)}')
        last -= 1
    if first <= last:
        split = rest - decimals if 0 < decimals <= rest else 0
        whole = f"[0-9]{{{split}}} " if split else ""
        part = f'"." [0-9]{{{decimals}}}' if 0 < decimals <= rest else f"[0-9]{{{rest}}}" if rest else ""
        forms.append(f"[{first}-{last}] {whole}{part}")
    return f"{point}({' | '.join(forms)})"
