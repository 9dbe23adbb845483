"""The daemon's life, read top to bottom, and left in the reverse order.

configuration → models → protocol handlers → mqtt → running (health monitoring)
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from naila.config.settings import Settings
from naila.errors import BrokerError
from naila.events import BrainStatus
from naila.mqtt.broker import EmbeddedBroker
from naila.server.health import feed_watchdog
from naila.server.notify import Supervisor
from naila.server.wiring import House, build

_log = logging.getLogger(__name__)

_MODEL_LOAD_LIMIT_S: Final = 600.0


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    supervisor: Supervisor,
    on_ready: Callable[[Settings], None] | None = None,
) -> None:
    """Live until `stop` is set.

    Raises:
        ConfigurationError: a setting or a data file is wrong.
        StorageError: the database cannot be used.
    """
    async with contextlib.AsyncExitStack() as life:
        house = build(settings, supervisor)
        pulse = house.pulse
        supervisor.extend_start(_MODEL_LOAD_LIMIT_S)

        pulse.enter("configuration")
        await life.enter_async_context(house.database)
        await life.enter_async_context(house.checkpoints)
        await life.enter_async_context(house.audit)
        await life.enter_async_context(_embedded_broker(settings))
        start = await life.enter_async_context(_background_tasks())
        start(house.link.run(), "mqtt link")
        life.push_async_callback(house.link.stop, BrainStatus(status="offline"))
        start(house.reporter.report_health(), "health")
        # Already here: after a reload the service manager's patience does not wait for the model to be loaded.
        start(feed_watchdog(supervisor, house.stalls), "watchdog")

        await house.take_up()
        start(house.dispatcher.run(), "dispatcher")
        start(house.reactions.run(), "speaking first")
        start(house.monitor.run(), "monitoring")
        start(house.registry.keep_sightings(house.store), "sightings")
        start(asyncio.to_thread(house.reader.warm_up), "units of measurement")

        pulse.enter("models")
        life.push_async_callback(house.service.unload_model)
        await _unless(stop, house.keeper.load(), give_up=house.service.unload_model)

        pulse.enter("protocol handlers")
        await life.enter_async_context(_handlers(house))

        pulse.enter("mqtt")
        await _unless(stop, house.link.start_intake())

        if not stop.is_set():
            pulse.enter("running")
            life.callback(start(house.keeper.run(), "model keeper").cancel)
            start(house.reporter.report_metrics(), "metrics")
            start(house.obey(), "operator's orders")
            start(house.prune(), "pruning")
            start(house.home_assistant.run(), "home assistant")
            life.push_async_callback(house.home_assistant.stop)
            # What is here now stays: looking through all of it for garbage would hold up a stop by 50 ms now and then.
            gc.collect()
            gc.freeze()
            supervisor.ready(pulse.state)
            if on_ready is not None:
                on_ready(settings)
            await stop.wait()

        pulse.enter("stopping")
        house.reporter.publish_health()
    _log.info("stopped")


@contextlib.asynccontextmanager
async def _embedded_broker(settings: Settings) -> AsyncIterator[None]:
    """Bring a broker along where none is set and none is there."""
    if not settings.embedded_broker:
        yield
        return
    try:
        broker = EmbeddedBroker(settings.mqtt_port)
        await broker.__aenter__()
    except BrokerError as exc:
        _log.warning("no embedded broker, using what listens there: %s", exc)
        yield
        return
    try:
        _log.info("embedded broker on 127.0.0.1:%d, for this machine only", settings.mqtt_port)
        yield
    finally:
        await broker.__aexit__(None, None, None)


@contextlib.asynccontextmanager
async def _background_tasks() -> AsyncIterator[Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]]:
    """Run named tasks until the block ends; one that fails ends the daemon, which its service manager restarts."""
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []

        def start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            tasks.append(group.create_task(work, name=name))
            return tasks[-1]

        yield start
        for task in tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def _handlers(house: House) -> AsyncIterator[None]:
    """Answer requests; at the end let the running ones finish within the limit: the inbox keeps the rest."""
    async with asyncio.TaskGroup() as group:
        group.create_task(house.mailbox.run(), name="mailbox")
        group.create_task(house.wishes.run(), name="wishes")
        yield
        limit_s = house.settings.shutdown_timeout_s
        await asyncio.gather(house.wishes.drain(limit_s), house.mailbox.drain(limit_s))


async def _unless(
    stop: asyncio.Event,
    work: Coroutine[Any, Any, object],
    *,
    give_up: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Wait for work to be done, or for `stop`, whichever comes first."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and give_up is not None:
            await give_up()
            await task
    finally:
        stopped.cancel()
        if not task.done():
            task.cancel()
    if task.done() and not task.cancelled():
        task.result()
