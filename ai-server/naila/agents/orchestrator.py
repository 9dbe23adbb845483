"""One turn, from a request to its reply: order, deadline, cancellation, and the one catch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from naila.config.patterns import UNKNOWN, Phrasebook
from naila.config.personas import Persona, choose_persona
from naila.errors import ContractError
from naila.events import Intent, Reply
from naila.orchestration.clock import WorldClock
from naila.orchestration.graph import build_graph, build_reading_graph
from naila.orchestration.outcome import reply_of
from naila.orchestration.patterns import Voice
from naila.orchestration.speech import Speech
from naila.orchestration.state import Draft, TurnContext, Understanding
from naila.ports import Cancellation, Clock, ConversationMemory, LanguageModel, Publisher

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
        self._graph = build_graph()
        self._reading = build_reading_graph()

    async def handle(self, intent: Intent, *, cancellation: Cancellation, received_at: float) -> Reply:
        """Answer one request.

        Args:
            intent: the request.
            cancellation: ends the turn early; the reply then says as much as there was.
            received_at: when the request came in, on the monotonic clock.

        Raises:
            ContractError: the request names an unknown persona, or came too late.
        """
        context = self._context(intent, cancellation, received_at)
        deadline = asyncio.get_running_loop().call_later(
            self._time_left(intent, context), cancellation.cancel, "deadline"
        )
        try:
            if cancellation.cause is not None:
                return cancelled(intent, context)
            state = await self._graph.ainvoke({"request": intent}, context=context)
            reply: Reply = state["reply"]
        except ContractError:
            raise
        except Exception:
            ids = {"request_id": intent.id, "device_id": intent.device_id}
            log.exception("turn %s of %s failed", intent.id, intent.device_id, extra=ids)
            return apology(intent, context)
        else:
            return reply
        finally:
            deadline.cancel()

    async def read_in(self, intent: Intent) -> None:
        """Let the model read what the turn of this transcript, which still grows, will begin with; answer nothing.

        It only saves time, so a failure is not worth more than a line for whoever debugs.
        """
        try:
            context = self._context(intent, Cancellation(), self._clock.monotonic())
            async with asyncio.timeout(self._timeout_s):
                await self._reading.ainvoke({"request": intent}, context=context)
        except Exception as exc:  # noqa: BLE001 - nobody waits for it
            log.debug("partial transcript %s of %s could not be read in: %r", intent.id, intent.device_id, exc)

    def _context(self, intent: Intent, cancellation: Cancellation, received_at: float) -> TurnContext:
        return TurnContext(
            persona=self._persona(intent),
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
        )

    def _persona(self, intent: Intent) -> Persona:
        if intent.persona is None:
            return self._default
        if intent.persona not in self._personas:
            raise ContractError(
                "bad_payload",
                f"persona: {intent.persona!r} is not known, only {', '.join(sorted(self._personas))}",
                device_id=intent.device_id,
                request_id=intent.id,
            )
        return self._personas[intent.persona]

    def _time_left(self, intent: Intent, context: TurnContext) -> float:
        """Return how long the turn may take: no longer than a model may, nor than the answer is wanted."""
        if intent.expires_in_ms is None:
            return self._timeout_s
        left = intent.expires_in_ms / 1000 - (context.started_at - context.received_at)
        if left <= 0:
            raise ContractError(
                "expired",
                f"expires_in_ms: {intent.expires_in_ms} ms were over before the turn began",
                device_id=intent.device_id,
                request_id=intent.id,
            )
        return min(self._timeout_s, left)


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
