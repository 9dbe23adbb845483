"""The unit file as systemd itself judges it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dotenv import dotenv_values

from naila.cli import EX_CONFIG
from naila.config.settings import Settings, load_settings

UNIT = Path(__file__).parents[1] / "systemd" / "naila.service"
ENV_FILE = UNIT.with_name("naila.env")
PROGRAM = "/opt/naila/.venv/bin/naila"
MAX_EXPOSURE = 3.0

analyzer = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there: verify looks."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))
    return path


def values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def value(key: str) -> str:
    (only,) = values(key)
    return only


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


@analyzer
def test_systemd_finds_nothing_wrong(unit: Path) -> None:
    verified = analyze("verify", str(unit))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@analyzer
def test_the_sandbox_is_tight(unit: Path, record_property: Callable[[str, object], None]) -> None:
    judged = analyze("security", "--offline=true", str(unit)).stdout
    found = re.search(r"Overall exposure level for \S+ (\d+\.\d+)", judged)
    assert found, judged
    record_property("exposure", found[1])
    sys.stdout.write(f"exposure: {found[1]}\n")  # shown by pytest -rP
    assert float(found[1]) < MAX_EXPOSURE


def test_a_wrong_configuration_is_not_started_again() -> None:
    assert value("RestartPreventExitStatus") == str(EX_CONFIG)
    assert value("Restart") == "on-failure"


def test_systemd_is_told_by_the_daemon_itself() -> None:
    assert value("Type") == "notify"
    assert value("NotifyAccess") == "main"
    assert int(value("WatchdogSec")) > 0
    assert value("ExecReload") == "kill -HUP $MAINPID"
    assert value("ExecStart").startswith(f"{PROGRAM} run")


def test_systemd_waits_longer_than_a_shutdown_may_take() -> None:
    defaults = load_settings(env_file=None, environ={}, overrides={"CONFIG_DIR": "/nowhere"})
    assert int(value("TimeoutStopSec")) > 2 * defaults.shutdown_timeout_s + 10


def test_what_the_unit_sets_are_settings_and_the_env_file_says_the_same() -> None:
    in_unit = dict(line.split("=", 1) for line in values("Environment"))
    in_file = {name: text for name, text in dotenv_values(ENV_FILE).items() if text is not None}
    assert {name.lower() for name in in_unit | in_file} <= Settings.model_fields.keys()
    assert in_unit.items() <= in_file.items()
    assert in_unit["MEMORY_PATH"].startswith(f"/var/lib/{value('StateDirectory')}/")
    assert value("EnvironmentFile") == "-/etc/naila/naila.env"
