"""A device of examples/ as tests use it: a real process on a real broker, told what to do as the brain tells it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from naila.mqtt.publication import Publication
from support.ear import Ear
from support.mosquitto import Mosquitto

EXAMPLES = Path(__file__).parents[2] / "examples"


class Example:
    """One device process, and the brain's side of its topics.

    Args:
        ear: hears all that the device says.
        device_id: as the process was told.
        process: with a pipe to its standard input.
    """

    def __init__(self, ear: Ear, device_id: str, process: subprocess.Popen[str]) -> None:
        self.ear = ear
        self.process = process
        self._topic = f"naila/devices/{device_id}/"
        self._ids = (f"a{number}" for number in count(1))

    def topic(self, leaf: str) -> str:
        """Return one of the device's topics."""
        return self._topic + leaf

    def say(self, text: str) -> None:
        """Type a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def publish(self, leaf: str, document: dict[str, Any]) -> None:
        """Publish as the brain does."""
        self.ear.connection.publish(Publication(topic=self.topic(leaf), payload=json.dumps(document).encode(), qos=1))

    def order(self, name: str, /, *, id_: str | None = None, in_s: float = 20.0, **arguments: Any) -> str:
        """Publish an action; return its id."""
        action_id = id_ or next(self._ids)
        expires_at = (datetime.now(UTC) + timedelta(seconds=in_s)).isoformat(timespec="milliseconds")
        action = {"id": action_id, "request_id": "q1", "name": name, "arguments": arguments, "seq": 1}
        self.publish("action", {**action, "expires_at": expires_at.replace("+00:00", "Z")})
        return action_id

    async def result(self, action_id: str) -> dict[str, Any]:
        """Return the result of an action."""
        return await self.ear.until_object(self.topic("action/result"), lambda found: found["id"] == action_id)

    async def do(self, name: str, /, *, in_s: float = 20.0, **arguments: Any) -> dict[str, Any]:
        """Publish an action; return its result."""
        return await self.result(self.order(name, in_s=in_s, **arguments))

    async def telemetry(self) -> dict[str, Any]:
        """Return the next telemetry."""
        seen = len(self.ear.on(self.topic("telemetry")))
        await self.ear.until(lambda _: len(self.ear.on(self.topic("telemetry"))) > seen)
        return self.ear.objects(self.topic("telemetry"))[-1]

    async def status(self, word: str) -> None:
        """Wait until the device's status, or its last will, is a word."""
        await self.ear.until(lambda m: m.topic == self.topic("status") and m.payload == word.encode())


@asynccontextmanager
async def example(
    broker: Mosquitto, device_id: str, command: Sequence[str | Path], *, folder: Path | None = None
) -> AsyncIterator[Example]:
    """Run a device in a folder; it is there when the block begins."""
    async with Ear(broker.settings(), f"naila/devices/{device_id}/#") as ear:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting it does not wait for it
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=folder
        )
        device = Example(ear, device_id, process)
        try:
            await device.status("online")
            yield device
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()


def python_example(broker: Mosquitto, device_id: str, script: str, *, speed_up: float = 10.0) -> list[str | Path]:
    """Return the command line of an example in Python."""
    options = ["--host", "127.0.0.1", "--port", str(broker.port), "--device-id", device_id, "--plain"]
    return [sys.executable, EXAMPLES / script, *options, "--speed-up", str(speed_up)]
