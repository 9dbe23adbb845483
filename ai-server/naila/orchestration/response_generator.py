"""Asking the model: what it is told, and what becomes of its words.

The prompt is built for a prefix cache: the persona's system prompt and examples, the same for the whole fleet; then
the conversation, byte for byte as it was sent before; last the new words, whose note carries all that changes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final, cast

from naila.config.patterns import REPLY_FIELDS
from naila.config.personas import Persona
from naila.config.prompts import fact_sentence, note_of, now_sentence, readings_sentence, user_message
from naila.errors import EngineFailedError, GenerationStoppedError
from naila.events import FinishReason, Intent
from naila.orchestration.guard import StreamGuard
from naila.orchestration.rehearsal import Rehearsal
from naila.orchestration.state import TurnContext, Understanding
from naila.ports import Cancellation, ChatMessage, Generation, Recollection, SamplingOptions, TextPiece, Turn

_QUOTED: Final = re.compile("“[^”]*”")
ATTEMPTS: Final = 2
STOP_GRACE_S: Final = 5.0  # a model that was told to stop and hasn't by then is taken for broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model made of a prompt.

    Attributes:
        finish_reason: why it ended.
        text: the words that the guard let through, once where they repeat.
        generation: the model's own account, if it gave one.
    """

    finish_reason: FinishReason
    text: str
    generation: Generation = field(default_factory=lambda: Generation(text="", finish_reason="stop"))


def write_note(request: Intent, understanding: Understanding, recollection: Recollection, context: TurnContext) -> str:
    """Return what the model is told beside the words: little, since small models repeat what they are told."""
    phrasebook = context.phrasebook
    sentences: list[str] = []
    if phrasebook.personal.search(request.text):
        told = "\n".join(turn.note for turn in kept(recollection))
        changed = {fact.key for fact in understanding.facts}
        known = [fact_sentence(fact) for fact in recollection.facts if fact.key not in changed]
        sentences += [sentence for sentence in known if sentence not in told]
    if phrasebook.calendar.search(request.text):
        sentences.append(now_sentence(context.clock.now()))
    if readings := readings_sentence(request.context):
        sentences.append(readings)
    guidance = context.persona.guidance.get(understanding.intent)
    learned = {fact.key: fact.value for fact in understanding.facts}
    if guidance and REPLY_FIELDS.get(understanding.intent, frozenset()) <= learned.keys():
        sentences.append(guidance.format_map(learned))
    return note_of(sentences, request.text)


def opening(persona: Persona) -> list[ChatMessage]:
    """Return what every prompt of a persona begins with, the same for the whole fleet."""
    messages = [ChatMessage("system", persona.system_prompt)]
    for example in persona.examples:
        messages += [ChatMessage("user", example.user), ChatMessage("assistant", example.answer)]
    return messages


def build_messages(
    persona: Persona, recollection: Recollection, note: str, text: str, *, acts: bool = False
) -> list[ChatMessage]:
    """Return the prompt: what never changes first, what changes each turn last.

    Args:
        persona: who answers.
        recollection: what was said before.
        note: what the model is told beside the words.
        text: the words.
        acts: show what was done, too. A model too small to act imitates it, and claims what never happened.
    """
    messages = opening(persona)
    for turn in kept(recollection):
        if turn.source == "action" and not acts:
            continue
        messages.append(ChatMessage("user", user_message(turn.note, turn.user_text)))
        messages.append(ChatMessage("assistant", _own_words(turn)))
    messages.append(ChatMessage("user", user_message(note, text)))
    return messages


def _own_words(turn: Turn) -> str:
    """Return a reply without what was quoted in it: a model takes a device's words for its own, or for orders."""
    return turn.reply_text if turn.source == "llm" else _QUOTED.sub("“…”", turn.reply_text)


def kept(recollection: Recollection) -> list[Turn]:
    """Return the turns that a prompt shows: not those that were cancelled before a word."""
    return [turn for turn in recollection.turns if turn.reply_text]


def sampling(request: Intent, max_tokens: int) -> SamplingOptions:
    """Return how the answer is drawn: as the request asks, within the brain's own bound."""
    asked = min(request.max_tokens, max_tokens) if request.max_tokens is not None else None
    return SamplingOptions(max_tokens=asked, temperature=request.temperature)


def session_of(request: Intent) -> str:
    """Return the name of a request's conversation, by which the model's cache knows it."""
    return f"{request.device_id}/{request.conversation_id}"


async def answer(messages: list[ChatMessage], request: Intent, context: TurnContext, word: str) -> Answer:
    """Let the model answer, a second time where the first lacks the word that makes it right.

    Raises:
        ModelError: no model can be asked.
        GenerationError: the model failed; the speech holds what was said.
    """
    for _ in range(ATTEMPTS):
        rehearsal = Rehearsal(context.speech, word)
        made = await _ask(messages, request, context, rehearsal.say)
        if rehearsal.passed:
            return made
        if context.cancellation.cause is not None:
            break
    return replace(made, text="")


async def _ask(
    messages: list[ChatMessage], request: Intent, context: TurnContext, say: Callable[[str], None]
) -> Answer:
    """Let the model answer once, watched by the guard."""
    stop = Cancellation()
    context.cancellation.subscribe(stop.cancel)
    guard = StreamGuard()
    finish: FinishReason = "stop"
    generation: Generation | None = None
    try:
        async with _patience(stop):
            stream = context.model.generate_streaming(
                messages,
                sampling(request, context.max_tokens),
                session=session_of(request),
                cancellation=stop,
            )
            async with aclosing(cast("AsyncGenerator[TextPiece | Generation]", stream)) as items:
                async for item in items:
                    if isinstance(item, Generation):
                        generation, finish = item, item.finish_reason
                        continue
                    say(guard.feed(item.text))
                    if guard.ended:
                        stop.cancel()
    except GenerationStoppedError as exc:
        generation = exc.partial
        finish = context.cancellation.cause or "stop"
    except TimeoutError as exc:
        raise EngineFailedError(f"the model did not stop within {STOP_GRACE_S:g} s of being told to") from exc
    if guard.ended and context.cancellation.cause is None:
        finish = "length" if guard.looped else "stop"
    say(guard.finish())
    return Answer(
        finish_reason=finish,
        text=guard.text if request.stream else guard.once,
        generation=generation or Generation(text=guard.text, finish_reason=finish),
    )


@asynccontextmanager
async def _patience(stop: Cancellation) -> AsyncGenerator[None]:
    """Wait for as long as it takes, but not for long once the model was told to stop.

    Raises:
        TimeoutError: it did not.
    """
    loop = asyncio.get_running_loop()
    waiting = True
    async with asyncio.timeout(None) as limit:
        # A cancellation may also come when the answer is complete, and finds nobody waiting.
        stop.subscribe(lambda _: limit.reschedule(loop.time() + STOP_GRACE_S) if waiting else None)
        try:
            yield
        finally:
            waiting = False
