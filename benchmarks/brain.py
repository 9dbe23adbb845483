"""NAILA under test: the real daemon in its own process, behind a real Mosquitto, seen by its robots over MQTT."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from benchmarks.baselines import START_TIMEOUT_S, Terms
from benchmarks.conversation import PERSONAS, Answer, AnswerError, Heard, robot_name

from naila.events import Intent, Reply, StreamItem
from naila.mqtt.device import Device
from naila.ports import ChatMessage
from support.brain import ROOT, Brain
from support.mosquitto import Mosquitto

KEEPALIVE_S = 10


@dataclass(frozen=True, slots=True)
class Naila:
    """The daemon, with what is common to all parties and otherwise its own defaults."""

    terms: Terms
    persona: str
    environ: Mapping[str, str] = field(default_factory=dict)
    name: str = "NAILA"

    @asynccontextmanager
    async def running(self, folder: Path, robots: int) -> AsyncGenerator[NailaTalker]:
        """Start broker and daemon, both new and remembering nothing, and connect the robots."""
        broker = Mosquitto(folder).start()
        brain = Brain(folder, broker.port, **self._settings(folder))
        async with AsyncExitStack() as stack:
            stack.callback(broker.stop)
            stack.push_async_callback(asyncio.to_thread, brain.stop)
            talker = NailaTalker(broker, brain, stack, self.terms.timeout_s)
            await talker.start()
            await talker.connect(robots)
            yield talker

    def _settings(self, folder: Path) -> dict[str, str]:
        config = folder / "config"
        shutil.copytree(ROOT / "config", config)
        shutil.copytree(PERSONAS, config / "personas", dirs_exist_ok=True)
        return {
            "CONFIG_DIR": str(config),
            "PERSONA": self.persona,
            "LLM_MODEL_PATH": str(self.terms.model),
            "LLM_THREADS": str(self.terms.threads),
            "LLM_CONTEXT_SIZE": str(self.terms.context),
            "LLM_TIMEOUT_S": str(self.terms.timeout_s),
            "MQTT_KEEPALIVE_S": str(KEEPALIVE_S),
            "MQTT_CLIENT_ID": "naila-bench",
            **self.environ,
        }


class NailaTalker:
    """Robots on the broker: each is a client of its own.

    Attributes:
        brain: the daemon's process.
        broker: what everybody talks through.
    """

    def __init__(self, broker: Mosquitto, brain: Brain, stack: AsyncExitStack, timeout_s: float) -> None:
        self.brain = brain
        self.broker = broker
        self._settings = broker.settings(MQTT_KEEPALIVE_S=KEEPALIVE_S)
        self._stack = stack
        self._timeout_s = timeout_s
        self._devices: dict[str, Device] = {}

    async def start(self, **environ: str) -> None:
        """Start the daemon; returns when it is online."""
        self.brain.start(**environ)
        watcher = await self._device("watcher")
        await watcher.wait_for_brain("online", timeout_s=START_TIMEOUT_S)

    async def stop(self) -> None:
        """End the daemon in good order; the broker and the robots stay."""
        await asyncio.to_thread(self.brain.stop)
        await (await self._device("watcher")).wait_for_brain("offline")

    async def connect(self, robots: int) -> None:
        """Connect so many robots to the broker."""
        await asyncio.gather(*(self._device(robot_name(number)) for number in range(robots)))

    async def ask(self, robot: str, history: Sequence[ChatMessage], words: str, max_tokens: int) -> Answer:  # noqa: ARG002 - it remembers by itself
        """Send an intent and listen to the stream and the reply."""
        device = await self._device(robot)
        intent = Intent(device_id=robot, id=token_hex(8), text=words, stream=True, max_tokens=max_tokens)
        heard = Heard()
        async for item in device.stream(intent, timeout_s=self._timeout_s):
            if isinstance(item, StreamItem):
                heard.piece(item.text)
            if not isinstance(item, Reply):
                continue
            if item.source != "llm" or item.degraded:
                raise AnswerError(f"not the model's answer: {item.source}, degraded: {item.degraded}: {item.text!r}")
            answer = heard.answer(item.usage, item.finish_reason)
            if answer.text != item.text:
                raise AnswerError(f"the stream said {answer.text!r} and the reply {item.text!r}")
            return answer
        raise AnswerError("no reply came")

    async def _device(self, name: str) -> Device:
        if name not in self._devices:
            self._devices[name] = await self._stack.enter_async_context(Device(self._settings, name))
        return self._devices[name]
