"""How a model is loaded."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from naila.inference.backend import build_info
from naila.inference.model import Model
from naila.inference.shape import SHAPES
from naila.inference.shape_file import write_shape
from support.plans import small_plan


@pytest.mark.skipif("REPACK" not in build_info().cpu_features, reason="this llama.cpp never repacks")
@pytest.mark.parametrize("repack", [True, False])
def test_weights_are_laid_out_anew_only_where_the_plan_says_so(
    repack: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tiny.gguf"
    write_shape(SHAPES["tiny"], path)
    with caplog.at_level(logging.DEBUG, logger="naila.llama_cpp"):
        Model(path, replace(small_plan(n_ctx=256, n_cells=256), repack=repack)).close()
    assert any("CPU_REPACK" in record.message for record in caplog.records) is repack
