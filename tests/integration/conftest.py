"""Fixtures with real brokers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mosquitto import Mosquitto


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running Mosquitto that lets everybody in."""
    broker = Mosquitto(tmp_path).start()
    yield broker
    broker.stop()
