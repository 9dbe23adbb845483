"""What the engine is asked, and how it ends."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from naila.errors import GenerationError
from naila.events import FinishReason, Usage
from naila.inference.sampling import Grammar, Sampling
from naila.ports import StopCause


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How a request ended.

    Attributes:
        finish_reason: why.
        usage: exact counts.
        dropped_messages: as the request said.
        queue_ms: from submission until it was let in.
        ttft_ms: from submission to the first token.
        total_ms: from submission to the end.
        decode_s: spent on the tokens after the first.
    """

    finish_reason: FinishReason
    usage: Usage
    dropped_messages: int
    queue_ms: float
    ttft_ms: float
    total_ms: float
    decode_s: float

    @property
    def tokens_per_second(self) -> float:
        """Speed of the tokens after the first, 0 where there were none."""
        tokens = self.usage.completion_tokens - 1
        return tokens / self.decode_s if tokens > 0 and self.decode_s > 0 else 0.0


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """One prompt to complete. The callbacks run on the engine's thread and must return at once.

    Attributes:
        prompt: its tokens, at least one, fewer than the context holds.
        max_tokens: bound on the answer; 0 only reads the prompt in.
        sampling: how tokens are drawn.
        grammar: what the answer is bound to.
        stop: strings that end the answer.
        owner: whose request it is, for fairness.
        session: the conversation that its KV belongs to; None for none.
        is_background: nobody waits for it.
        is_prefix: what many prompts begin with: read in, it stays.
        dropped_messages: history messages that were left out of the prompt.
        on_text: told each piece of text.
        on_end: told once how it ended, or what failed.
        cause: set by `Engine.cancel`.
    """

    prompt: array[int]
    max_tokens: int
    sampling: Sampling
    grammar: Grammar | None = None
    stop: tuple[str, ...] = ()
    owner: str = ""
    session: str | None = None
    is_background: bool = False
    is_prefix: bool = False
    dropped_messages: int = 0
    on_text: Callable[[str], None]
    on_end: Callable[[Completion | GenerationError], None]
    cause: StopCause | None = field(default=None, init=False)
