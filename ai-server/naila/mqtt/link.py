"""The brain's link to its devices: intake, acknowledgement, publishing, and the way of an emergency stop."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from naila.config.settings import Settings
from naila.errors import ContractError
from naila.events import Action, BrainStatus, EmergencyStop, ErrorNotice, Inbound, Intent, Outbound, Reply, StreamItem
from naila.fleet import STOP
from naila.mqtt.broker_address import BrokerAddress, Version
from naila.mqtt.codec import Codec
from naila.mqtt.connection import Connection
from naila.mqtt.connection_state import ConnectionState, Receipt
from naila.mqtt.publication import Publication
from naila.mqtt.refusals import Refusals
from naila.mqtt.topics import INTENT, Topics

log = logging.getLogger(__name__)

MAX_INTAKE = 1024
MAX_INTAKE_PER_DEVICE = 128
INTAKE_SLICE_S = 0.002
MANY_WAITING_TO_BE_SENT = 500
TELL_LATER_S = 0.1
ECHO_TIMEOUT_S = 10.0
SUBSCRIBE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class _Taken:
    """A message that waits to be taken in, and the event that it is, where that is known already."""

    message: Publication
    receipt: Receipt
    sender: str | None
    event: Inbound | None = None
    arrived_at: float = 0.0
    is_old: bool = False


def _stop_unheard(stop: EmergencyStop, request_id: str) -> None:
    log.error("nobody takes the emergency stop %s of %s", request_id, stop.device_id or "everybody")


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
        dropped: messages given up because too many waited for the broker, or they waited too long.
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

    A message is acknowledged when what `accept` returned is over (at once where that is None), in the order in which
    they came; meanwhile others are taken in. One whose future is cancelled is never acknowledged: the broker brings it
    to the next session. Of QoS 1 messages the broker holds at most the receive maximum (256) unacknowledged at us;
    whatever comes beyond `MAX_INTAKE` waiting messages, `MAX_INTAKE_PER_DEVICE` of one device (QoS 0, or a broker of
    3.1.1 without a limit), is refused with `busy`. Reading and decoding take turns with everything else in the loop,
    some milliseconds each.

    **An emergency stop waits for none of this.** Stops come, and the `stop` actions that they become go, on a
    connection of their own: no window, queue or buffer that another message can fill is before them, here or in the
    broker. `on_stop` is called as soon as one is read; so it is for an intent, also a partial one, that is only a stop
    word, before that intent goes the way of all intents. What waits to be sent to a device's action topic is withdrawn
    when a stop is sent there.

    **What the broker kept for us may be old**, and nobody can see how old. So after a session is resumed, `is_old` is
    true until an echo has come back that was sent when the connection was accepted: the broker queued it behind all
    that it had kept. Where it does not come (its topic is not allowed, or the broker's queue was full), so is what
    comes within `ECHO_TIMEOUT_S`.

    The session outlives the connection. So devices are heard from the first connection on, before `start_intake`,
    if the brain ran before; `accept` must be ready for that.

    Args:
        settings: which broker, and how.
        codec: the wire forms.
        topics: the topics of this installation.
        accept: takes an event in, and returns what must be over before it is acknowledged, if anything. May refuse
            with a `ContractError`, which the device is told.
        birth: the brain's status, published on each connection.
        on_stop: called with each emergency stop and a request id for it, in the loop's thread; must not wait. The
            stop is repeated whenever its message is.
        on_end: told of each reply and error whether the broker has it now, or it was given up for want of room.
        on_change: told when one of the two connections was accepted by the broker, is lost or cannot be had.
        is_stop: whether what somebody said is only a stop word; microseconds, whatever the text.
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
        accept: Callable[[Inbound], Awaitable[asyncio.Future[Any] | None]],
        birth: Callable[[], BrainStatus],
        on_stop: Callable[[EmergencyStop, str], None] = _stop_unheard,
        on_end: Callable[[Reply | ErrorNotice, bool], None] = lambda _event, _is_delivered: None,
        on_change: Callable[[], None] = lambda: None,
        is_stop: Callable[[str], bool] = lambda _: False,
        intake: bool = True,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._codec = codec
        self._topics = topics
        self._accept = accept
        self._on_stop = on_stop
        self._is_stop = is_stop
        self._monotonic = monotonic
        self._intake_started = intake
        self._intake: asyncio.Queue[_Taken] = asyncio.Queue(MAX_INTAKE)
        self._waiting: Counter[str | None] = Counter()
        self._refusals = Refusals()
        self._accepting_since: float | None = None
        self._arrived_at = 0.0
        self._is_old = False
        self._unacknowledged: deque[tuple[Receipt, asyncio.Future[Any] | None]] = deque()
        self._room = asyncio.Event()
        self._on_end = on_end
        self._awaited_echo: bytes | None = None
        self._echo_until = 0.0
        self._echo_of = 0
        will = codec.encode(BrainStatus(status="offline"))
        self._connection = Connection(
            BrokerAddress.from_settings(settings, will=will),
            on_message=self._on_message,
            subscriptions=(*topics.intake(), topics.echo) if intake else (topics.echo,),
            birth=lambda: (*self._echo(), codec.encode(birth())),
            on_end=self._told_end,
            on_change=on_change,
            rng=rng,
            monotonic=monotonic,
        )
        self._stops = Connection(
            BrokerAddress.from_settings(settings, client_id=f"{settings.client_id}-stop"),
            on_message=self._on_stop_message,
            subscriptions=topics.stops(),
            on_change=on_change,
            rng=rng,
            monotonic=monotonic,
        )

    @property
    def status(self) -> LinkStatus:
        """How the link is doing, now."""
        state, stops = self._connection.state, self._stops.state
        progress = min(state.last_progress, stops.last_progress)
        if self._accepting_since is not None:
            progress = min(progress, self._accepting_since)
        return LinkStatus(
            connected=state.connected,
            protocol=state.protocol,
            error=state.error or _error_of_stops(stops),
            received=state.received + stops.received,
            refused=self._refusals.total,
            published=state.published + stops.published,
            dropped=state.dropped + stops.dropped,
            reconnects=state.reconnects,
            last_progress=progress,
        )

    @property
    def arrived_at(self) -> float:
        """When the event that is being accepted came, on the monotonic clock: a stop may have overtaken it since."""
        return self._arrived_at

    @property
    def is_old(self) -> bool:
        """Whether the event that is being accepted waited at the broker, nobody knows for how long."""
        return self._is_old

    async def run(self) -> None:
        """Keep the link up until `stop`, or until cancelled: then the broker publishes the will."""
        async with asyncio.TaskGroup() as group:
            intake = group.create_task(self._take_in(), name="mqtt intake")
            group.create_task(self._stops.run(), name="mqtt stops")
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
                await asyncio.wait_for(self.hearing(), SUBSCRIBE_TIMEOUT_S)
            except TimeoutError:
                log.warning("the broker has not answered the subscription within %g s", SUBSCRIBE_TIMEOUT_S)

    async def hearing(self) -> None:
        """Return when the broker has answered every subscription, that to stops too."""
        await self._connection.ready()
        await self._stops.ready()

    async def stop(self, final: BrainStatus, *, timeout_s: float = 2.0) -> None:
        """Send what waits, then the final status, and disconnect; `run` returns."""
        await asyncio.gather(
            self._connection.stop([self._codec.encode(final)], timeout_s=timeout_s),
            self._stops.stop(timeout_s=timeout_s),
        )

    def publish(self, event: Outbound, *, to: Intent | None = None) -> None:
        """Send an event, and a copy to the response topic of the request that it answers; never blocks."""
        try:
            message = self._codec.encode(event)
        except ValueError:
            log.exception("an event could not be put into JSON: %r", event)
            return
        if isinstance(event, Action) and event.name == STOP:
            self._publish_urgently(message)
            return
        messages = [message]
        if to is not None and to.response_topic and isinstance(event, Reply | StreamItem | ErrorNotice):
            messages.append(replace(message, topic=to.response_topic, correlation_data=to.correlation_data))
        if isinstance(event, Reply | ErrorNotice):
            messages[-1] = replace(messages[-1], note=event)  # acknowledged in order: the last stands for both
        for each in messages:
            self._connection.publish(each)

    def _publish_urgently(self, message: Publication) -> None:
        """Send a stop on the connection that nothing else uses, or on the other one, if only that is there."""
        self._connection.withdraw(message.topic)
        self._stops.withdraw(message.topic)
        only_the_other = self._connection.state.connected and not self._stops.state.connected
        (self._connection if only_the_other else self._stops).publish(replace(message, urgent=True))

    def _on_stop_message(self, message: Publication, receipt: Receipt) -> None:
        try:
            event = self._codec.decode(message)
        except ContractError as exc:
            self._refuse(exc, None)
        else:
            if isinstance(event, EmergencyStop):
                self._stop(event, self._codec.make_id())
        self._stops.ack(receipt)

    def _echo(self) -> tuple[Publication, ...]:
        """Return what is to come back behind all that the broker kept, where it kept anything."""
        self._awaited_echo = None
        self._echo_of = self._connection.number
        if not self._connection.is_resumed:
            return ()
        self._awaited_echo = self._codec.make_id().encode()
        self._echo_until = self._monotonic() + ECHO_TIMEOUT_S
        return (Publication(topic=self._topics.echo, payload=self._awaited_echo, qos=1),)

    def _may_be_old(self, connection: int) -> bool:
        if connection != self._echo_of:
            return self._connection.is_resumed  # read in one go with the broker's acceptance
        if self._awaited_echo is not None and self._monotonic() >= self._echo_until:
            self._awaited_echo = None
            log.warning("the broker did not echo on %s: is the brain allowed to read and write it?", self._topics.echo)
        return self._awaited_echo is not None

    def _told_end(self, note: object, is_delivered: bool) -> None:
        if isinstance(note, Reply | ErrorNotice):
            self._on_end(note, is_delivered)

    def _on_message(self, message: Publication, receipt: Receipt) -> None:
        if message.topic == self._topics.echo:
            if message.payload == self._awaited_echo:
                self._awaited_echo = None
            self._connection.ack(receipt)
            return
        stop = self._spoken_stop(message)
        taken = _Taken(
            message, receipt, self._sender(message), stop, self._monotonic(), self._may_be_old(receipt.connection)
        )
        floods = self._floods(taken)
        is_crowded = self._intake.full() or self._waiting[taken.sender] >= MAX_INTAKE_PER_DEVICE
        if is_crowded or (floods and stop is None):
            self._refuse_for_want_of_room(taken, floods=floods)
            self._connection.ack(receipt)
            return
        self._waiting[taken.sender] += 1
        self._intake.put_nowait(taken)

    def _spoken_stop(self, message: Publication) -> Inbound | None:
        """Stop at once if somebody said so; return the event, decoded already, where the message is a good one."""
        said = self._codec.said(message)
        if said is None or not self._is_stop(said[1]):
            return None
        event: Inbound | None = None
        try:
            event = self._codec.decode(message)
        except ContractError as exc:
            log.info("stopping all the same, for what will be refused: %s", exc)
        request_id = event.id if isinstance(event, Intent) else self._codec.make_id()
        self._stop(EmergencyStop(device_id=said[0]), request_id)
        return event

    def _stop(self, stop: EmergencyStop, request_id: str) -> None:
        log.warning("emergency stop of %s (%s)", stop.device_id or "everybody", request_id)
        try:
            self._on_stop(stop, request_id)
        except Exception:
            # The connection that the next stop comes on must live.
            log.exception("the emergency stop %s failed", request_id)

    async def _take_in(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + INTAKE_SLICE_S
        while True:
            taken = await self._intake.get()
            self._accepting_since = self._monotonic()
            self._arrived_at, self._is_old = taken.arrived_at, taken.is_old
            kept = await self._take_in_one(taken.message, taken.event)
            self._accepting_since = None
            await self._acknowledge_after(kept, taken.receipt)
            self._waiting[taken.sender] -= 1
            if not self._waiting[taken.sender]:
                del self._waiting[taken.sender]
            if loop.time() >= until:
                await asyncio.sleep(0)  # a queue that is never empty would keep the loop to itself
                until = loop.time() + INTAKE_SLICE_S

    async def _acknowledge_after(self, kept: asyncio.Future[Any] | None, receipt: Receipt) -> None:
        """Acknowledge a message when it is kept, in its turn; wait only where too many are not acknowledged yet."""
        if not receipt.qos:
            return
        self._unacknowledged.append((receipt, kept))
        if kept is None or kept.done():
            self._acknowledge()
        else:
            kept.add_done_callback(lambda _: self._acknowledge())
        while len(self._unacknowledged) >= MAX_INTAKE:
            self._room.clear()
            await self._room.wait()

    def _acknowledge(self) -> None:
        while self._unacknowledged:
            receipt, kept = self._unacknowledged[0]
            if kept is not None and not kept.done():
                return
            self._unacknowledged.popleft()
            self._room.set()
            if kept is None or not kept.cancelled():
                self._connection.ack(receipt)

    async def _take_in_one(self, message: Publication, event: Inbound | None) -> asyncio.Future[Any] | None:
        try:
            event = event or self._codec.decode(message)
            if event is not None:
                return await self._accept(event)
        except ContractError as exc:
            self._refuse(exc, event)
        except Exception:
            # One message must not silence every device.
            log.exception("a message to %s could not be taken in", message.topic)
            self._refuse(self._internal(event, message), event)
        return None

    def _internal(self, event: Inbound | None, message: Publication) -> ContractError:
        text = "the brain failed to take this in; its log says why"
        if isinstance(event, Intent):
            return ContractError("internal", text, device_id=event.device_id, request_id=event.id)
        return ContractError("internal", text, device_id=self._sender(message))

    def _refuse(self, refusal: ContractError, event: Inbound | None) -> None:
        """Tell the device, where its topic names one that can be told."""
        self._refusals.total += 1
        device_id = refusal.device_id or (event.device_id if event else None)
        request_id = refusal.request_id or (event.id if isinstance(event, Intent) else None)
        log.info("refused from %s: %s: %s", device_id, refusal.code, refusal)
        if device_id is not None:
            self._refusals.tell_each(device_id, self._monotonic())
            notice = ErrorNotice(device_id=device_id, code=refusal.code, message=str(refusal), id=request_id)
            self.publish(notice, to=event if isinstance(event, Intent) else None)

    def _refuse_for_want_of_room(self, taken: _Taken, *, floods: bool) -> None:
        """Tell the device; once for many where it floods, or others' messages would be pushed out."""
        sender = taken.sender
        if sender is None or not (floods or self._connection.waiting >= MANY_WAITING_TO_BE_SENT):
            text = f"{self._waiting[sender]} messages of this device wait to be taken in: send it again later"
            self._refuse(ContractError("busy", text, device_id=sender), taken.event)
            return
        self._refusals.total += 1
        if not self._refusals.waits:
            self._tell_later()
        self._refusals.tell_later(sender)

    def _tell_later(self) -> None:
        asyncio.get_running_loop().call_later(TELL_LATER_S, self._tell_untold)

    def _tell_untold(self) -> None:
        if self._connection.waiting >= MANY_WAITING_TO_BE_SENT:
            self._tell_later()
            return
        for device_id, count in self._refusals.take():
            log.info("refused %d more messages from %s for want of room", count, device_id)
            text = f"{count} more messages of this device found no room: send again later what got no answer"
            self.publish(ErrorNotice(device_id=device_id, code="busy", message=text))

    def _floods(self, taken: _Taken) -> bool:
        """Whether it is one more wish of a device that was just refused many."""
        sender = taken.sender
        if sender is None or not self._refusals.are_many(sender, taken.arrived_at):
            return False
        return taken.message.topic == self._topics.device(sender, INTENT)

    def _sender(self, message: Publication) -> str | None:
        try:
            return self._topics.parse(message.topic)[0]
        except ContractError as exc:
            return exc.device_id


def _error_of_stops(state: ConnectionState) -> str | None:
    return f"the connection for emergency stops: {state.error}" if state.error else None
