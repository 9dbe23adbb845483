"""What was measured of a model on a machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThreadSpeed:
    """Tokens a second with so many threads, one conversation.

    Attributes:
        threads: how many.
        reading: prompt tokens a second.
        writing: answer tokens a second.
    """

    threads: int
    reading: float
    writing: float


@dataclass(frozen=True, slots=True)
class KeptKv:
    """A conversation's KV, put on disk and read back.

    Attributes:
        tokens: how long the conversation was.
        bytes: of its file.
        save_ms: to write it.
        load_ms: to read it back.
    """

    tokens: int
    bytes: int
    save_ms: float
    load_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured.

    Attributes:
        load_s: seconds to load the model.
        reading: by tokens in a step, prompt tokens a second.
        threads: by number of threads; empty on a GPU.
        prefix_tokens: what all conversations began with.
        own_tokens: what each had of its own, before what was new.
        new_tokens: new words of a turn, in tokens.
        together: by number of conversations that write, answer tokens a second of all together.
        turn_ms: from a later turn's question to its answer's first token, nobody else there.
        busy_turn_ms: the same while all others write; None where there are no others.
        burst_ms: when all ask at once, to the first token of the median and of the last; None where not measured.
        abort_ms: from a cancellation inside a long read to its end, the worst; None where none could be caught.
        kept: KV on disk; None where the model's cannot be kept.
        cut: what was made smaller or left out, and why.
    """

    load_s: float
    reading: dict[int, float]
    threads: tuple[ThreadSpeed, ...]
    prefix_tokens: int
    own_tokens: int
    new_tokens: int
    together: dict[int, float]
    turn_ms: float
    busy_turn_ms: float | None
    burst_ms: tuple[float, float] | None
    abort_ms: float | None
    kept: KeptKv | None
    cut: tuple[str, ...]
