"""How often a test does its thing: a few times in the everyday run, many times with `--long`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

HowOften: TypeAlias = Callable[[int, int], int]
