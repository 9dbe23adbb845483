"""Fixtures that every test may use. `scripts/test` fetches what they point to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.often import HowOften

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "naila"


def _needed(variable: str, default: Path) -> Path:
    path = Path(os.environ.get(variable) or default)
    if not path.is_file():
        pytest.fail(f"{path} is missing: run scripts/test, which fetches it, or set {variable}")
    return path


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let somebody who has time try harder."""
    parser.addoption("--long", action="store_true", help="repeat endurance tests as often as their full runs ask")


@pytest.fixture
def how_often(request: pytest.FixtureRequest) -> HowOften:
    """Choose between the count of an everyday run and that of a long one."""
    is_long = bool(request.config.getoption("--long"))
    return lambda everyday, long: long if is_long else everyday


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The small real model, SmolLM2-135M-Instruct."""
    return _needed("NAILA_TEST_MODEL", CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def llama3_vocab() -> Path:
    """The real vocabulary of Llama 3, without weights."""
    return _needed("NAILA_TEST_LLAMA3_VOCAB", CACHE / "ggml-vocab-llama-bpe.gguf")
