"""What a turn leaves behind: the reply, and the exchange as memory keeps it."""

from __future__ import annotations

from datetime import UTC, datetime

from naila.events import Intent, Reply, Timing
from naila.orchestration.state import Draft, TurnContext, Understanding
from naila.ports import Turn


def reply_of(request: Intent, understanding: Understanding, draft: Draft, context: TurnContext) -> Reply:
    """Return the reply that a draft has become."""
    return Reply(
        device_id=request.device_id,
        id=request.id,
        text=draft.text,
        intent=understanding.intent,
        source=draft.source,
        degraded=draft.degraded,
        conversation_id=request.conversation_id,
        finish_reason=draft.finish_reason,
        actions=draft.actions,
        model=draft.model,
        usage=draft.usage,
        timing=timing_of(context, draft.tokens_per_second),
        dropped_turns=draft.dropped_turns,
    )


def timing_of(context: TurnContext, tokens_per_second: float = 0.0) -> Timing:
    """Return where the time of a turn went, up to now."""
    now = context.clock.monotonic()
    first = context.speech.first_at if context.speech.first_at is not None else now
    return Timing(
        queue_ms=_ms(context.started_at - context.received_at),
        ttft_ms=_ms(first - context.started_at),
        total_ms=_ms(now - context.received_at),
        tokens_per_second=round(tokens_per_second, 2),
    )


def turn_of(request: Intent, reply: Reply, note: str, said_at: datetime) -> Turn:
    """Return the exchange as it is remembered."""
    return Turn(
        device_id=request.device_id,
        conversation_id=request.conversation_id,
        request_id=request.id,
        user_id=request.user_id,
        user_text=request.text,
        note=note,
        reply_text=reply.text,
        intent=reply.intent,
        source=reply.source,
        said_at=said_at.astimezone(UTC),
    )


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)
