"""A connection that lasts: comes back, subscribes again, falls back to MQTT 3.1.1, keeps what is to be sent."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from naila.mqtt.backoff import STABLE_AFTER_S, Backoff, Rivalry
from naila.mqtt.broker_address import BrokerAddress, Version
from naila.mqtt.client import MqttClient, Reason
from naila.mqtt.connection_state import ConnectionState, Receipt
from naila.mqtt.publication import Publication, Subscription
from naila.mqtt.sending import SendQueue

log = logging.getLogger(__name__)

SEND_WINDOW = 20
TICK_S = 1.0
ANSWER_TIMEOUT_S = 3.0
REFUSED_WAIT_S = 1.0
TAKEN_OVER_WAIT_S = 5.0

_UNSUPPORTED_VERSION = 132
_TAKEN_OVER = 142


@dataclass(frozen=True, slots=True)
class _Ending:
    """How an attempt or a connection ended: in words, and the least seconds to wait (None: none at all)."""

    problem: str | None
    at_least: float | None = 0.0


class Connection:
    """`run` keeps it until `stop`; the rest may be called at any time, in the loop's thread.

    Args:
        address: where and as whom.
        on_message: called for each message; must not raise. The receipt is to be given to `ack` when it is dealt with.
        subscriptions: what to hear, on every connection.
        birth: what to publish at the start of every connection.
        on_end: told of each message with a note, and whether the broker took it (or refused it, for good), when it is
            acknowledged, or given up for want of room.
        on_change: told when it was accepted by the broker, and when it is lost or cannot be had.
        rng: source of the jitter between attempts.
        monotonic: seconds that never jump.

    Attributes:
        state: how it is doing; to be read only.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        on_message: Callable[[Publication, Receipt], None],
        subscriptions: Sequence[Subscription | str] = (),
        birth: Callable[[], Sequence[Publication]] = tuple,
        on_end: Callable[[object, bool], None] = lambda _note, _is_delivered: None,
        on_change: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = ConnectionState(last_progress=monotonic())
        self._address = address
        self._deliver = on_message
        self._subscriptions = _subscriptions(subscriptions)
        self._birth = birth
        self._on_end = on_end
        self._on_change = on_change
        self._monotonic = monotonic
        self._backoff = Backoff(rng or random.Random())  # noqa: S311 - jitter, not cryptography
        self._rivalry = Rivalry()
        self._queue = SendQueue(SEND_WINDOW, monotonic=monotonic)
        self._client = MqttClient(address, address.protocol, self)
        self._spoke_5 = False
        self._number = 0
        self._unanswered: dict[int, Sequence[str]] = {}
        self._subscribed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._closing = False
        self._outage_began = monotonic()

    async def run(self) -> None:
        """Stay connected until `stop` is called or the task is cancelled."""
        async with asyncio.TaskGroup() as group:
            connected = group.create_task(self._stay_connected(), name="mqtt connection")
            await self._stopping.wait()
            connected.cancel()

    @property
    def number(self) -> int:
        """Which connection this is, as its receipts say."""
        return self._number

    @property
    def is_resumed(self) -> bool:
        """Whether the broker kept our session when it accepted this connection."""
        return self._client.is_resumed

    @property
    def waiting(self) -> int:
        """How many messages wait to be sent."""
        return self._queue.waiting

    def publish(self, message: Publication) -> None:
        """Send a message; never blocks.

        QoS 1 waits for a connection and for room, bounded as `SendQueue` says.
        QoS 0 is dropped when it cannot go now.
        """
        if message.qos:
            if dropped := self._queue.put(message):
                log.error("too many messages wait for the broker: the oldest, to %s, was dropped", dropped.topic)
                self._tell_end(dropped, is_delivered=False)
        elif self.state.connected and self._queue.may_write_unacknowledged():
            self._hand_over(message)
        self._pump()

    def ack(self, receipt: Receipt) -> None:
        """Acknowledge a received message."""
        if receipt.connection == self._number:
            self._client.ack(receipt.mid, receipt.qos)

    def withdraw(self, topic: str) -> None:
        """Drop what waits to be sent to a topic; what was handed over is not sent again on a later connection."""
        if withdrawn := self._queue.withdraw(topic):
            log.warning("%d messages that waited for %s were withdrawn", withdrawn, topic)

    def subscribe(self, subscriptions: Sequence[Subscription | str]) -> None:
        """Subscribe to more, now and on every later connection."""
        more = _subscriptions(subscriptions)
        self._subscriptions += more
        if self.state.connected:
            self._send_subscribe(more)

    async def ready(self) -> None:
        """Return when connected and the broker has answered every subscription."""
        await self._subscribed.wait()

    async def stop(self, farewell: Sequence[Publication] = (), *, timeout_s: float = 2.0) -> None:
        """Send what waits, then the farewell, then DISCONNECT; `run` returns. Gives up after the timeout."""
        self._closing = True
        try:
            if self.state.connected:
                async with asyncio.timeout(timeout_s):
                    for message in farewell:
                        self.publish(message)
                    await self._queue.drained()
                    self._client.disconnect()
                    await asyncio.wait({self._client.lost})
        except TimeoutError:
            log.warning("the broker did not acknowledge the last messages within %g s", timeout_s)
        finally:
            self._stopping.set()

    async def _stay_connected(self) -> None:
        while not self._closing:
            try:
                ending = await self._connect_and_serve()
            finally:
                self._left()
            if ending.problem and not self._closing:
                if ending.problem != self.state.error:
                    log.warning("MQTT: %s; trying again", ending.problem)
                self.state.error = ending.problem
                self._on_change()
            if ending.at_least is not None:
                outage_s = self._monotonic() - self._outage_began
                await self._wait(self._never(), self._backoff.next(outage_s, at_least=ending.at_least))

    async def _connect_and_serve(self) -> _Ending:
        """One connection, from the attempt to its end."""
        client = self._client
        self._number += 1
        connecting = asyncio.create_task(client.connect(), name="mqtt connect")
        try:
            await self._wait(connecting)
            connecting.result()
        except (OSError, UnicodeError) as exc:
            self._rivalry.broker_was_away()
            return _Ending(self._address.explain(exc))
        finally:
            connecting.cancel()
        answered = await self._wait(client.accepted, ANSWER_TIMEOUT_S)
        reason = client.accepted.result() if answered else None
        if reason is None or reason.is_failure:
            return self._refused(reason)
        began = self._monotonic()
        self._established()
        await self._wait(client.lost)
        if self._monotonic() - began >= STABLE_AFTER_S:
            self._backoff.reset()
            self._outage_began = self._monotonic()
        return self._ended(client.lost.result())

    def _established(self) -> None:
        state = self.state
        state.reconnects += state.protocol is not None
        state.connected, state.protocol, state.error = True, self._client.version, None
        self._spoke_5 = self._spoke_5 or state.protocol == "5"
        self._queue.window = min(SEND_WINDOW, self._client.receive_maximum)
        log.info("connected to %s with MQTT %s as %s", self._address, state.protocol, self._address.client_id)
        self._send_subscribe(self._subscriptions)
        for message in self._birth():
            self.publish(message)
        self._pump()
        self._on_change()

    def _left(self) -> None:
        self.state.connected = False
        self._subscribed.clear()
        self._unanswered.clear()
        self._queue.disconnected()
        self._client.close()
        if self._queue.flies_perishable:
            self._speak(self._client.version)  # paho would send it again however late the connection comes back

    def _refused(self, reason: Reason | None) -> _Ending:
        """Fall back to 3.1.1 where that may help, else say why there is no connection."""
        version, wanted = self._client.version, self._address.protocol
        unsupported = reason is not None and reason.code == _UNSUPPORTED_VERSION
        if version == "5" and (unsupported or (reason is None and not self._spoke_5)):
            log.info("%s does not take MQTT 5: trying 3.1.1", self._address)
            self._speak("3.1.1")
            return _Ending(None, None)
        self._rivalry.broker_was_away()
        if version != wanted:
            self._speak(wanted)
        if reason is None:
            return _Ending(self._address.explain_refusal(None, ""))
        return _Ending(self._address.explain_refusal(reason.code, reason.text), REFUSED_WAIT_S)

    def _ended(self, reason: Reason) -> _Ending:
        if self._client.version != self._address.protocol:
            self._speak(self._address.protocol)  # perhaps another broker comes back; the same one refuses 5 again
        likely = self._rivalry.lost(self._monotonic(), closed=self._client.closed_by_broker)
        if reason.code != _TAKEN_OVER and not likely:
            return _Ending(f"the connection to {self._address} was lost ({reason.text})")
        return _Ending(
            f"{self._address} gave our place to another client with the client id {self._address.client_id!r}"
            f"{'' if reason.code == _TAKEN_OVER else ', it seems'}: "
            "does the brain run twice? Give each its own MQTT_CLIENT_ID",
            TAKEN_OVER_WAIT_S,
        )

    def _speak(self, version: Version) -> None:
        """Go on with another version of the protocol; what flew unacknowledged waits again."""
        self._client.close()
        self._queue.take_back()
        self._client = MqttClient(self._address, version, self)

    async def _wait(self, future: asyncio.Future[Any], timeout_s: float = float("inf")) -> bool:
        """Wait for `future` while looking after the client; return whether it is done."""
        deadline = self._monotonic() + timeout_s
        while not future.done():
            remaining = deadline - self._monotonic()
            if remaining <= 0:
                return False
            await asyncio.wait({future}, timeout=min(TICK_S, remaining))
            self.state.last_progress = self._monotonic()
            self._client.look_after()
        return True

    def _never(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def _pump(self) -> None:
        while self.state.connected and (message := self._queue.take()):
            self._hand_over(message)
        self.state.dropped = self._queue.dropped

    def _hand_over(self, message: Publication) -> None:
        mid = self._client.publish(message)
        if mid is not None:
            self._queue.sent(mid, message)

    def _send_subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        self._subscribed.clear()
        mid = self._client.subscribe(subscriptions) if subscriptions else None
        if mid is not None:
            self._unanswered[mid] = tuple(wanted.topic for wanted in subscriptions)
        elif not subscriptions:
            self._subscribed.set()

    def on_message(self, message: Publication, mid: int) -> None:
        """Pass a message on (called by the client)."""
        self.state.received += 1
        self._deliver(message, Receipt(self._number, mid, message.qos))

    def on_sent(self, mid: int, reason: Reason) -> None:
        """Make room for the next message (called by the client)."""
        message = self._queue.done(mid)
        if reason.is_failure:
            self._complain(f"a message to {message.topic if message else 'a topic'}", reason)
        else:
            self.state.published += 1
        if message is not None:
            self._tell_end(message, is_delivered=True)
        self._pump()

    def on_subscribed(self, mid: int, reasons: Sequence[Reason]) -> None:
        """Take note of what the broker refuses (called by the client)."""
        for name, reason in zip(self._unanswered.pop(mid, ()), reasons, strict=False):
            if reason.is_failure:
                self._complain(f"the subscription to {name}", reason)
        if not self._unanswered:
            self._subscribed.set()

    def _tell_end(self, message: Publication, *, is_delivered: bool) -> None:
        if message.note is not None:
            self._on_end(message.note, is_delivered)

    def _complain(self, what: str, reason: Reason) -> None:
        self.state.error = f"{self._address} refused {what} ({reason.text}): allow it in the broker's access rules"
        log.error("MQTT: %s", self.state.error)


def _subscriptions(wanted: Sequence[Subscription | str]) -> list[Subscription]:
    return [one if isinstance(one, Subscription) else Subscription(one) for one in wanted]
