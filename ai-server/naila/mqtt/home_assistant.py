"""Keeps the brain and its devices in Home Assistant: MQTT device discovery, on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from naila.config.settings import Settings
from naila.errors import ContractError
from naila.events import JsonValue
from naila.fleet import DeviceProfile, Reading
from naila.mqtt import wire
from naila.mqtt.broker_address import BrokerAddress
from naila.mqtt.connection import Connection
from naila.mqtt.connection_state import ConnectionState, Receipt
from naila.mqtt.discovery import Discovery, components_of
from naila.mqtt.publication import Publication, Subscription
from naila.mqtt.topics import DiscoveryTopics, Topics

log = logging.getLogger(__name__)

# Changes come in bundles: a device that connects says that it is there, what it can do and what it measures.
REST_S: Final = 1.0
LOOK_AGAIN_S: Final = 15.0
MAX_FOUND: Final = 4096
_MAX_DOCUMENT_BYTES: Final = 4_000_000
_JSON: Final = "application/json"


class Devices(Protocol):
    """What is known of the devices."""

    def profile(self, device_id: str) -> DeviceProfile | None:
        """Return what a device declared, if it did."""
        ...

    def profiles(self) -> tuple[DeviceProfile, ...]:
        """Return what everybody declared."""
        ...

    def is_online(self, device_id: str) -> bool | None:
        """Tell whether a device is there; None where it never said."""
        ...

    def readings(self, device_id: str) -> Mapping[str, Reading]:
        """Return what a device measured last, by field."""
        ...


@dataclass(frozen=True, slots=True)
class _Shown:
    """What Home Assistant was told of one device: its entities with their platforms, and the document, if by us."""

    components: Mapping[str, str]
    payload: bytes | None = None


class HomeAssistant:
    """Publishes a retained document for the brain and for each device that declared something.

    Again when something changed, when Home Assistant says that it started, and on each connection. What stands there
    from before is read back, so that a device, or an entity, that is no more is removed however long ago it was. With
    HOME_ASSISTANT=off all of it is removed, and `run` returns.

    Its connection is one of its own: a broker that lets nobody write there keeps no device waiting.

    Args:
        settings: which broker, how, and whether at all.
        topics: the contract's.
        devices: what is known of the devices. Tell `changed` when that changes.
        rest_s: how long changes are gathered.
        look_again_s: how often a field without a unit is looked at again: whether it is a number shows when it is
            measured.
        rng: source of the jitter between attempts to connect.
        monotonic: seconds that never jump.

    Raises:
        ConfigurationError: the TLS files cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        devices: Devices,
        *,
        rest_s: float = REST_S,
        look_again_s: float = LOOK_AGAIN_S,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_on = settings.home_assistant == "on"
        self._places = DiscoveryTopics(settings.home_assistant_prefix, topics.root)
        self._discovery = Discovery(topics, self._places)
        self._devices = devices
        self._rest_s = rest_s
        self._look_again_s = look_again_s
        self._shown: dict[str, _Shown] = {}
        # By object id: whether it is to be published even if nothing changed.
        self._due: dict[str, bool] = {}
        self._news = asyncio.Event()
        self._connection = Connection(
            BrokerAddress.from_settings(settings, client_id=f"{settings.client_id}-home-assistant", session_expiry_s=0),
            on_message=self._on_message,
            subscriptions=(
                Subscription(self._places.configs, retain_as_published=False),
                Subscription(self._places.birth, retain_as_published=False),
            ),
            birth=self._reborn,
            rng=rng,
            monotonic=monotonic,
        )

    @property
    def connection(self) -> ConnectionState:
        """How its connection is doing; to be read only."""
        return self._connection.state

    def changed(self, device_id: str) -> None:
        """Learn that a device's declaration or presence changed, or that it is not known any more."""
        if self._is_on:
            self._mark(self._places.object_id(device_id))

    async def run(self) -> None:
        """Keep the documents right until `stop`, or until cancelled; switched off, remove them and return."""
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(self._keep() if self._is_on else self._remove_all(), name="home assistant")
            await self._connection.run()
            keeping.cancel()

    async def stop(self, *, timeout_s: float = 2.0) -> None:
        """Send what waits and disconnect; `run` returns. The documents stay: the brain's status says that it is off."""
        await self._connection.stop(timeout_s=timeout_s)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        next_look = loop.time() + self._look_again_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_look):
                    await self._news.wait()
            if loop.time() >= next_look:
                next_look = loop.time() + self._look_again_s
                self._mark_unsure()
            await asyncio.sleep(self._rest_s)
            self._news.clear()
            due, self._due = self._due, {}
            for object_id, is_forced in due.items():
                self._show(object_id, is_forced=is_forced)
                await asyncio.sleep(0)  # a fleet is many documents, and others have work to do

    async def _remove_all(self) -> None:
        await self._connection.ready()
        # What the broker kept comes after its answer to the subscription.
        await asyncio.sleep(2 * self._rest_s)
        for object_id in list(self._shown):
            self._remove(object_id)
        await self._connection.stop()

    def _reborn(self) -> tuple[Publication, ...]:
        self._mark_all()
        return ()

    def _on_message(self, message: Publication, receipt: Receipt) -> None:
        self._connection.ack(receipt)
        if message.topic == self._places.birth:
            if message.payload.strip() == b"online":
                log.info("Home Assistant started")
                self._mark_all()
            return
        object_id = self._places.own_id(message.topic)
        # What is not retained is what we said just now.
        if object_id is None or not message.retain or not message.payload:
            return
        known = self._shown.get(object_id)
        if known is None and len(self._shown) >= MAX_FOUND:
            return
        found = _components(message.payload)
        if known is None or found.keys() - known.components.keys():
            self._shown[object_id] = _Shown({**found, **(known.components if known else {})})
            self._mark(object_id)

    def _mark(self, object_id: str, *, is_forced: bool = False) -> None:
        self._due[object_id] = self._due.get(object_id, False) or is_forced
        self._news.set()

    def _mark_all(self) -> None:
        if not self._is_on:
            return
        self._mark(self._places.brain_id, is_forced=True)
        for profile in self._devices.profiles():
            self._mark(self._places.object_id(profile.device_id), is_forced=True)
        for object_id in self._shown:
            self._mark(object_id, is_forced=True)

    def _mark_unsure(self) -> None:
        for profile in self._devices.profiles():
            if any(not spec.unit for spec in profile.telemetry.values()):
                self._mark(self._places.object_id(profile.device_id))

    def _show(self, object_id: str, *, is_forced: bool) -> None:
        document = self._document(object_id)
        if document is None:
            self._remove(object_id)
            return
        payload, components = wire.dumps(document), components_of(document)
        known = self._shown.get(object_id, _Shown({}))
        if payload == known.payload and not is_forced:
            return
        gone: dict[str, JsonValue] = {
            key: {"p": platform} for key, platform in known.components.items() if key not in components
        }
        if gone:
            # An entity goes when it is named without anything but its platform; leaving it out leaves it there.
            entities = document["cmps"]
            assert isinstance(entities, dict)  # noqa: S101 - our own document
            self._publish(object_id, wire.dumps({**document, "cmps": {**entities, **gone}}), retain=False)
        self._publish(object_id, payload)
        self._shown[object_id] = _Shown(components, payload)

    def _document(self, object_id: str) -> dict[str, JsonValue] | None:
        if object_id == self._places.brain_id:
            return self._discovery.brain()
        device_id = self._places.device_id(object_id)
        profile = self._devices.profile(device_id) if device_id is not None else None
        if profile is None:
            return None
        online, readings = self._devices.is_online(profile.device_id), self._devices.readings(profile.device_id)
        return self._discovery.device(profile, online=online, readings=readings)

    def _remove(self, object_id: str) -> None:
        if self._shown.pop(object_id, None) is not None:
            log.info("%s leaves Home Assistant", object_id)
            self._publish(object_id, b"")

    def _publish(self, object_id: str, payload: bytes, *, retain: bool = True) -> None:
        topic = self._places.config(object_id)
        self._connection.publish(
            Publication(topic=topic, payload=payload, qos=1, retain=retain, content_type=_JSON if payload else None)
        )


def _components(payload: bytes) -> dict[str, str]:
    """Return what stands in a document that was read back; anybody may have written it."""
    try:
        return components_of(wire.loads(wire.decode_text(payload, max_bytes=_MAX_DOCUMENT_BYTES)))
    except ContractError as exc:
        log.warning("a document in Home Assistant's discovery that is no longer understood is replaced: %s", exc)
        return {}
