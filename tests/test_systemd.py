"""The unit file as systemd itself judges it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values

from naila.cli import EX_CONFIG
from naila.config.settings import PASSWORD_CREDENTIAL, Settings, load_settings
from naila.events import Intent
from naila.mqtt.device import Device
from support import confined
from support.mosquitto import Mosquitto

UNIT = Path(__file__).parents[1] / "systemd" / "naila.service"
ROOT = UNIT.parents[1]
ENV_FILE = UNIT.with_name("naila.env")
PROGRAM = "/opt/naila/.venv/bin/naila"
MAX_EXPOSURE = 1.5

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
    assert float(found[1]) <= MAX_EXPOSURE


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


def test_the_password_is_a_credential_and_a_missing_one_is_no_failure() -> None:
    assert value("LoadCredential") == f"{PASSWORD_CREDENTIAL}:/etc/naila/{PASSWORD_CREDENTIAL}"
    name, _, content = value("SetCredential").partition(":")
    assert (name, content) == (PASSWORD_CREDENTIAL, r"\n")


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder of the service's own, which an ordinary user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="naila-service-", dir="/var/lib"))
    yield folder
    shutil.rmtree(folder)


def confine(state: Path, *command: str, readable: tuple[Path, ...] = ()) -> list[str]:
    """Return the command line that runs a command as the unit would."""
    if (reason := confined.missing()) is not None:
        pytest.skip(f"the sandbox cannot be made here: {reason}")
    python = Path(sys.executable).resolve().parents[1]
    seen = {str(path) for path in (ROOT, python, *readable)}
    return [sys.executable, confined.__file__, str(UNIT), str(state), *sorted(seen), "--", *command]


def test_in_the_sandbox_nothing_else_is_possible(state: Path) -> None:
    command = confine(state, sys.executable, str(ROOT / "tests" / "support" / "forbidden.py"), str(ROOT))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"possible": [], "impossible": []}


@pytest.mark.model
@pytest.mark.broker
async def test_in_the_sandbox_the_daemon_starts_and_answers(state: Path, model_path: Path, tmp_path: Path) -> None:
    secret = "s3same street"  # noqa: S105 - no real one
    command = confine(
        state, sys.executable, str(ROOT / "ai-server" / "main.py"), "run", "--quiet", readable=(model_path.parent,)
    )
    (state / "credentials").mkdir()
    (state / "credentials" / PASSWORD_CREDENTIAL).write_text(f"{secret}\n")
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(state / "notify"))
    told.setblocking(False)
    (state / "notify").chmod(0o777)
    for path in (state / "credentials", state / "credentials" / PASSWORD_CREDENTIAL):
        shutil.chown(path, confined.NOBODY, confined.NOBODY)
    broker = Mosquitto(tmp_path, users={"naila": secret, "robot": "beep"}).start()
    environ = {
        "PATH": "/usr/bin:/bin",
        "CONFIG_DIR": str(ROOT / "config"),
        "MODELS_DIR": str(model_path.parent),
        "LLM_MODEL_PATH": str(model_path),
        "MEMORY_PATH": str(state / "naila.db"),
        "MQTT_HOST": "127.0.0.1",
        "MQTT_PORT": str(broker.port),
        "MQTT_USERNAME": "naila",
        "CREDENTIALS_DIRECTORY": str(state / "credentials"),
        "NOTIFY_SOCKET": str(state / "notify"),
        "LLM_CONTEXT_SIZE": "1024",
        "LLM_MAX_TOKENS": "16",
        "LLM_THREADS": "1",
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out)  # noqa: ASYNC220
    try:
        robot = broker.settings(MQTT_USERNAME="robot", MQTT_PASSWORD="beep")  # noqa: S106 - no real one
        async with Device(robot, "r2") as device:
            await device.wait_for_brain("online", timeout_s=60)
            reply = await device.ask(Intent(device_id="r2", id="q1", text="Tell me a story about a robot."))
        assert (reply.source, reply.degraded) == ("llm", False)
        assert b"READY=1" in b"".join(_heard(told))
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        process.kill()
        process.wait()
        broker.stop()
        told.close()
    assert "Traceback" not in log.read_text()
    assert secret not in log.read_text()
    assert readable_by_others(state) == []
    assert (state / "flight" / "turns").is_file()


def readable_by_others(state: Path) -> list[Path]:
    """Return what the service made that others than its user can read."""
    files = (path for path in state.rglob("*") if path.is_file() and path.parent.name != "credentials")
    return [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]


def _heard(told: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield told.recv(4096)
        except BlockingIOError:
            return
