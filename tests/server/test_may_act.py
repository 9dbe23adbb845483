"""Whether the model that is served may choose actions: as set, by the catalogue, by its size."""

from __future__ import annotations

from pathlib import Path

import pytest

from naila.config.settings import load_settings
from naila.inference.gguf import read_header
from naila.ports import ModelHeader
from naila.server.model_source import ModelSource

CONFIG = Path(__file__).parents[2] / "config"
LLAMA = "Llama-3.2-3B-Instruct-Q4_K_M.gguf"
TINY = "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"
TINY_BYTES = 668_788_096


def may_act(file: str, *, parameters: int = 0, size: int = 1, setting: str = "auto") -> bool:
    settings = load_settings(env_file=None, environ={}, overrides={"CONFIG_DIR": CONFIG, "LLM_MAY_ACT": setting})
    header = ModelHeader(
        path=Path("models") / file,
        name=file,
        architecture="llama",
        file_bytes=size,
        n_layers=1,
        n_ctx_train=1,
        n_embd=1,
        n_heads=1,
        n_kv_heads=1,
        head_dim_k=1,
        head_dim_v=1,
        n_vocab=1,
        n_parameters=parameters,
    )
    return ModelSource.of(settings).may_act(header)


@pytest.mark.parametrize(("file", "may"), [(LLAMA, True), (TINY, False), ("SmolLM2-135M-Instruct.Q4_1.gguf", False)])
def test_the_catalogue_decides(file: str, may: bool) -> None:
    assert may_act(file, parameters=5_000_000_000) is may


def test_a_file_that_was_renamed_is_known_by_its_size() -> None:
    assert not may_act("mine.gguf", parameters=5_000_000_000, size=TINY_BYTES)


@pytest.mark.parametrize(("parameters", "may"), [(0, False), (630_167_424, False), (3_000_000_000, True)])
def test_of_an_unknown_file_its_size_decides(parameters: int, may: bool) -> None:
    assert may_act("mine.gguf", parameters=parameters) is may


def test_a_person_decides_in_the_end() -> None:
    assert may_act(TINY, setting="yes")
    assert not may_act(LLAMA, setting="no")


@pytest.mark.parametrize(("written", "may"), [("yes", True), ("no", False), ("auto", False), ('"yes"', True)])
def test_yes_and_no_are_understood_as_yaml_writes_them(tmp_path: Path, written: str, may: bool) -> None:
    path = tmp_path / "naila.yaml"
    path.write_text(f"llm_may_act: {written}\nconfig_dir: {CONFIG}\n")
    settings = load_settings(env_file=None, environ={}, yaml_file=path)
    assert (settings.llm_may_act == "yes") is may


@pytest.mark.model
def test_the_weights_of_a_file_are_counted(model_path: Path) -> None:
    assert read_header(model_path).n_parameters == 134_515_008
