"""`naila bench` on the smallest shape: what it prints, what it writes and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from naila import cli
from naila.commands import bench
from naila.commands.bench import thread_counts
from naila.inference.shape import SHAPES
from naila.inference.shape_file import write_shape
from naila.inference.yardstick import Pace
from support.plans import small_plan

CONFIG = Path(__file__).parents[2] / "config"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "_QUICK", Pace(seconds=0.03, rounds=1))
    monkeypatch.setenv("CONFIG_DIR", str(CONFIG))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("MEMORY_PATH", str(tmp_path / "state" / "naila.db"))
    monkeypatch.setenv("LLM_KV_CELLS", "4096")


def run(*words: str) -> int:
    return cli.main(["--env-file", "no-such-file", "bench", "--quick", *words])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_shape_is_measured_and_nothing_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--shape", "tiny", "--robots", "3") == 0
    out, err = capsys.readouterr()
    assert out.startswith("tiny-random.gguf, 1 MB, on cpu, ")
    for line in ("read, 63 tokens a step", "alone, 1 thread ", "3 write together", "cancel in the middle", "robots: "):
        assert line in out
    assert "Assumed: each robot asks every 30 s" in out
    assert "writing " in err
    assert "Traceback" not in err
    assert list((tmp_path / "state").iterdir()) == []


def test_json_is_all_of_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--shape", "tiny", "--robots", "2", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["robots_measured"] == 2
    assert document["robots_carried"] > 0
    assert list(document["figures"]["together"]) == ["1", "2"]
    assert document["plan"]["n_cells"] == 4096
    assert {advice["about"] for advice in document["advice"]} >= {"LLM_BATCH_SIZE", "robots", "first word"}


def test_a_kept_file_is_used_again_and_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--shape", "tiny", "--robots", "1", "--keep") == 0
    assert files(tmp_path) == ["state/bench/tiny-random.gguf"]
    (kept,) = (tmp_path / "state" / "bench").iterdir()
    written = kept.stat().st_mtime_ns
    capsys.readouterr()
    assert run("--shape", "tiny", "--robots", "1") == 0
    assert "writing " + str(kept) not in capsys.readouterr().err
    assert kept.stat().st_mtime_ns == written


def test_a_damaged_file_is_written_anew(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "bench"
    folder.mkdir(parents=True)
    (folder / "tiny-random.gguf").write_bytes(b"GGUF")
    assert run("--shape", "tiny", "--robots", "1", "--keep") == 0
    assert (folder / "tiny-random.gguf").stat().st_size > 900_000


def test_what_a_killed_run_left_is_tidied_up(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "bench"
    (folder / "kv-abc").mkdir(parents=True)
    (folder / "kv-abc" / "1.kv").touch()
    (folder / ".tiny-random.gguf.99.part").touch()
    assert run("--shape", "tiny", "--robots", "1") == 0
    assert files(tmp_path) == []


def test_a_file_of_ones_own_is_measured_and_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.gguf"
    write_shape(SHAPES["tiny"], path)
    assert run("--model", str(path), "--robots", "1") == 0
    assert capsys.readouterr().out.startswith("mine.gguf, ")
    assert files(tmp_path) == ["mine.gguf"]


def test_without_a_model_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 1
    assert "naila models pull" in capsys.readouterr().err


def test_a_model_that_does_not_fit_is_refused_before_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_KV_CELLS", "16777216")
    assert run("--shape", "llama-3.1-8b") == 1
    assert "of memory" in capsys.readouterr().err
    assert files(tmp_path) == []


def test_a_full_disk_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 1000))
    assert run("--shape", "tiny") == 1
    assert "bytes of disk, and 1,000 are free" in capsys.readouterr().err
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").touch()
    assert run("--shape", "tiny") == 1
    assert "MEMORY_PATH" in capsys.readouterr().err


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("naila.inference.yardstick.Yardstick.measure", interrupt)
    assert run("--shape", "tiny") == 130
    assert files(tmp_path) == []


@pytest.mark.parametrize("words", [["--keep"], ["--vocab", "x.gguf"]])
def test_options_of_a_shape_want_a_shape(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert "go with --shape" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--robots", "0"], ["--robots", "33"], ["--robots", "x"], ["--shape", "gpt-5"]])
def test_misuse_is_explained(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
    assert words[1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cores", "planned", "expected"),
    [
        (1, (1, 1), [1]),
        (2, (2, 2), [1, 2]),
        (4, (3, 4), [1, 2, 3, 4]),
        (8, (7, 8), [1, 2, 4, 7, 8]),
        (4, (16, 16), [1, 2, 3, 4, 16]),
        (256, (255, 256), [4, 8, 16, 32, 64, 128, 255, 256]),
    ],
)
def test_threads_worth_comparing(cores: int, planned: tuple[int, int], expected: list[int]) -> None:
    plan = small_plan(n_threads=planned[0], n_threads_batch=planned[1], n_ctx=256, n_cells=256, n_sequences=8)
    assert thread_counts(cores, plan) == expected
