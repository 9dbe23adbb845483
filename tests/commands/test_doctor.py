"""What `naila doctor` says of the model that would be served."""

from __future__ import annotations

from pathlib import Path

import pytest

from naila.commands.doctor import _model
from naila.config.settings import load_settings

pytestmark = pytest.mark.model

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize(
    ("setting", "may"), [("yes", "; may act"), ("no", "; may talk, not act"), ("auto", "; may talk, not act")]
)
def test_it_says_whether_the_model_may_act_as_the_daemon_would_decide(
    model_path: Path, tmp_path: Path, setting: str, may: str
) -> None:
    overrides = {
        "CONFIG_DIR": CONFIG,
        "LLM_MODEL_PATH": model_path,
        "LLM_MAY_ACT": setting,
        "MEMORY_PATH": tmp_path / "naila.db",
    }
    settings = load_settings(env_file=None, environ={}, overrides=overrides)
    (model,) = [finding for finding in _model(settings) if finding.name == "model"]
    assert model.detail.endswith(may)
