"""The composition root: every part of the daemon, made once, complete at construction."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from naila.agents.attention import Attention
from naila.agents.intake import Intake
from naila.agents.mailbox import Mailbox
from naila.agents.orchestrator import Orchestrator
from naila.agents.stops import Stops
from naila.agents.wishes import Wishes
from naila.config.lexicon import load_lexicon
from naila.config.monitoring import load_monitoring
from naila.config.patterns import load_patterns
from naila.config.permissions import load_permissions
from naila.config.personas import Persona, load_personas
from naila.config.settings import Settings
from naila.devices.audit import Audit, audit_folder
from naila.devices.dispatcher import Dispatcher, Limits
from naila.devices.monitoring import Monitor
from naila.devices.permissions import Permissions
from naila.devices.registry import Registry
from naila.devices.speaking_first import SpeakingFirst
from naila.errors import ConfigurationError, StorageError
from naila.events import Alert, ComponentHealth, Metrics
from naila.inference.job import EngineLimits
from naila.inference.kv_store import KeepPlan
from naila.inference.sampling import Sampling
from naila.memory.checkpoints import Checkpoints
from naila.memory.conversation_memory import SqliteConversationMemory
from naila.memory.database import Database
from naila.memory.device_store import SqliteDeviceStore
from naila.memory.inbox import SqliteInbox
from naila.mqtt.codec import Codec
from naila.mqtt.home_assistant import HomeAssistant
from naila.mqtt.link import MqttLink
from naila.mqtt.topics import Topics
from naila.orchestration.response_generator import opening
from naila.orchestration.wish import SuspendedWishes
from naila.server.flight_record import FlightRecord, flight_folder
from naila.server.health import Pulse, Reporter
from naila.server.metrics import MeteredFleet, MeteredPublisher
from naila.server.model_keeper import ModelKeeper
from naila.server.model_source import ModelSource
from naila.server.notify import Supervisor
from naila.services.llm_service import LlmService
from naila.understanding.reader import CommandReader
from naila.understanding.stop_words import StopWords
from naila.utils.hardware_detection import read_memory

_log = logging.getLogger(__name__)

_LINK_STALL_S: Final = 30.0
_OBEY_EVERY_S: Final = 0.5
_PRUNE_EVERY_S: Final = 3600.0
_ENGINE_GRACE_S: Final = 60.0


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """Return the local time, aware of its zone."""
        return datetime.now().astimezone()

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class House:
    """The parts that the lifecycle starts and stops."""

    settings: Settings
    database: Database
    link: MqttLink
    service: LlmService
    keeper: ModelKeeper
    mailbox: Mailbox
    pulse: Pulse
    reporter: Reporter
    memory: SqliteConversationMemory
    store: SqliteDeviceStore
    audit: Audit
    checkpoints: Checkpoints
    registry: Registry
    dispatcher: Dispatcher
    wishes: Wishes
    monitor: Monitor
    reactions: SpeakingFirst
    home_assistant: HomeAssistant
    reader: CommandReader

    async def take_up(self) -> None:
        """Take up what is known of the devices, and what waited for a person when the process before this one ended.

        Raises:
            StorageError: the database cannot be read.
        """
        await self.registry.load()
        await self.dispatcher.load()
        await self.wishes.restore()
        self.dispatcher.sweep()
        self.wishes.give_up_lost()
        await self.mailbox.restore()

    async def obey(self) -> None:
        """Do what `naila memory forget` and `naila inbox` left to do in the database, for ever."""
        while True:
            try:
                await self.mailbox.obey()
                for number, session in await self.memory.forgotten():
                    await self.service.forget(session)
                    await self.memory.traces_gone(number)
            except StorageError:
                _log.debug("what is to be done cannot be looked up now", exc_info=True)
            await asyncio.sleep(_OBEY_EVERY_S)

    async def prune(self) -> None:
        """Forget what is older than it is kept, now and every hour, for ever."""
        while True:
            try:
                if count := await self.memory.prune():
                    _log.info("%d turns older than %d days are forgotten", count, self.settings.memory_keep_days)
            except StorageError:
                _log.debug("old turns cannot be forgotten now", exc_info=True)
            await asyncio.sleep(_PRUNE_EVERY_S)

    def stalls(self) -> list[str]:
        """Name what makes no progress: what the watchdog must not be fed for."""
        settings = self.settings
        stalled = []
        if time.monotonic() - self.link.status.last_progress > _LINK_STALL_S + 2 * settings.mqtt_keepalive_s:
            stalled.append("the broker connection")
        if self.service.stalled_for() > settings.llm_timeout_s + _ENGINE_GRACE_S:
            stalled.append("the engine")
        return stalled


def build(settings: Settings, supervisor: Supervisor) -> House:
    """Make every part and connect it; nothing runs yet.

    Raises:
        ConfigurationError: a data file or a TLS file is wrong, or something is asked for that is not built yet.
    """
    if settings.llm_mode == "api":
        raise ConfigurationError(
            "LLM_MODE='api': answers from a model server are not built yet; set LLM_MODE=inprocess, "
            "which runs the model in this daemon"
        )
    clock = SystemClock()
    source = ModelSource.of(settings)
    topics = Topics(settings.mqtt_topic_root)
    codec = Codec(topics, settings.mqtt_max_payload_bytes, lambda: secrets.token_hex(8))
    database = Database(settings.memory_path, on_health=lambda error: memory_changed(error))
    replies_kept = timedelta(days=settings.memory_keep_replies_days)
    inbox = SqliteInbox(database, max_reply_age=replies_kept)
    memory = SqliteConversationMemory(
        database,
        max_turns=settings.memory_max_turns,
        max_replies=settings.memory_keep_replies,
        max_reply_age=replies_kept,
        max_turn_age=timedelta(days=settings.memory_keep_days),
        on_answered=inbox.note_answered,
    )
    personas = load_personas(settings.config_dir / "personas")
    service = LlmService(
        choose=lambda: source.choose().header,
        plan=source.plan,
        max_tokens=settings.llm_max_tokens,
        sampling=Sampling(temperature=settings.llm_temperature, top_p=settings.llm_top_p, seed=settings.llm_seed),
        worker=settings.llm_worker,
        limits=EngineLimits(
            speculation=settings.llm_speculation,
            draft=str(settings.llm_draft_model) if settings.llm_draft_model is not None else None,
        ),
        keep=_keep(settings),
        prefixes=[opening(persona) for persona in personas.values()],
        on_progress=lambda share: keeper.progress(share),
        on_failure=lambda: pulse.changed.set(),
        may_act=source.may_act,
    )
    link = MqttLink(
        settings,
        codec,
        topics,
        accept=lambda event: intake.accept(event, received_at=link.arrived_at, is_old=link.is_old),
        birth=lambda: pulse.status(),
        on_stop=lambda event, request_id: intake.stop(event, request_id),
        on_end=lambda answer, is_delivered: mailbox.ended(answer, is_delivered=is_delivered),
        on_change=lambda: pulse.changed.set(),
        is_stop=_stop_words(personas).matches,
        intake=False,
    )
    record = FlightRecord(link, flight_folder(settings.memory_path), words=settings.record_words == "yes")
    publisher = MeteredPublisher(record, slow_threshold_s=settings.llm_slow_threshold_s)
    keeper = ModelKeeper(service, files=source.files, alert=publisher.publish, on_change=lambda: pulse.changed.set())
    store = SqliteDeviceStore(database)
    registry = Registry(
        store,
        clock,
        on_change=lambda device_id: device_changed(device_id),
        on_measure=lambda event: monitor.measure(event),
    )
    home_assistant = HomeAssistant(settings, topics, registry)
    audit = Audit(
        audit_folder(settings.memory_path), max_bytes=settings.audit_max_mb * 1_000_000, keep=settings.audit_keep
    )
    dispatcher = Dispatcher(
        registry=registry,
        store=store,
        journal=inbox,
        publisher=publisher,
        clock=clock,
        permissions=Permissions(load_permissions(settings.config_dir / "permissions.yaml")),
        audit=audit,
        limits=Limits(
            per_request=settings.actions_per_request,
            per_minute=settings.actions_per_minute,
            confirm_timeout_s=settings.confirm_timeout_s,
        ),
        on_expired=lambda pending: wishes.expired(pending),
        on_withdrawn=lambda pending: wishes.withdrawn(pending),
    )
    fleet = MeteredFleet(dispatcher, publisher.counters)
    stops = Stops(fleet, clock, on_stop=lambda device_id, request: mailbox.stop(device_id, request))
    reactions = SpeakingFirst(fleet=fleet, stops=stops, publisher=publisher, clock=clock)
    monitor = Monitor(
        load_monitoring(settings.config_dir / "monitoring.yaml"),
        registry=registry,
        reactions=reactions,
        publisher=publisher,
        clock=clock,
    )
    checkpoints = Checkpoints(settings.memory_path.with_name(f"{settings.memory_path.stem}-waiting.db"))
    wishes = Wishes(
        fleet=fleet,
        suspended=SuspendedWishes(checkpoints, checkpoints.threads),
        endings=lambda: orchestrator,
        memory=memory,
        deliver=lambda intent, reply: mailbox.deliver(intent, reply),
        clock=clock,
        on_approved=reactions.approved,
    )
    reader = CommandReader(load_lexicon(settings.config_dir / "lexicon.yaml"))
    orchestrator = Orchestrator(
        personas=personas,
        persona=settings.persona,
        phrasebook=load_patterns(settings.config_dir / "patterns.yaml"),
        model=service,
        memory=memory,
        publisher=publisher,
        clock=clock,
        timeout_s=settings.llm_timeout_s,
        max_tokens=settings.llm_max_tokens,
        fleet=fleet,
        reader=reader,
        approvals=wishes,
        stops=stops,
        attention=Attention(clock),
        max_actions=settings.actions_per_request,
    )
    mailbox = Mailbox(
        turns=orchestrator,
        inbox=inbox,
        publisher=publisher,
        clock=clock,
        max_per_device=settings.queue_max_per_device,
        max_waiting=settings.queue_max,
        max_running=settings.queue_max_running,
        suspended=wishes.is_open,
        give_up=wishes.cancel,
    )
    intake = Intake(mailbox=mailbox, wishes=wishes, devices=registry, results=dispatcher, stops=stops)
    pulse = Pulse(
        {
            "mqtt": lambda: _link_health(link),
            "llm": keeper.health,
            "memory": lambda: _storage_health(database, mailbox),
            "devices": lambda: _devices_health(registry, audit),
        },
        clock,
    )

    def device_changed(device_id: str) -> None:
        pulse.changed.set()
        monitor.changed(device_id)
        home_assistant.changed(device_id)

    def memory_changed(error: StorageError | None) -> None:
        pulse.changed.set()
        publisher.publish(
            Alert(code="memory_failed", severity="critical", message=str(error))
            if error is not None
            else Alert(code="memory_recovered", severity="info", message=f"{database.path} works again")
        )

    def metrics() -> Metrics:
        status = link.status
        return publisher.snapshot(
            service,
            temperature=settings.llm_temperature,
            failed=keeper.failed,
            queue_depth=mailbox.waiting,
            tasks=len(asyncio.all_tasks()),
            restarts=keeper.restarts,
            link={f"mqtt_{name}": value for name, value in asdict(status).items() if type(value) is int},
        )

    reporter = Reporter(
        pulse,
        publisher,
        metrics=metrics,
        memory=read_memory,
        supervisor=supervisor,
        health_interval_s=settings.health_interval_s,
        metrics_interval_s=settings.metrics_interval_s,
    )
    return House(
        settings=settings,
        database=database,
        link=link,
        service=service,
        keeper=keeper,
        mailbox=mailbox,
        pulse=pulse,
        reporter=reporter,
        memory=memory,
        store=store,
        audit=audit,
        checkpoints=checkpoints,
        registry=registry,
        dispatcher=dispatcher,
        wishes=wishes,
        monitor=monitor,
        reactions=reactions,
        home_assistant=home_assistant,
        reader=reader,
    )


def _stop_words(personas: Mapping[str, Persona]) -> StopWords:
    """Whoever answers, a stop is understood in every language that any persona speaks."""
    return StopWords(word for persona in personas.values() for words in persona.stop_words.values() for word in words)


def _keep(settings: Settings) -> KeepPlan:
    return KeepPlan(folder=settings.memory_path.parent / "kv", budget_bytes=settings.llm_kv_disk_mb * 1_000_000)


def _storage_health(database: Database, mailbox: Mailbox) -> ComponentHealth:
    if database.error is not None:
        waits = f"; {mailbox.unkept} requests wait for it" if mailbox.unkept else ""
        return ComponentHealth(status="down", detail=f"{database.error}{waits}")
    return ComponentHealth(status="ok")


def _devices_health(registry: Registry, audit: Audit) -> ComponentHealth:
    profiles = registry.profiles()
    online = sum(registry.is_online(profile.device_id) is True for profile in profiles)
    detail = f"{len(profiles)} declared, {online} online"
    if audit.is_full:
        why = f"{audit.path} cannot be written, so nothing is moved: free some space"
        return ComponentHealth(status="degraded", detail=f"{why}; {detail}")
    return ComponentHealth(status="ok", detail=detail)


def _link_health(link: MqttLink) -> ComponentHealth:
    status = link.status
    if status.connected:
        return ComponentHealth(status="degraded" if status.error else "ok", detail=status.error)
    return ComponentHealth(status="down", detail=status.error or "connecting")
