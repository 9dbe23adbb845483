"""Which file is served, and which changes on disk are a reason to look for one again."""

from __future__ import annotations

from pathlib import Path

import pytest

from naila.config.catalogue import load_catalogue
from naila.config.settings import load_settings
from naila.server.model_source import ModelSource

CONFIG = Path(__file__).parents[2] / "config"


def source(folder: Path, **overrides: object) -> ModelSource:
    values = {"MODELS_DIR": folder, **overrides}
    return ModelSource(load_settings(env_file=None, environ={}, overrides=values), load_catalogue(CONFIG))


@pytest.mark.parametrize("name", ["m.gguf", "m.gguf.sha256", "m-00002-of-00003.gguf"])
@pytest.mark.parametrize("explicit", [True, False])
def test_what_a_model_is_made_of_is_watched(tmp_path: Path, name: str, explicit: bool) -> None:
    chosen = "m-00001-of-00003.gguf" if "-of-" in name else "m.gguf"
    watched = source(tmp_path, **({"LLM_MODEL_PATH": tmp_path / chosen} if explicit else {}))
    before = watched.files()
    assert watched.files() == before
    (tmp_path / name).write_bytes(b"one")
    after = watched.files()
    assert after != before
    (tmp_path / name).write_bytes(b"other")
    assert watched.files() != after


def test_a_download_on_its_way_is_no_reason(tmp_path: Path) -> None:
    watched = source(tmp_path)
    before = watched.files()
    (tmp_path / "m.gguf.part").write_bytes(b"half")
    assert watched.files() == before


def test_a_folder_that_is_not_there_can_be_watched(tmp_path: Path) -> None:
    watched = source(tmp_path / "later")
    before = watched.files()
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "m.gguf").write_bytes(b"one")
    assert watched.files() != before


@pytest.mark.model
@pytest.mark.parametrize("explicit", [True, False])
def test_what_is_chosen_comes_with_its_header_and_the_reason(tmp_path: Path, model_path: Path, explicit: bool) -> None:
    path = tmp_path / "m.gguf"
    path.symlink_to(model_path)
    overrides = {"MEMORY_PATH": tmp_path / "naila.db", **({"LLM_MODEL_PATH": path} if explicit else {})}
    chosen = source(tmp_path, **overrides).choose()
    assert chosen.header.path == path
    assert chosen.header.n_layers == 30
    assert ("set by LLM_MODEL_PATH" if explicit else "the only model in") in chosen.reason
