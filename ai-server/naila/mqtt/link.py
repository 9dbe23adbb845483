"""The brain's link to its devices: intake, acknowledgement, publishing."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from naila.config.settings import Settings
from naila.errors import ContractError
from naila.events import BrainStatus, ErrorNotice, Inbound, Intent, Outbound, Reply, StreamItem
from naila.mqtt.broker_address import BrokerAddress, Version
from naila.mqtt.codec import Codec
from naila.mqtt.connection import Connection
from naila.mqtt.connection_state import Receipt
from naila.mqtt.publication import Publication
from naila.mqtt.topics import Topics

log = logging.getLogger(__name__)

MAX_INTAKE = 1024
SUBSCRIBE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatus:
    """How the link is doing.

    Attributes:
        connected: accepted by the broker, now.
        protocol: the MQTT version in use.
        error: why it is not connected, or what the broker refuses, with what to do.
        received: messages from devices.
        refused: of these, what broke the contract or found no room.
        published: messages that the broker has.
        dropped: messages given up because too many waited for the broker.
        reconnects: connections after the first.
        last_progress: monotonic time; stands still when the link hangs.
    """

    connected: bool
    protocol: Version | None
    error: str | None
    received: int
    refused: int
    published: int
    dropped: int
    reconnects: int
    last_progress: float


class MqttLink:
    """The brain's side of the contract; a `naila.ports.Publisher`.

    A message is acknowledged after `accept` has returned, one after the other, in the order in which they came. Of
    QoS 1 messages the broker holds at most the receive maximum (256) unacknowledged at us; whatever comes beyond
    `MAX_INTAKE` waiting messages (QoS 0, or a broker of 3.1.1 without a limit) is refused with `busy`.

    The session outlives the connection. So devices are heard from the first connection on, before `start_intake`,
    if the brain ran before; `accept` must be ready for that.

    Args:
        settings: which broker, and how.
        codec: the wire forms.
        topics: the topics of this installation.
        accept: takes an event in for good. May refuse with a `ContractError`, which the device is told.
        birth: the brain's status, published on each connection.
        intake: subscribe from the start; else `start_intake` does.
        rng: source of the jitter between attempts to connect.
        monotonic: seconds that never jump.

    Raises:
        ConfigurationError: the TLS files cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        topics: Topics,
        *,
        accept: Callable[[Inbound], Awaitable[None]],
        birth: Callable[[], BrainStatus],
        intake: bool = True,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._codec = codec
        self._topics = topics
        self._accept = accept
        self._monotonic = monotonic
        self._intake_started = intake
        self._intake: asyncio.Queue[tuple[Publication, Receipt]] = asyncio.Queue(MAX_INTAKE)
        self._accepting_since: float | None = None
        self._refused = 0
        will = codec.encode(BrainStatus(status="offline"))
        self._connection = Connection(
            BrokerAddress.from_settings(settings, will=will),
            on_message=self._on_message,
            subscriptions=topics.intake() if intake else (),
            birth=lambda: (codec.encode(birth()),),
            rng=rng,
            monotonic=monotonic,
        )

    @property
    def status(self) -> LinkStatus:
        """How the link is doing, now."""
        state = self._connection.state
        progress = state.last_progress
        if self._accepting_since is not None:
            progress = min(progress, self._accepting_since)
        return LinkStatus(
            connected=state.connected,
            protocol=state.protocol,
            error=state.error,
            received=state.received,
            refused=self._refused,
            published=state.published,
            dropped=state.dropped,
            reconnects=state.reconnects,
            last_progress=progress,
        )

    async def run(self) -> None:
        """Keep the link up until `stop`, or until cancelled: then the broker publishes the will."""
        async with asyncio.TaskGroup() as group:
            intake = group.create_task(self._take_in(), name="mqtt intake")
            await self._connection.run()
            intake.cancel()

    async def start_intake(self) -> None:
        """Subscribe to what devices send; returns when the broker has answered, or is not there now."""
        if self._intake_started:
            return
        self._intake_started = True
        self._connection.subscribe(self._topics.intake())
        if self._connection.state.connected:
            try:
                await asyncio.wait_for(self._connection.ready(), SUBSCRIBE_TIMEOUT_S)
            except TimeoutError:
                log.warning("the broker has not answered the subscription within %g s", SUBSCRIBE_TIMEOUT_S)

    async def stop(self, final: BrainStatus, *, timeout_s: float = 2.0) -> None:
        """Send what waits, then the final status, and disconnect; `run` returns."""
        await self._connection.stop([self._codec.encode(final)], timeout_s=timeout_s)

    def publish(self, event: Outbound, *, to: Intent | None = None) -> None:
        """Send an event, and a copy to the response topic of the request that it answers; never blocks."""
        try:
            message = self._codec.encode(event)
        except ValueError:
            log.exception("an event could not be put into JSON: %r", event)
            return
        self._connection.publish(message)
        if to is not None and to.response_topic and isinstance(event, Reply | StreamItem | ErrorNotice):
            self._connection.publish(replace(message, topic=to.response_topic, correlation_data=to.correlation_data))

    def _on_message(self, message: Publication, receipt: Receipt) -> None:
        try:
            self._intake.put_nowait((message, receipt))
        except asyncio.QueueFull:
            self._refuse_for_want_of_room(message)
            self._connection.ack(receipt)

    async def _take_in(self) -> None:
        while True:
            message, receipt = await self._intake.get()
            self._accepting_since = self._monotonic()
            await self._take_in_one(message)
            self._connection.ack(receipt)
            self._accepting_since = None

    async def _take_in_one(self, message: Publication) -> None:
        event: Inbound | None = None
        try:
            event = self._codec.decode(message)
            if event is not None:
                await self._accept(event)
        except ContractError as exc:
            self._refuse(exc, event)
        except Exception:
            # One message must not silence every device.
            log.exception("a message to %s could not be taken in", message.topic)
            self._refuse(self._internal(event, message), event)

    def _internal(self, event: Inbound | None, message: Publication) -> ContractError:
        text = "the brain failed to take this in; its log says why"
        if isinstance(event, Intent):
            return ContractError("internal", text, device_id=event.device_id, request_id=event.id)
        return ContractError("internal", text, device_id=self._sender(message))

    def _refuse(self, refusal: ContractError, event: Inbound | None) -> None:
        """Tell the device, where its topic names one that can be told."""
        self._refused += 1
        device_id = refusal.device_id or (event.device_id if event else None)
        request_id = refusal.request_id or (event.id if isinstance(event, Intent) else None)
        log.info("refused from %s: %s: %s", device_id, refusal.code, refusal)
        if device_id is not None:
            notice = ErrorNotice(device_id=device_id, code=refusal.code, message=str(refusal), id=request_id)
            self.publish(notice, to=event if isinstance(event, Intent) else None)

    def _refuse_for_want_of_room(self, message: Publication) -> None:
        text = f"{MAX_INTAKE} messages wait to be taken in: send it again later"
        self._refuse(ContractError("busy", text, device_id=self._sender(message)), None)

    def _sender(self, message: Publication) -> str | None:
        try:
            return self._topics.parse(message.topic)[0]
        except ContractError as exc:
            return exc.device_id
