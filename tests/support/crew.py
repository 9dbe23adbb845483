"""Devices as the contract asks them to be, who write down all that happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self

from naila.config.settings import Settings
from naila.errors import ContractError
from naila.events import Action, ActionResult, Capabilities, DeviceStatus, ErrorNotice, Intent, JsonValue, Reply
from naila.mqtt.broker_address import BrokerAddress
from naila.mqtt.codec import Codec
from naila.mqtt.connection import Connection
from naila.mqtt.connection_state import Receipt
from naila.mqtt.publication import Publication
from naila.mqtt.topics import Topics
from support.tally import Tally

BEEPER: Final[Mapping[str, JsonValue]] = {
    "name": "Beeper",
    "actions": [
        {
            "name": "beep",
            "description": "Beep.",
            "parameters": {
                "type": "object",
                "properties": {"times": {"type": "integer", "minimum": 1, "maximum": 5, "default": 1}},
                "additionalProperties": False,
            },
            "ttl_ms": 20_000,
            "examples": ["beep", "beep twice", "make a sound"],
        }
    ],
}
# What a brain without a model answers by itself, and one thing that it has a robot do.
ASKED: Final = ("What time is it?", "beep twice", "What day is it today?", "Hello!", "beep", "Who are you?")
NOT_YET: Final = frozenset({"busy", "internal"})
PAUSE_S: Final = 0.25


class Robot:
    """One device with a beeper, connected while its `async with` block lasts.

    It declares what it can do on each connection, does an action once however often its id comes, says what became of
    it each time, and repeats a request until it is answered.

    Args:
        settings: which broker.
        device_id: who it is.
        tally: the books.
        acts_s: how long an action takes.
    """

    def __init__(self, settings: Settings, device_id: str, tally: Tally, *, acts_s: float = 0.0) -> None:
        self.device_id = device_id
        self._tally = tally
        self._acts_s = acts_s
        topics = Topics(settings.mqtt_topic_root)
        self._codec = Codec(topics, settings.mqtt_max_payload_bytes)
        self._done: set[str] = set()
        self._news: dict[str, asyncio.Event] = {}
        self._refusals: dict[str, str] = {}
        self._doing: set[asyncio.Task[None]] = set()
        birth = (
            DeviceStatus(device_id=device_id, status="online"),
            Capabilities(device_id=device_id, document=BEEPER),
        )
        self.connection = Connection(
            BrokerAddress.from_settings(settings, client_id=f"crew-{device_id}", session_expiry_s=3600),
            on_message=self._on_message,
            subscriptions=topics.for_device(device_id),
            birth=lambda: [self._codec.encode(event) for event in birth],
        )

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.connection.run(), name=f"robot {self.device_id}")
        await asyncio.wait_for(self.connection.ready(), 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        for task in self._doing:
            task.cancel()
        await asyncio.wait({self._running, *self._doing})

    async def ask(self, request_id: str, text: str, *, repeat_s: float | None, timeout_s: float) -> bool:
        """Ask until there is a reply, or an error that no patience cures; return whether there was either.

        Args:
            request_id: its id.
            text: what is said.
            repeat_s: how often it is repeated; None: sent once, and again only where it was refused for now.
            timeout_s: when to give up.
        """
        key, news = (self.device_id, request_id), self._news.setdefault(request_id, asyncio.Event())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self.say(request_id, text)
        while self._tally.open(key):
            news.clear()
            due = deadline if repeat_s is None else min(deadline, loop.time() + repeat_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await news.wait()
            refusal = self._refusals.pop(request_id, None)
            if refusal is not None and refusal not in NOT_YET:
                return True
            if loop.time() >= deadline:
                return False
            if self._tally.open(key) and (refusal is not None or loop.time() >= due):
                await asyncio.sleep(PAUSE_S if refusal else 0)
                self.say(request_id, text)
        return True

    def say(self, request_id: str, text: str) -> None:
        """Send a request, or send it again."""
        self._tally.sent((self.device_id, request_id))
        self.connection.publish(self._codec.encode(Intent(device_id=self.device_id, id=request_id, text=text)))

    def _on_message(self, message: Publication, receipt: Receipt) -> None:
        self.connection.ack(receipt)
        with contextlib.suppress(ContractError):
            match self._codec.decode_outbound(message):
                case Reply(id=request_id):
                    self._tally.replied((self.device_id, request_id), message.payload)
                    self._tell(request_id)
                case ErrorNotice(id=request_id, code=code):
                    self._tally.refused((self.device_id, request_id) if request_id else None, code)
                    if request_id:
                        self._refusals[request_id] = code
                        self._tell(request_id)
                case Action() as action:
                    self._act(action)

    def _tell(self, request_id: str) -> None:
        if request_id in self._news:
            self._news[request_id].set()

    def _act(self, action: Action) -> None:
        if action.id in self._done:
            self._tally.redelivered()
        else:
            self._done.add(action.id)
            what = f"{action.name} {json.dumps(action.arguments, sort_keys=True)}"
            self._tally.acted((self.device_id, action.request_id), what)
        task = asyncio.create_task(self._report(action.id))
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    async def _report(self, action_id: str) -> None:
        await asyncio.sleep(self._acts_s)
        self.connection.publish(self._codec.encode(ActionResult(device_id=self.device_id, id=action_id, ok=True)))


@asynccontextmanager
async def crew(settings: Settings, size: int, tally: Tally, *, acts_s: float = 0.0) -> AsyncIterator[list[Robot]]:
    """Connect so many robots."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Robot(settings, f"robot-{n}", tally, acts_s=acts_s)) for n in range(size)
        ]


async def work(
    robots: Sequence[Robot],
    numbers: Iterable[int],
    *,
    at_once: int = 1,
    repeat_s: float | None = 1.0,
    timeout_s: float = 120.0,
    pause_s: float = 0.0,
) -> None:
    """Have the robots ask; returns when everything is answered or given up.

    Args:
        robots: who asks.
        numbers: of the requests.
        at_once: how many of them each robot has open.
        repeat_s: how often they are repeated; None: never.
        timeout_s: when one is given up.
        pause_s: how long each waits between an answer and the next request.
    """
    left = iter(numbers)

    async def ask(robot: Robot) -> None:
        for number in left:
            await robot.ask(f"q{number}", ASKED[number % len(ASKED)], repeat_s=repeat_s, timeout_s=timeout_s)
            await asyncio.sleep(pause_s)

    async with asyncio.TaskGroup() as group:
        for robot in robots:
            for _ in range(at_once):
                group.create_task(ask(robot))
