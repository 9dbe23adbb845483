"""A long conversation, a restart of the daemon, and the next turn: with KV on disk and without."""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.brain import Naila
from benchmarks.conversation import Conversation, Tokens, Turn, first_messages

WARM, COLD = "saved KV", "LLM_KV_DISK_MB=0"
PREFIXES = re.compile(r"loaded \S+ in [0-9.]+ s, ([0-9.]+) s of them for prefixes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """One conversation across a restart.

    Attributes:
        first_ms: to the first text of each turn; the last one is that after the restart.
        prompt_tokens: of each turn.
        cached_tokens: of each turn, not read again.
        start_s: from the restart to `online`.
        prefixes_s: how much of it was reading what prompts begin with, from disk or word by word.
    """

    first_ms: tuple[float, ...]
    prompt_tokens: tuple[int, ...]
    cached_tokens: tuple[int, ...]
    start_s: float
    prefixes_s: float

    @property
    def whole_ms(self) -> float:
        """From the restart to the first text: all that somebody waits for."""
        return self.start_s * 1000 + self.resumed_ms

    @property
    def reading_ms(self) -> float:
        """The same without what saved KV cannot change: starting the process and loading the model's file."""
        return self.prefixes_s * 1000 + self.resumed_ms

    @property
    def last_ms(self) -> float:
        """To the first text of the last turn before the restart."""
        return self.first_ms[-2]

    @property
    def resumed_ms(self) -> float:
        """To the first text of the turn after it."""
        return self.first_ms[-1]


async def resume(party: Naila, tokens: Tokens, turns: int, max_tokens: int) -> Resumed:
    """Talk for so many turns, restart the daemon and take one more.

    Raises:
        SystemExit: a turn was not answered.
    """
    with tempfile.TemporaryDirectory(prefix="naila-bench-") as name:
        async with party.running(Path(name), 1) as talker:
            conversation = Conversation(talker, tokens, 0, first_messages(party.persona))
            taken = [await conversation.turn(max_tokens) for _ in range(turns)]
            await talker.stop()
            logged = len(talker.brain.log())
            began = time.perf_counter()
            await talker.start()
            start_s = time.perf_counter() - began
            taken.append(await conversation.turn(max_tokens))
            found = PREFIXES.search(talker.brain.log()[logged:])
    if found is None:
        raise SystemExit("the daemon did not say how long it read what prompts begin with")
    return _resumed(taken, start_s, float(found[1]))


def _resumed(taken: list[Turn], start_s: float, prefixes_s: float) -> Resumed:
    errors = tuple(f"turn {turn.number}: {turn.error}" for turn in taken if turn.error)
    answers = [turn.answer for turn in taken if turn.answer is not None]
    if errors:
        raise SystemExit("\n".join(errors))
    return Resumed(
        first_ms=tuple(answer.first_s * 1000 for answer in answers),
        prompt_tokens=tuple(answer.usage.prompt_tokens for answer in answers),
        cached_tokens=tuple(answer.usage.cached_tokens for answer in answers),
        start_s=start_s,
        prefixes_s=prefixes_s,
    )
