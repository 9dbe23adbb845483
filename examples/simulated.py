"""A simulated device on a real MQTT client: what every NAILA device does, whatever it is.

It declares itself (`capabilities`, retained), says that it is there (`status`, with a last will), measures
(`telemetry`), does what it is told (`action`, then `action/result`) and lets people speak (`intent`, then `reply`).
docs/devices.md explains each. Needs paho-mqtt 2, else only the standard library.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from actions import STEP_S, Actions
from command_line import client_of
from declared import Failed, problem_of_parameter
from paho.mqtt.client import MQTTMessageInfo
from talk import Talk
from terminal import Terminal

TELEMETRY_S = 1.0
LONGEST_GAP_S = 0.2
HEARD = ("action", "action/pending", "reply", "error")


class SimulatedDevice:
    """A subclass has a method for each declared action, and overrides `step`, `halt`, `measure` and perhaps `draw`."""

    def __init__(self, capabilities: Path, options: Namespace, parameters: dict[str, Any]) -> None:
        self.document = json.loads(capabilities.read_text(encoding="utf-8"))
        self.parameters = parameters
        self.terminal = Terminal(options.device_id, plain=options.plain or not sys.stdout.isatty())
        self._options = options
        self._topic = f"{options.root}/devices/{options.device_id}/"
        self._inbox: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._lived_until = self._telemetry_at = time.monotonic()
        declared = {action["name"]: action for action in self.document["actions"]}
        self._actions = Actions(declared, partial(getattr, self), self.halt, self._answer)
        self._talk = Talk(self._send, self.terminal.say)
        self._client = client_of(options, self._topic)
        # Paho calls from its own thread; everything else happens in one.
        self._client.on_connect = lambda *_: self._inbox.put(("connected", b""))
        self._client.on_message = lambda _client, _data, message: self._inbox.put(
            (message.topic, bytes(message.payload))
        )

    def step(self, dt_s: float) -> None:
        """Let simulated time pass."""

    def halt(self) -> None:
        """Stand still, now."""

    def measure(self) -> dict[str, Any]:
        """Return the telemetry of this moment: numbers, booleans and short strings."""
        return {}

    def draw(self) -> list[str]:
        """Return what the terminal shows."""
        return [f"{name:>18}: {value}" for name, value in {**self.measure(), **self.parameters}.items()]

    def set_parameter(self, name: str, value: Any) -> dict[str, Any]:
        """Do the action that every device with a writable parameter has."""
        if wrong := problem_of_parameter(self.document, name, value):
            raise Failed(wrong)
        self.parameters[name] = value
        return {name: value}

    def run(self) -> None:
        """Live until Ctrl-C."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self._client.connect_async(self._options.host, self._options.port, keepalive=10)
        self._client.loop_start()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            while True:
                self._live()
        except KeyboardInterrupt:
            self._actions.stop()
            if self._client.is_connected():
                self._publish("status", "offline", retain=True).wait_for_publish(2)
        finally:
            self._client.disconnect()
            self._client.loop_stop()
            self.terminal.close()

    def _live(self) -> None:
        """Take in what came, let time pass, and report."""
        try:
            self._take(*self._inbox.get(timeout=STEP_S))
            while True:
                self._take(*self._inbox.get_nowait())
        except queue.Empty:
            pass
        now = time.monotonic()
        self._lived_until = max(self._lived_until, now - LONGEST_GAP_S)  # while a computer hangs, nothing moves
        while self._lived_until + STEP_S / self._options.speed_up <= now:
            self._lived_until += STEP_S / self._options.speed_up
            self.step(STEP_S)
            self._actions.advance()
        self._talk.repeat()
        if now >= self._telemetry_at:
            self._telemetry_at = now + TELEMETRY_S / min(self._options.speed_up, 10)
            self._publish("telemetry", json.dumps({**self.measure(), **self.parameters}), qos=0)
        if self.terminal.is_due():
            self.terminal.show(self.draw())

    def _take(self, topic: str, payload: bytes) -> None:
        leaf = topic.removeprefix(self._topic)
        if leaf == "connected":
            self._client.subscribe([(self._topic + name, 1) for name in HEARD])
            self._publish("capabilities", json.dumps(self.document), retain=True)
            self._publish("status", "online", retain=True)
            self.terminal.say("device", "connected")
        elif leaf == "typed":
            self.terminal.line_was_typed()
            self._talk.hear(payload.decode())
        else:
            try:
                message = json.loads(payload)
                if leaf == "action":
                    self.terminal.say(leaf, f"{message['name']} {message['arguments']}")
                    self._actions.take(message)
                else:
                    self._talk.take(leaf, message)
            except (ValueError, KeyError, TypeError) as wrong:
                self.terminal.say("device", f"{leaf}: not understood: {wrong!r}")

    def _answer(self, result: dict[str, Any]) -> None:
        self.terminal.say("result", json.dumps(result))
        self._publish("action/result", json.dumps(result))

    def _send(self, leaf: str, payload: str) -> bool:
        """Send what nobody should find later: nothing is kept while there is no broker."""
        return self._client.is_connected() and self._publish(leaf, payload).rc == 0

    def _publish(self, leaf: str, payload: str, *, qos: int = 1, retain: bool = False) -> MQTTMessageInfo:
        return self._client.publish(self._topic + leaf, payload, qos=qos, retain=retain)

    def _listen(self) -> None:
        for line in sys.stdin:
            if text := line.strip():
                self._inbox.put(("typed", text.encode()))
