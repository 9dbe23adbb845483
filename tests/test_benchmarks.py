"""The benchmarks run: real broker, real daemon, real model, the smallest numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from support.often import HowOften

ROOT = Path(__file__).parents[1]


def fleet(model: Path, folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """Run benchmarks/fleet.py; return what it printed and wrote."""
    figures, plot = folder / "fleet.json", folder / "fleet.svg"
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "fleet.py"), "--model", str(model), "--rounds", "1"),
            *("--tokens", "6", "--alone-tokens", "6", "--json", str(figures), "--plot", str(plot), *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ET.parse(plot).getroot().tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own drawing
    written: dict[str, Any] = json.loads(figures.read_text())
    return done.stdout, written


@pytest.mark.model
@pytest.mark.broker
def test_a_fleet_is_measured_beside_a_locked_llama(model_path: Path, tmp_path: Path) -> None:
    printed, written = fleet(model_path, tmp_path, "--robots", "2", "--turns", "2", "--persona", "storyteller")

    assert "tokens/s, NAILA / Llama + lock" in printed
    for party in ("NAILA", "Llama + lock"):
        (only,) = written["rounds"][party]
        assert only["turns"] == 4
        assert only["errors"] == []
        assert only["tokens"] == 24
        assert only["other_prompts"] == 0, "both were asked the same"
        assert only["later_prompt_tokens"] > only["later_cached_tokens"]
    (ours,) = written["rounds"]["NAILA"]
    assert ours["reread_per_new"] <= 0.1
    assert set(ours["cpu_s"]) == {"robots", "daemon", "engine", "broker"}


@pytest.mark.model
@pytest.mark.broker
def test_a_restart_is_measured_with_and_without_saved_kv(model_path: Path, tmp_path: Path, how_often: HowOften) -> None:
    if not how_often(0, 1):
        pytest.skip("only in the long run")
    printed, written = fleet(model_path, tmp_path, "--restart", "--turns", "2", "--persona", "storyteller")

    (warm,), (cold,) = written["restarts"].values()
    assert len(warm["first_ms"]) == len(cold["first_ms"]) == 3
    assert warm["cached_tokens"][-1] > cold["cached_tokens"][-1]
    assert 0 < cold["prefixes_s"] < cold["start_s"], "the static prefix is read before the daemon is online"
    assert "restart to first text, saved KV / without" in printed
    assert "less start and loading the file" in printed
