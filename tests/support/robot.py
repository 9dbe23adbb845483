"""A robot as the brain sees it: declares what an example file says, hears actions, and answers as it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from naila.config.settings import Settings
from naila.events import Action, ActionPending, ActionResult, ErrorNotice, Intent, Outbound, Reply
from naila.mqtt.device import Device
from support.robots import until
from support.said import ask_of

EXAMPLES = Path(__file__).parents[2] / "examples"


def declared(name: str, *, ttl_ms: int | None = None) -> dict[str, Any]:
    """Return an example's capabilities, all of whose actions are waited for no longer than `ttl_ms`."""
    document: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text())
    if ttl_ms is not None:
        for action in document["actions"]:
            action["ttl_ms"] = ttl_ms
    return document


Answer = Callable[["Robot", Action], Awaitable[None]]


async def obeys(robot: Robot, action: Action) -> None:
    """Do it at once."""
    robot.result(action.id)


class Robot:
    """One robot, online while its `async with` block lasts.

    Args:
        settings: which broker.
        device_id: who it is.
        document: its capabilities.
        answer: what it does with an action.
    """

    def __init__(
        self, settings: Settings, device_id: str, document: Mapping[str, Any] | None = None, answer: Answer = obeys
    ) -> None:
        self.device_id = device_id
        self.device = Device(settings, device_id, capabilities=document or declared("rover"), presence=True)
        self.answer = answer
        self.heard: list[Outbound] = []

    async def __aenter__(self) -> Self:
        await self.device.__aenter__()
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.cancel()
        await self.device.__aexit__(None, None, None)

    @property
    def actions(self) -> list[Action]:
        """What it was told to do."""
        return [event for event in self.heard if isinstance(event, Action)]

    @property
    def moves(self) -> list[tuple[str, dict[str, Any]]]:
        """What it was told to do, stops aside: names and arguments."""
        return [(action.name, dict(action.arguments)) for action in self.actions if action.name != "stop"]

    @property
    def pending(self) -> list[ActionPending]:
        """What it was asked to have a person approve."""
        return [event for event in self.heard if isinstance(event, ActionPending)]

    @property
    def replies(self) -> list[Reply]:
        """All replies that it heard, in the order in which they came."""
        return [event for event in self.heard if isinstance(event, Reply)]

    @property
    def errors(self) -> list[str]:
        """Codes of the errors that it heard."""
        return [event.code for event in self.heard if isinstance(event, ErrorNotice)]

    def result(self, action_id: str, *, ok: bool = True, error: str | None = None, result: Any = None) -> None:
        """Say what became of an action."""
        self.device.send(ActionResult(device_id=self.device_id, id=action_id, ok=ok, result=result, error=error))

    def tell(self, text: str, **fields: Any) -> Intent:
        """Say something through it and return the request; the reply will be among `replies`."""
        intent = ask_of(self.device_id, text, **fields)
        self.device.send(intent)
        return intent

    async def say(self, text: str, *, timeout_s: float = 15.0, **fields: Any) -> Reply:
        """Say something through it and return the reply."""
        return await self.reply_to(self.tell(text, **fields), timeout_s=timeout_s)

    def press(self, action: str, **arguments: Any) -> Intent:
        """Ask for a named action, as a button does, and return the request."""
        return self.tell("a button", intent="action", entities={"action": action, "arguments": arguments})

    async def do(self, action: str, **arguments: Any) -> Reply:
        """Ask for a named action and return the reply."""
        return await self.reply_to(self.press(action, **arguments))

    async def reply_to(self, intent: Intent, *, timeout_s: float = 15.0) -> Reply:
        """Return the reply to a request."""
        await until(lambda: any(reply.id == intent.id for reply in self.replies), timeout_s)
        return next(reply for reply in self.replies if reply.id == intent.id)

    async def asked(self, count: int = 1) -> ActionPending:
        """Return the newest of so many questions to a person."""
        await until(lambda: len(self.pending) >= count)
        return self.pending[-1]

    async def _listen(self) -> None:
        while True:
            event = await self.device.hear()
            self.heard.append(event)
            if isinstance(event, Action):
                await self.answer(self, event)
