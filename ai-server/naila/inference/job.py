"""A request while the engine works on it, and what the engine counts."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from typing import Literal

from naila.errors import EngineFailedError
from naila.events import FinishReason, Usage
from naila.inference.prefix_cache import Slot
from naila.inference.request import Completion, Request
from naila.inference.sampling import Sampler
from naila.inference.speculation import Speculation
from naila.inference.text import TextAssembler


@dataclass(slots=True, eq=False)
class Job:
    """A request while the engine has it.

    Attributes:
        request: what was asked.
        arrival: its place in the order of arrival.
        tokens: the prompt, and what was written behind it.
        sampler: draws its tokens.
        assembler: puts its text together.
        submitted: when it came, in `time.perf_counter` seconds, as the times below.
        slot: where its KV is, while it runs.
        cached: prompt tokens that were there when it was let in; -1 until then.
        let_in: when it was let in first; 0 until then.
        first: when it drew its first token; 0 until then.
        drawn: tokens drawn.
        is_forgotten: its conversation was forgotten meanwhile: its KV must not stay.
        speculation: guesses its next tokens.
        guess: what was guessed for the step that runs.
        unsaid: text that was written and not passed on yet.
        said: when text was last passed on; 0 until then.
    """

    request: Request
    arrival: int
    tokens: array[int]
    sampler: Sampler
    assembler: TextAssembler
    submitted: float
    slot: Slot | None = None
    cached: int = -1
    let_in: float = 0.0
    first: float = 0.0
    drawn: int = 0
    is_forgotten: bool = False
    speculation: Speculation | None = None
    guess: array[int] = field(default_factory=lambda: array("i"))
    unsaid: str = ""
    said: float = 0.0

    @property
    def owner(self) -> str:
        """Whose request it is."""
        return self.request.owner

    @property
    def is_background(self) -> bool:
        """Whether nobody waits for it."""
        return self.request.is_background

    @property
    def unread(self) -> int:
        """Tokens that the model has not seen yet; 1 while it writes."""
        return len(self.tokens) - (len(self.slot.tokens) if self.slot is not None else 0)

    @property
    def place(self) -> Slot:
        """The slot of a request that runs."""
        if self.slot is None:
            raise EngineFailedError("a request without a slot was put into a step")
        return self.slot

    def give_up_guessing(self) -> None:
        """Go on without guesses."""
        if self.speculation is not None:
            self.speculation.close()
            self.speculation = None

    def write(self, text: str, every_s: float) -> None:
        """Take text that was written; pass it on, unless some was within the last `every_s` seconds."""
        self.unsaid += text
        if self.unsaid and time.perf_counter() - self.said >= every_s:
            self.say()

    def say(self) -> None:
        """Pass on what was written."""
        if self.unsaid:
            text, self.unsaid = self.unsaid, ""
            self.said = time.perf_counter()
            self.request.on_text(text)

    def completion(self, reason: FinishReason) -> Completion:
        """Return the account of a request that ends now."""
        now = time.perf_counter()
        first = self.first or now
        return Completion(
            finish_reason=reason,
            usage=Usage(
                prompt_tokens=len(self.request.prompt),
                cached_tokens=max(self.cached, 0),
                completion_tokens=self.drawn,
            ),
            dropped_messages=self.request.dropped_messages,
            queue_ms=((self.let_in or now) - self.submitted) * 1000,
            ttft_ms=(first - self.submitted) * 1000,
            total_ms=(now - self.submitted) * 1000,
            decode_s=now - first,
        )


@dataclass(slots=True)
class EngineFigures:
    """What the engine has done since its start.

    Attributes:
        steps: decode calls.
        tokens: tokens decoded, read and written ones.
        jobs: requests in all steps together; divided by `steps`, the occupancy.
        guessed: tokens guessed.
        taken: guessed tokens that came true.
        preempted: requests thrown out for want of cells and let in again.
    """

    steps: int = 0
    tokens: int = 0
    jobs: int = 0
    guessed: int = 0
    taken: int = 0
    preempted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Bounds of the engine.

    Attributes:
        running: most requests worked on at once.
        waiting: most requests that wait; then `EngineBusyError`.
        speculation: guess tokens where it pays, always (to try it), or never.
        draft: file of a draft model, if one is to guess.
        text_every_s: seconds between two pieces of an answer's text, after the first piece, which comes at once. Each
            piece costs daemon, broker and device a message, all on the cores that decode.
    """

    running: int = 32
    waiting: int = 256
    speculation: Literal["auto", "always", "off"] = "auto"
    draft: str | None = None
    text_every_s: float = 0.1
