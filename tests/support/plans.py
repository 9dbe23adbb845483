"""How tests run the small model."""

from __future__ import annotations

from typing import Any

from naila.ports import EnginePlan


def small_plan(**changes: Any) -> EnginePlan:
    """Return a plan with one thread and little room, but for what is given."""
    values: dict[str, Any] = {
        "n_threads": 1,
        "n_threads_batch": 1,
        "n_gpu_layers": 0,
        "n_ctx": 1024,
        "n_cells": 4096,
        "n_sequences": 16,
        "n_batch": 63,
        "use_mmap": True,
        "acceleration": "cpu",
        "needed_bytes": 0,
        "available_bytes": 0,
        "reasons": {},
    }
    return EnginePlan(**{**values, **changes})
