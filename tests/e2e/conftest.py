"""A real broker and a real daemon with the real small model, shared where tests can share them.

Tests on the shared daemon keep apart by their device ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from naila.config.settings import Settings
from support.brain import Brain, BrainMaker
from support.mosquitto import Mosquitto

QUEUE_MAX = 4


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def shared_brain(
    tmp_path_factory: pytest.TempPathFactory, shared_broker: Mosquitto, model_path: Path
) -> Iterator[Brain]:
    """A daemon that is online."""
    brain = Brain(
        tmp_path_factory.mktemp("brain"),
        shared_broker.port,
        LLM_MODEL_PATH=str(model_path),
        LLM_MAX_TOKENS="400",
        LLM_SEED="7",
        QUEUE_MAX_PER_DEVICE=str(QUEUE_MAX),
        METRICS_INTERVAL_S="0.5",
        HEALTH_INTERVAL_S="0.5",
    )
    brain.start()
    brain.wait_for_log("the brain is online")
    yield brain
    assert brain.stop() == 0, brain.log()


@pytest.fixture
def settings(shared_broker: Mosquitto, shared_brain: Brain) -> Settings:
    """How devices reach the shared daemon."""
    return shared_broker.settings()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of the test's own, listening."""
    own = Mosquitto(tmp_path).start()
    yield own
    own.stop()


@pytest.fixture
def make_brain(tmp_path: Path, model_path: Path) -> Iterator[BrainMaker]:
    """Makes daemons of the test's own, not started; whatever runs at the end is killed."""
    made: list[Brain] = []

    def make(port: int, **environ: str) -> Brain:
        folder = tmp_path / f"brain-{len(made)}"
        folder.mkdir()
        made.append(Brain(folder, port, **{"LLM_MODEL_PATH": str(model_path), "LLM_SEED": "7", **environ}))
        return made[-1]

    yield make
    for brain in made:
        brain.kill()
