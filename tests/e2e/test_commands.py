"""The command line as real processes, beside a running daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import naila
from naila.config.settings import Settings
from naila.mqtt.device import Device
from support.brain import Brain
from support.mosquitto import Mosquitto, free_port
from support.said import CLOCK, ask_of

pytestmark = [pytest.mark.broker, pytest.mark.model]


def test_say_prints_the_answer(shared_brain: Brain) -> None:
    done = shared_brain.command("say", "Hello, who are you?", "--device", "teller")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_say_streams_and_reads_standard_input(shared_brain: Brain) -> None:
    done = shared_brain.command("say", "-", "--stream", stdin="What is the sea?")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_say_prints_the_whole_reply_for_scripts(shared_brain: Brain) -> None:
    done = shared_brain.command("say", CLOCK, "--json")
    reply = json.loads(done.stdout)
    assert (reply["device_id"], reply["source"]) == ("cli", "pattern")


def test_say_tells_what_was_refused(shared_brain: Brain) -> None:
    done = shared_brain.command("say", "hello", "--persona", "pirate")
    assert done.returncode == 1
    assert "bad_payload" in done.stderr
    assert "pirate" in done.stderr


def test_say_without_a_broker_says_what_to_do(tmp_path: Path) -> None:
    brain = Brain(tmp_path, free_port())
    done = brain.command("say", "hello")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(brain.environ["MQTT_PORT"]) in done.stderr


def test_say_without_a_brain_says_so(tmp_path: Path, broker: Mosquitto) -> None:
    done = Brain(tmp_path, broker.port).command("say", "hello", "--timeout", "0.5")
    assert done.returncode == 1
    assert "is the brain running?" in done.stderr


def test_chat_answers_line_by_line(shared_brain: Brain) -> None:
    done = shared_brain.command("chat", "--device", "chatter", stdin=f"Hello!\n\n{CLOCK}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("you> ") == 4
    shown = json.loads(shared_brain.command("memory", "show", "chatter", "--json").stdout)
    assert [turn["user_text"] for turn in shown["turns"]] == ["Hello!", CLOCK]


def test_doctor_finds_everything_well(shared_brain: Brain) -> None:
    assert "ok    brain" in shared_brain.command("doctor").stdout
    done = shared_brain.command("doctor", "--json")
    findings = {finding["name"].strip(): finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert {name: findings[name]["status"] for name in ("model", "database", "broker", "brain")} == {
        "model": "ok",
        "database": "ok",
        "broker": "ok",
        "brain": "ok",
    }
    assert "MQTT 5" in findings["broker"]["detail"]
    assert "online" in findings["brain"]["detail"]


def test_doctor_names_what_is_wrong_and_the_fix(tmp_path: Path) -> None:
    brain = Brain(tmp_path, free_port(), LLM_MODEL_PATH=str(tmp_path / "none.gguf"))
    done = brain.command("doctor", "--json")
    failed = {finding["name"]: finding for finding in json.loads(done.stdout) if finding["status"] == "fail"}
    assert done.returncode == 1
    assert set(failed) == {"model", "broker"}
    assert all(finding["fix"] for finding in failed.values())


def test_config_show_gives_every_setting(shared_brain: Brain) -> None:
    done = shared_brain.command("config", "show", "--json")
    values = json.loads(done.stdout)
    assert set(values) == {field.upper() for field in Settings.model_fields}
    assert values["MQTT_CLIENT_ID"] == "naila-test"
    assert values["LLM_THREADS"] == 1


def test_config_show_keeps_the_password_to_itself(tmp_path: Path) -> None:
    brain = Brain(tmp_path, 1883, MQTT_USERNAME="robot", MQTT_PASSWORD="s3cret")  # noqa: S106 - no real one
    for arguments in (("config", "show"), ("config", "show", "--json")):
        done = brain.command(*arguments)
        assert done.returncode == 0
        assert "s3cret" not in done.stdout + done.stderr
        assert "*****" in done.stdout


def test_config_check_says_that_all_is_right(shared_brain: Brain) -> None:
    done = shared_brain.command("config", "check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("environ", [{"PERSONA": "pirate"}, {"LLM_MODE": "api"}])
def test_config_check_finds_what_would_end_the_start(tmp_path: Path, environ: dict[str, str]) -> None:
    done = Brain(tmp_path, 1883, **environ).command("config", "check")
    assert done.returncode == 78
    assert next(iter(environ.values())) in done.stderr


@pytest.mark.parametrize("command", [["config", "check"], ["run"], ["say", "hello"]])
def test_a_wrong_setting_ends_every_command_with_its_name(tmp_path: Path, command: list[str]) -> None:
    done = Brain(tmp_path, 1883, LLM_TEMPERATURE="hot").command(*command)
    assert done.returncode == 78
    assert "LLM_TEMPERATURE='hot'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PERSONA": "pirate"}, "pirate"),
        ({"LLM_MODE": "api"}, "LLM_MODE='api'"),
        ({"MQTT_TLS_CA": "missing.pem"}, "missing.pem"),
        ({"CONFIG_DIR": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_installation_ends_the_start(tmp_path: Path, environ: dict[str, str], message: str) -> None:
    done = Brain(tmp_path, 1883, **environ).command("run")
    assert done.returncode == 78
    assert message in done.stderr
    assert "Traceback" not in done.stderr


async def test_memory_is_listed_shown_and_forgotten(settings: Settings, shared_brain: Brain) -> None:
    async with Device(settings, "elephant") as device:
        await device.ask(ask_of("elephant", "My name is Ada.", conversation_id="one"))
        await device.ask(ask_of("elephant", CLOCK, conversation_id="two"))
    listed = json.loads(shared_brain.command("memory", "list", "--json").stdout)
    assert [(d["turns"], d["facts"]) for d in listed if d["device_id"] == "elephant"] == [(2, 1)]
    shown = shared_brain.command("memory", "show", "elephant").stdout
    assert "name = Ada" in shown
    assert CLOCK in shown
    last = json.loads(shared_brain.command("memory", "show", "elephant", "--last", "1", "--json").stdout)
    assert [turn["user_text"] for turn in last["turns"]] == [CLOCK]
    gone = json.loads(shared_brain.command("memory", "forget", "elephant", "--conversation", "two", "--json").stdout)
    assert (gone["turns"], gone["facts"]) == (1, 0)
    shared_brain.command("memory", "forget", "elephant")
    assert "nothing is remembered of elephant" in shared_brain.command("memory", "show", "elephant").stdout


def test_the_version_is_told(shared_brain: Brain) -> None:
    assert shared_brain.command("--version").stdout == f"naila {naila.__version__}\n"
