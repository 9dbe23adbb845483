"""Hears what is published on some topics, whatever it is, and lets tests wait for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self

from naila.config.settings import Settings
from naila.mqtt.broker_address import BrokerAddress
from naila.mqtt.connection import Connection
from naila.mqtt.connection_state import Receipt
from naila.mqtt.publication import Publication


class Ear:
    """Listens while its `async with` block lasts.

    Args:
        settings: which broker.
        topics: topic filters.
    """

    def __init__(self, settings: Settings, *topics: str) -> None:
        self.messages: list[Publication] = []
        self._news = asyncio.Event()
        self.connection = Connection(
            BrokerAddress.from_settings(settings, client_id=f"ear-{id(self):x}", session_expiry_s=0),
            on_message=self._on_message,
            subscriptions=topics,
        )

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.connection.run())
        await asyncio.wait_for(self.connection.ready(), 10)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.stop()
        await self._running

    def on(self, topic: str) -> list[Publication]:
        """Return what was heard on a topic."""
        return [message for message in self.messages if message.topic == topic]

    def objects(self, topic: str) -> list[dict[str, Any]]:
        """Return the JSON objects that were heard on a topic."""
        return [json.loads(message.payload) for message in self.on(topic)]

    async def until(self, condition: Callable[[Publication], bool], timeout_s: float = 30.0) -> Publication:
        """Return the first message for which `condition` holds, heard already or not yet."""
        async with asyncio.timeout(timeout_s):
            seen = 0
            while True:
                for message in self.messages[seen:]:
                    seen += 1
                    if condition(message):
                        return message
                self._news.clear()
                await self._news.wait()

    async def until_object(
        self, topic: str, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 30.0
    ) -> dict[str, Any]:
        """Return the first JSON object on a topic for which `condition` holds."""
        found = await self.until(lambda m: m.topic == topic and condition(json.loads(m.payload)), timeout_s)
        document: dict[str, Any] = json.loads(found.payload)
        return document

    def _on_message(self, message: Publication, receipt: Receipt) -> None:
        self.messages.append(message)
        self.connection.ack(receipt)
        self._news.set()
