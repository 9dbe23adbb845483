"""One file about a brain in trouble, that a person can send."""

from __future__ import annotations

import json
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from naila.config.settings import load_settings
from naila.events import Intent
from naila.mqtt.device import Device
from support.brain import Brain
from support.mosquitto import Mosquitto

SECRET = "s3same-street"  # noqa: S105 - no real one


def report_of(brain: Brain, name: str = "report.json") -> dict[str, Any]:
    """Let `naila doctor --report` write one; a missing model is no reason not to."""
    done = brain.command("doctor", "--report", name)
    path = brain.folder / name
    assert path.is_file(), done.stderr
    assert name in done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_report_without_a_brain_says_what_is_there(tmp_path: Path) -> None:
    brain = Brain(tmp_path, 1, MQTT_USERNAME="robot", MQTT_PASSWORD=SECRET, LLM_MODEL_PATH="none.gguf")
    report = report_of(brain)
    assert report["versions"]["naila"]
    assert "llama_cpp_python" in report["versions"]["packages"]
    assert report["settings"]["MQTT_USERNAME"] == "robot"
    assert report["machine"]["hardware"]["logical_cpus"] > 0
    assert "none.gguf" in report["machine"]["model"]
    assert report["database"]["verdict"] == "there is none"
    assert {finding["name"] for finding in report["findings"]} >= {"versions", "model", "broker"}
    assert (report["turns"], report["log"], report["last_health"]) == ([], [], None)
    assert SECRET not in (tmp_path / "report.json").read_text()


def test_a_report_that_cannot_be_written_is_a_failure_that_names_the_place(tmp_path: Path) -> None:
    done = Brain(tmp_path, 1).command("doctor", "--report", "nowhere/report.json")
    assert done.returncode == 1
    assert "nowhere/report.json: cannot be written: No such file" in done.stderr


@pytest.mark.broker
async def test_after_kill_9_the_report_has_the_last_turns_and_lines(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path).start()
    try:
        brain = Brain(tmp_path, broker.port, LLM_MODEL_PATH="none.gguf").start()
        settings = load_settings(env_file=None, environ={}, overrides=brain.environ)
        brain.wait_for_log("phase: running")
        async with Device(settings, "r2") as device:
            reply = await device.ask(Intent(device_id="r2", id="q1", text="My name is Xanthippe."))
        brain.signal(signal.SIGKILL)
        brain.wait()
        report = report_of(brain)
    finally:
        broker.stop()
    assert [turn["id"] for turn in report["turns"]] == ["q1"]
    assert report["turns"][0]["said_chars"] == len(reply.text)
    assert report["last_health"]["components"]["llm"]["status"] == "down"
    assert any(line["message"] == "phase: running" for line in report["log"])
    assert report["database"]["verdict"] == "ok"
    assert "Xanthippe" not in (tmp_path / "report.json").read_text()
