"""The ESP32 examples: compiled or run here, their boards made of stubs, on a real broker.

MicroPython's runs on Python, or on a real MicroPython (its executable in MICROPYTHON, the stubs and the real umqtt on
its MICROPYPATH). Arduino's is compiled against stubs, and runs where ARDUINO_LIBRARIES is a folder with the real
espMqttClient and ArduinoJson.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.example import EXAMPLES, Example, example
from support.mosquitto import Mosquitto

pytestmark = pytest.mark.broker

PYTHON_STUBS = Path(__file__).parent / "micropython_stubs"
STUBS = Path(__file__).parent / "arduino_stubs"
SKETCH = EXAMPLES / "esp32_arduino" / "naila_rover"
LIBRARIES = os.environ.get("ARDUINO_LIBRARIES")


def edited(path: Path, changes: dict[str, str]) -> str:
    """Return a program as a person would edit it; what is to be edited stands in it once."""
    text = path.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def micropython(port: int, device_id: str, folder: Path) -> list[str | Path]:
    shutil.copytree(EXAMPLES / "esp32_micropython", folder, dirs_exist_ok=True)
    changes = {
        '"192.168.1.10", 1883, "rover32"': f'"127.0.0.1", {port}, "{device_id}"',
        "DUTY = 0.25, 120,": "DUTY = 2.5, 1200,",
    }
    (folder / "main.py").write_text(edited(folder / "main.py", changes))
    real = os.environ.get("MICROPYTHON")
    return [real, "main.py"] if real else [sys.executable, PYTHON_STUBS / "on_python.py"]


def compiler(*options: str | Path) -> None:
    command = [shutil.which("g++") or pytest.skip("there is no g++"), "-std=gnu++17", "-Wall", "-Wextra", "-Werror"]
    made = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


def arduino(port: int, device_id: str, folder: Path) -> list[str | Path]:
    assert LIBRARIES is not None
    changes = {
        '"192.168.1.10"': '"127.0.0.1"',
        "PORT = 1883": f"PORT = {port}",
        '"rover32"': f'"{device_id}"',
        "0.25, DEGREES_PER_S = 120": "2.5, DEGREES_PER_S = 1200",
    }
    (folder / "rover.cpp").write_text(edited(SKETCH / "naila_rover.ino", changes))
    client = Path(LIBRARIES) / "espMqttClient" / "src"
    sources = [path for path in client.rglob("*.cpp") if path.name != "espMqttClient.cpp"]
    includes = [f"-I{STUBS / 'real'}", f"-I{STUBS}", f"-I{SKETCH}", f"-I{client}", f"-I{LIBRARIES}/ArduinoJson/src"]
    define = f'-DSKETCH="{folder / "rover.cpp"}"'
    # What the libraries are warned of is their business.
    compiler("-w", *includes, define, STUBS / "stub_main.cpp", *sources, "-lpthread", "-o", folder / "rover")
    return [folder / "rover"]


@pytest.fixture(params=[micropython, arduino] if LIBRARIES else [micropython], ids=lambda board: board.__name__)
async def rover(
    request: pytest.FixtureRequest, broker: Mosquitto, device_id: str, tmp_path: Path
) -> AsyncIterator[Example]:
    command = request.param(broker.port, device_id, tmp_path)
    async with example(broker, device_id, command, folder=tmp_path) as device:
        yield device


def test_the_sketch_compiles_without_a_warning() -> None:
    includes = [f"-I{STUBS / 'syntax'}", f"-I{STUBS}", f"-I{SKETCH}"]
    compiler("-fsyntax-only", *includes, f'-DSKETCH="{SKETCH / "naila_rover.ino"}"', STUBS / "stub_main.cpp")


def test_both_boards_declare_the_same() -> None:
    found = re.search(r'R"json\((.*)\)json"', (SKETCH / "capabilities.h").read_text(), re.DOTALL)
    assert found is not None
    assert found[1] == (EXAMPLES / "esp32_micropython" / "capabilities.json").read_text().strip()


@pytest.mark.parametrize(
    "path", sorted(p for p in EXAMPLES.rglob("*") if p.suffix in {".py", ".h", ".ino"}), ids=lambda path: path.name
)
def test_an_example_is_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 150


async def test_it_declares_itself_and_measures(rover: Example) -> None:
    assert (await rover.ear.until_object(rover.topic("capabilities"), lambda _: True))["name"] == "Rover"
    assert await rover.telemetry() == {"battery": 7.5, "moving": False}


async def test_it_obeys_and_answers_when_it_has_done_it(rover: Example) -> None:
    driving = rover.order("drive", distance=2.0, direction="backward")
    turning = rover.order("turn", angle=90, direction="left")
    assert await rover.result(turning) == {"id": turning, "ok": False, "error": "busy: I am moving"}
    assert await rover.result(driving) == {"id": driving, "ok": True}
    assert (await rover.do("turn", angle=90, direction="left"))["ok"]


async def test_what_is_late_is_not_begun(rover: Example) -> None:
    assert await rover.do("drive", distance=1, in_s=-2) == {"id": "a1", "ok": False, "error": "expired"}


async def test_the_same_action_is_done_once_and_answered_again(rover: Example) -> None:
    first = await rover.do("drive", distance=0.1)
    rover.order("drive", id_=first["id"], distance=0.1)
    await rover.do("drive", distance=0.1)
    results = [found for found in rover.ear.objects(rover.topic("action/result")) if found["id"] == first["id"]]
    assert results == [first, first]


async def test_stop_stops_at_once_and_what_it_stopped_has_failed(rover: Example) -> None:
    driving = rover.order("drive", distance=2.0)
    assert (await rover.do("stop", in_s=-10))["ok"]
    assert await rover.result(driving) == {"id": driving, "ok": False, "error": "stopped on the way"}
    assert not (await rover.telemetry())["moving"]
    assert (await rover.do("drive", distance=0.1))["ok"]


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("drive", {"distance": 99}, "distance is out of range"),
        ("drive", {"distance": 1, "wings": 2}, "is not as declared"),
        ("turn", {"angle": 90, "direction": "up"}, "direction is not as declared"),
        ("turn", {"angle": 90}, "direction is missing"),
        ("halt", {}, "unknown action"),
    ],
)
async def test_it_checks_again_what_the_brain_has_checked(
    rover: Example, name: str, arguments: dict[str, Any], error: str
) -> None:
    assert error in (await rover.do(name, **arguments))["error"]


async def test_what_is_typed_is_said(rover: Example) -> None:
    rover.say("drive a meter")
    assert (await rover.ear.until_object(rover.topic("intent"), lambda _: True))["text"] == "drive a meter"


async def test_it_outlives_what_is_no_action(rover: Example) -> None:
    rover.publish("action", {"name": "drive"})
    assert (await rover.do("drive", distance=0.1))["ok"]


async def test_whoever_kills_it_is_told_by_its_last_will(rover: Example) -> None:
    rover.process.send_signal(signal.SIGKILL)
    await rover.status("offline")
