"""A broker for all examples of a run, and the examples as processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.mosquitto import Mosquitto


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """One broker: each test has a device id of its own."""
    mosquitto = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    yield mosquitto
    mosquitto.stop()


@pytest.fixture
def device_id(request: pytest.FixtureRequest) -> str:
    """A device id of this test's own."""
    name: str = request.node.name
    return "".join(c if c.isalnum() else "-" for c in name)[:60]
