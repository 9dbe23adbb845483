"""A real broker and a real daemon with the real small model, shared where tests can share them.

Tests on the shared daemon keep apart by their device ids.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from naila.config.settings import Settings
from support.brain import Brain, BrainMaker
from support.mosquitto import Mosquitto, free_port

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


@pytest.fixture(scope="session")
def read_in(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    """The KV of what every prompt begins with, as a daemon leaves it on disk."""
    brain = Brain(tmp_path_factory.mktemp("read-in"), free_port(), LLM_MODEL_PATH=str(model_path)).start()
    brain.wait_for_log("phase: running")
    assert brain.stop() == 0, brain.log()
    return brain.folder / "state" / "kv"


@pytest.fixture
def make_brain(tmp_path: Path, model_path: Path, read_in: Path) -> Iterator[BrainMaker]:
    """Makes daemons of the test's own, not started; whatever runs at the end is killed.

    They have been here before: what prompts begin with need not be read in again, for seconds at each start.
    """
    made: list[Brain] = []

    def make(port: int, **environ: str) -> Brain:
        folder = tmp_path / f"brain-{len(made)}"
        shutil.copytree(read_in, folder / "state" / "kv")
        (folder / "state").chmod(0o700)
        made.append(Brain(folder, port, **{"LLM_MODEL_PATH": str(model_path), "LLM_SEED": "7", **environ}))
        return made[-1]

    yield make
    for brain in made:
        brain.kill()
