from __future__ import annotations

import argparse
import hashlib
import json
import os
import pty
from pathlib import Path
from typing import Any

import pytest
import yaml

from naila.commands.models import register
from naila.config.settings import Settings, load_settings
from naila.errors import ConfigurationError

CONTENT = b"GGUF" + bytes(1000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = tmp_path / "config"
    config.mkdir()
    tiny = {
        "title": "Tiny",
        "description": "For tests.",
        "file": "tiny.gguf",
        "source": {"package": "naila-no-such-package==1.0", "member": "tiny.gguf"},
        "size_bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "licence": "MIT",
        "memory_bytes": 5_000_000,
        "context": 2048,
        "may_act": False,
    }
    large = {**tiny, "title": "Large", "file": "large.gguf", "source": {"hub": "maker/large"}, "may_act": True}
    catalogue = {"default": "tiny", "models": {"tiny": tiny, "large": large}}
    (config / "models.yaml").write_text(yaml.safe_dump(catalogue, sort_keys=False), encoding="utf-8")
    (tmp_path / "models").mkdir()
    return load_settings(
        env_file=None,
        environ={},
        overrides={
            "CONFIG_DIR": str(config),
            "MODELS_DIR": str(tmp_path / "models"),
            "MEMORY_PATH": str(tmp_path / "state" / "naila.db"),
        },
    )


def run(settings: Settings, *words: str) -> int:
    parser = argparse.ArgumentParser(prog="naila")
    register(parser.add_subparsers())
    args = parser.parse_args(["models", *words])
    code = args.run(args, settings)
    assert isinstance(code, int)
    return code


def in_json(settings: Settings, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = run(settings, *words, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_list_shows_the_catalogue_and_what_is_here(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.models_dir / "tiny.gguf").write_bytes(CONTENT)
    (settings.models_dir / "large.gguf.0123456789ab.part").write_bytes(CONTENT)
    (settings.models_dir / "own.gguf").write_bytes(CONTENT * 2000)
    assert run(settings, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["NAME", "SIZE", "MEMORY", "MAY", "LICENCE", "HERE"],
        ["tiny", "0", "MB", "5", "MB", "talk", "MIT", "yes"],
        ["large", "0", "MB", "5", "MB", "act", "MIT", "partly"],
        ["own.gguf", "2", "MB", "?", "?", "?", "yes"],
    ]
    code, rows = in_json(settings, capsys, "list")
    assert code == 0
    assert [(row["name"], row["here"], row["may_act"]) for row in rows] == [
        ("tiny", "yes", False),
        ("large", "partly", True),
        ("own.gguf", "yes", None),
    ]


def test_a_file_of_another_size_is_not_called_here(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.models_dir / "tiny.gguf").write_bytes(CONTENT[:-1])
    _, rows = in_json(settings, capsys, "list")
    assert rows[0]["here"] == "another size"


def test_info_of_a_model_that_is_not_here_says_how_to_fetch_it(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(settings, "info", "LARGE") == 0
    out = capsys.readouterr().out
    assert "Hugging Face hub (maker/large)" in out
    assert "not here: naila models pull large" in out
    code, facts = in_json(settings, capsys, "info", "large")
    assert code == 0
    assert facts["may_act"] is True
    assert facts["path"] is None


def test_info_of_a_file_that_is_no_model_is_an_error(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    bad = settings.models_dir / "bad.gguf"
    bad.write_text("hello")
    assert run(settings, "info", str(bad)) == 1
    assert "bad.gguf" in capsys.readouterr().err


def test_an_unknown_name_lists_the_known_ones(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("info", "verify", "pull"):
        assert run(settings, action, "nix") == 1
        assert "nix is neither a model of the catalogue (tiny, large) nor a file" in capsys.readouterr().err


def test_verify_tells_good_from_damaged_from_unknown(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.models_dir / "tiny.gguf").write_bytes(CONTENT)
    (settings.models_dir / "own.gguf").write_bytes(CONTENT)
    code, results = in_json(settings, capsys, "verify")
    assert code == 0
    assert {Path(row["path"]).name: row["outcome"] for row in results} == {"tiny.gguf": "ok", "own.gguf": "unknown"}
    (settings.models_dir / "large.gguf").write_bytes(CONTENT[:-1] + b"x")
    (settings.models_dir / "page.gguf").write_text("<html>")
    code, results = in_json(settings, capsys, "verify")
    assert code == 1
    bad = {Path(row["path"]).name for row in results if row["outcome"] == "bad"}
    assert bad == {"large.gguf", "page.gguf"}
    assert run(settings, "verify", "tiny") == 0
    assert run(settings, "verify", "own.gguf") == 0
    assert run(settings, "verify", str(settings.models_dir / "large.gguf")) == 1


def test_verify_reads_the_bytes_each_time(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    path = settings.models_dir / "tiny.gguf"
    path.write_bytes(CONTENT)
    assert run(settings, "verify", "tiny") == 0
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(500)
        file.write(b"\x01")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(settings, "verify", "tiny") == 1
    assert "damaged" in capsys.readouterr().out


def test_verify_of_nothing_says_so(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(settings, "verify") == 0
    assert "no model files in" in capsys.readouterr().out
    assert run(settings, "verify", "tiny") == 1
    assert "there is no such file" in capsys.readouterr().out


def test_pull_of_what_is_here_prints_its_path(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    path = settings.models_dir / "tiny.gguf"
    path.write_bytes(CONTENT)
    assert run(settings, "pull", "tiny") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}\n"
    assert "Tiny: 0 MB from the package index (naila-no-such-package==1.0), licence: MIT" in captured.err
    code, answer = in_json(settings, capsys, "pull", "tiny")
    assert (code, answer) == (0, {"name": "tiny", "path": str(path)})


def test_a_pull_that_fails_is_one_message_and_exit_code_1(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert run(settings, "pull", "tiny") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "naila models: pip could not download naila-no-such-package==1.0" in captured.err


def test_a_wrong_catalogue_is_a_configuration_error(settings: Settings) -> None:
    (settings.config_dir / "models.yaml").write_text("models: 7\ndefault: x\n")
    with pytest.raises(ConfigurationError):
        run(settings, "list")


def test_the_bar_is_drawn_on_a_terminal(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings.models_dir / "tiny.gguf").write_bytes(CONTENT)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb", buffering=0) as screen:
        monkeypatch.setattr("sys.stderr", terminal)
        assert run(settings, "verify", "tiny") == 0
        terminal.flush()
        drawn = screen.read(4096).decode()
    assert "checking tiny.gguf  [##############################] 100%" in drawn


@pytest.mark.parametrize("words", [[], ["list"], ["info"], ["verify"], ["pull"]])
def test_help_explains_each_action(settings: Settings, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(settings, *words, "--help")
    assert caught.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5
