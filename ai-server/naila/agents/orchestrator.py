"""One turn, from a request to its reply: order, deadline, cancellation, and the one catch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from naila.agents.attention import Attention
from naila.agents.stops import Stops
from naila.config.patterns import UNKNOWN, Phrasebook
from naila.config.personas import Persona, choose_persona
from naila.errors import ContractError
from naila.events import Intent, Reply
from naila.orchestration.acting import performer
from naila.orchestration.clock import WorldClock
from naila.orchestration.graph import build_ending_graph, build_graph, build_reading_graph
from naila.orchestration.outcome import reply_of
from naila.orchestration.patterns import Voice
from naila.orchestration.speech import Speech
from naila.orchestration.state import Approvals, Draft, Reader, TurnContext, Understanding
from naila.orchestration.wanted import Wish
from naila.orchestration.wish import Performer
from naila.ports import Cancellation, Clock, ConversationMemory, Fleet, LanguageModel, Publisher
from naila.turn_ids import working_for

log = logging.getLogger(__name__)


class Orchestrator:
    """Answers requests, whichever way they came in. Turns may run at once; each is told only of its own.

    Args:
        personas: who can answer, by id.
        persona: the id of who answers when a request names nobody.
        phrasebook: how texts are understood, and what is said without a model.
        model: who is asked.
        memory: what was said before.
        publisher: takes the pieces of streamed answers; replies are returned, not published.
        clock: the time.
        timeout_s: an answer that takes longer is cut there.
        max_tokens: bound on an answer, whatever a request asks.
        fleet: the devices, and the only way to move them.
        reader: reads commands.
        approvals: requests that wait for a person.
        stops: emergency stops.
        attention: what conversations are about.
        max_actions: most actions of one request.

    Raises:
        ConfigurationError: there is no such persona.
    """

    def __init__(
        self,
        *,
        personas: Mapping[str, Persona],
        persona: str,
        phrasebook: Phrasebook,
        model: LanguageModel,
        memory: ConversationMemory,
        publisher: Publisher,
        clock: Clock,
        timeout_s: float,
        max_tokens: int,
        fleet: Fleet,
        reader: Reader,
        approvals: Approvals,
        stops: Stops,
        attention: Attention,
        max_actions: int,
    ) -> None:
        self._personas = personas
        self._default = choose_persona(personas, persona)
        self._phrasebook = phrasebook
        self._world = WorldClock(phrasebook.places)
        self._model = model
        self._memory = memory
        self._publisher = publisher
        self._clock = clock
        self._timeout_s = timeout_s
        self._max_tokens = max_tokens
        self._fleet = fleet
        self._reader = reader
        self._reading_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="naila-reader")
        self._approvals = approvals
        self._stops = stops
        self._attention = attention
        self._max_actions = max_actions
        self._graph = build_graph()
        self._ending = build_ending_graph()
        self._reading = build_reading_graph()

    async def handle(
        self, intent: Intent, *, cancellation: Cancellation, received_at: float, is_old: bool = False
    ) -> Reply | None:
        """Answer one request; None where it waits for a person's yes: `conclude` will give its reply.

        Args:
            intent: the request.
            cancellation: ends the turn early; the reply then says as much as there was.
            received_at: when the request came in, on the monotonic clock.
            is_old: it waited elsewhere before that, nobody knows for how long: nothing is moved for it.

        Raises:
            ContractError: the request names an unknown persona, or came too late.
        """
        with working_for(intent.device_id, intent.id):
            return await self._handle(intent, cancellation, received_at, is_old=is_old)

    async def _handle(
        self, intent: Intent, cancellation: Cancellation, received_at: float, *, is_old: bool
    ) -> Reply | None:
        self._check_persona(intent)
        loop = asyncio.get_running_loop()
        context = self._context(intent, cancellation, received_at, is_old=is_old)
        patience = loop.call_later(self._timeout_s, cancellation.cancel, "deadline")
        context = replace(context, unhurried=patience.cancel)
        expiry: asyncio.TimerHandle | None = None
        try:
            if intent.expires_in_ms is not None:
                expiry = loop.call_later(self._time_left(intent, context), cancellation.cancel, "deadline")
            if cancellation.cause is not None:
                return cancelled(intent, context)
            state = await self._graph.ainvoke({"request": intent}, context=context)
            self._attention.keep(intent.device_id, intent.conversation_id, state["attended"])
            reply: Reply | None = state.get("reply")
        except ContractError:
            raise
        except Exception:
            ids = {"request_id": intent.id, "device_id": intent.device_id}
            log.exception("turn %s of %s failed", intent.id, intent.device_id, extra=ids)
            return apology(intent, context)
        else:
            return reply
        finally:
            patience.cancel()
            if expiry is not None:
                expiry.cancel()

    def performer(self, intent: Intent, *, cancellation: Cancellation, received_at: float) -> Performer:
        """Return what the wish of a request that waited for a person is carried out with."""
        return performer(intent, self._context(intent, cancellation, received_at), cancellation)

    async def conclude(self, wish: Wish, *, cancellation: Cancellation, received_at: float) -> Reply:
        """Return the reply of a wish that is over, and remember it. Does not raise."""
        with working_for(wish.request.device_id, wish.request.id):
            return await self._conclude(wish, cancellation, received_at)

    async def _conclude(self, wish: Wish, cancellation: Cancellation, received_at: float) -> Reply:
        intent = wish.request
        context = self._context(intent, cancellation, received_at)
        understanding = Understanding(intent="command", entities=intent.entities)
        view = self._fleet.view(intent.device_id)
        try:
            state = await self._ending.ainvoke(
                {"request": intent, "wish": wish, "view": view, "understanding": understanding}, context=context
            )
            reply: Reply = state["reply"]
        except Exception:
            log.exception("the wish %s of %s could not be told", intent.id, intent.device_id)
            return apology(intent, context)
        return reply

    async def read_in(self, intent: Intent) -> None:
        """Let the model read what the turn of this transcript, which still grows, will begin with; answer nothing.

        It only saves time, so a failure is not worth more than a line for whoever debugs.
        """
        try:
            self._check_persona(intent)
            context = self._context(intent, Cancellation(), self._clock.monotonic())
            async with asyncio.timeout(self._timeout_s):
                await self._reading.ainvoke({"request": intent}, context=context)
        except Exception as exc:  # noqa: BLE001 - nobody waits for it
            log.debug("partial transcript %s of %s could not be read in: %r", intent.id, intent.device_id, exc)

    def _context(
        self,
        intent: Intent,
        cancellation: Cancellation,
        received_at: float,
        *,
        is_old: bool = False,
    ) -> TurnContext:
        return TurnContext(
            # What was begun is ended, though a restart may have taken the persona that it began with.
            persona=self._personas.get(intent.persona or "", self._default),
            phrasebook=self._phrasebook,
            world=self._world,
            model=self._model,
            memory=self._memory,
            clock=self._clock,
            cancellation=cancellation,
            speech=Speech(intent, self._publisher, self._clock),
            max_tokens=self._max_tokens,
            started_at=self._clock.monotonic(),
            received_at=received_at,
            fleet=self._fleet,
            reader=self._reader,
            reading_thread=self._reading_thread,
            attended=self._attention.of(intent.device_id, intent.conversation_id),
            approvals=self._approvals,
            publisher=self._publisher,
            max_actions=self._max_actions,
            stop=lambda device_id: self._stops.stop_for(intent.device_id, intent.id, device_id),
            already_stopped=self._stops.told(intent.device_id, intent.id),
            stopped=lambda device_id: self._stops.stopped_since(device_id, received_at),
            just_stopped=lambda device_id: self._stops.stopped_just_before(device_id, received_at),
            is_old=is_old,
            unhurried=lambda: None,
        )

    def _check_persona(self, intent: Intent) -> None:
        if intent.persona is not None and intent.persona not in self._personas:
            raise ContractError(
                "bad_payload",
                f"persona: {intent.persona!r} is not known, only {', '.join(sorted(self._personas))}",
                device_id=intent.device_id,
                request_id=intent.id,
            )

    def _time_left(self, intent: Intent, context: TurnContext) -> float:
        """Return for how long the answer is still wanted."""
        expires_in_ms = intent.expires_in_ms or 0
        left = expires_in_ms / 1000 - (context.started_at - context.received_at)
        if left <= 0:
            raise ContractError(
                "expired",
                f"expires_in_ms: {intent.expires_in_ms} ms were over before the turn began",
                device_id=intent.device_id,
                request_id=intent.id,
            )
        return left


def cancelled(intent: Intent, context: TurnContext) -> Reply:
    """Return the reply of a turn that was cancelled before it began."""
    context.speech.close()
    draft = Draft(text="", source="pattern", degraded=False, finish_reason="cancelled")
    return reply_of(intent, Understanding(intent=intent.intent or UNKNOWN), draft, context)


def apology(intent: Intent, context: TurnContext) -> Reply:
    """Return the reply of a turn that failed for a reason nobody foresaw."""
    words = Voice(context.persona, context.phrasebook).say("failed", intent.id)
    speech = context.speech
    speech.take_back()
    speech.say(f" {words}" if speech.committed else words)
    speech.close()
    draft = Draft(text=speech.text, source="pattern", degraded=True)
    return reply_of(intent, Understanding(intent=intent.intent or UNKNOWN), draft, context)
