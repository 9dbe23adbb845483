"""The MQTT parts as tests use them: a brain that records what it takes in, and waiting for a condition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from naila.config.settings import Settings
from naila.errors import ContractError
from naila.events import BrainState, BrainStatus, EmergencyStop, Inbound, Intent, Outbound, Reply
from naila.mqtt.codec import Codec
from naila.mqtt.link import MqttLink
from naila.mqtt.topics import Topics


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Return when `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - conditions of several parties, some of them processes
            await asyncio.sleep(0.005)


def reply_to(intent: Intent, text: str | None = None) -> Reply:
    """Return an answer."""
    return Reply(
        device_id=intent.device_id,
        id=intent.id,
        text=text or f"you said: {intent.text}",
        intent="conversation",
        source="pattern",
        degraded=True,
        conversation_id=intent.conversation_id,
        finish_reason="stop",
    )


class EchoBrain:
    """The brain's link without a brain: answers each intent with its words. A closed gate holds the intake."""

    def __init__(
        self,
        settings: Settings,
        *,
        intake: bool = True,
        answers: bool = True,
        on_stop: Callable[[EmergencyStop, str], None] | None = None,
        is_stop: Callable[[str], bool] = lambda text: text == "stop",
    ) -> None:
        self.stops: list[tuple[EmergencyStop, str]] = []
        topics = Topics(settings.mqtt_topic_root)
        self.accepted: list[Inbound] = []
        self.state: BrainState = "online"
        self.gate = asyncio.Event()
        self.gate.set()
        self.keeping: asyncio.Future[None] | None = None
        self.old: list[bool] = []
        self.ended: list[tuple[Outbound, bool]] = []
        self.told: list[tuple[bool, str | None]] = []
        self._answers = answers
        self.link = MqttLink(
            settings,
            Codec(topics, settings.mqtt_max_payload_bytes),
            topics,
            accept=self._accept,
            birth=lambda: BrainStatus(status=self.state),
            on_stop=on_stop or (lambda stop, request_id: self.stops.append((stop, request_id))),
            on_end=lambda event, is_delivered: self.ended.append((event, is_delivered)),
            on_change=self._changed,
            is_stop=is_stop,
            intake=intake,
        )

    @property
    def texts(self) -> list[str]:
        """What was said, in the order in which it was taken in."""
        return [event.text for event in self.accepted if isinstance(event, Intent)]

    def _changed(self) -> None:
        self.told.append((self.link.status.connected, self.link.status.error))

    async def _accept(self, event: Inbound) -> asyncio.Future[None] | None:
        await self.gate.wait()
        self.old.append(self.link.is_old)
        if isinstance(event, Intent) and event.text == "raise":
            raise RuntimeError("a bug")
        if isinstance(event, Intent) and event.text == "refuse":
            raise ContractError("busy", "16 requests wait already")
        self.accepted.append(event)
        if self._answers and isinstance(event, Intent):
            self.link.publish(reply_to(event), to=event)
        return self.keeping

    @asynccontextmanager
    async def running(self, *, wait: bool = True) -> AsyncIterator[MqttLink]:
        """Run the link; stop it in good order at the end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.link.run(), name="link")
            if wait:
                await until(lambda: self.link.status.connected)
            yield self.link
            await self.link.stop(BrainStatus(status="offline"))
