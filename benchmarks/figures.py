"""What rounds of turns come to, and how two parties compare."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
from benchmarks.conversation import Turn

NAN = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One party's share of one round.

    Attributes:
        turns: asked.
        errors: what came instead of answers.
        other_prompts: answers to prompts of another length than we laid out: other words, so no comparison.
        wall_s: from the first word to the last.
        tokens: drawn.
        tokens_per_s: of all robots together.
        first_p50_ms: to the first text of a conversation's first turn.
        later_p50_ms: to the first text of its later turns.
        later_p95_ms: likewise.
        later_prompt_tokens: of the later turns' prompts.
        later_cached_tokens: of them, not read again.
        later_new_tokens: of them, those that nobody can have read before.
        reread_per_new: tokens read again in later turns, beyond the new ones, for each new one.
        reread_share: the same for each token that had been read before.
        alone_per_s: tokens a second after the first text of a robot that is alone.
        cpu_s: processor seconds by process.
    """

    turns: int
    errors: tuple[str, ...]
    other_prompts: int
    wall_s: float
    tokens: int
    tokens_per_s: float
    first_p50_ms: float
    later_p50_ms: float
    later_p95_ms: float
    later_prompt_tokens: int
    later_cached_tokens: int
    later_new_tokens: int
    reread_per_new: float
    reread_share: float
    alone_per_s: float = NAN
    cpu_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of NAILA beside another party's.

    Attributes:
        what: is compared.
        value: the median over the rounds of the ratio within each.
        goal: what it should be, such as `≥ 3.5`.
        is_met: whether it is so.
    """

    what: str
    value: float
    goal: str
    is_met: bool


def summed_up(turns: Sequence[Turn], wall_s: float, alone: Sequence[Turn], cpu_s: Mapping[str, float]) -> Round:
    """Sum a round up."""
    answered = [(turn, turn.answer) for turn in turns if turn.answer is not None]
    later = [(turn, answer) for turn, answer in answered if turn.number > 1]
    later_ms = [answer.first_s * 1000 for _, answer in later]
    tokens = sum(answer.usage.completion_tokens for _, answer in answered)
    prompts = sum(answer.usage.prompt_tokens for _, answer in later)
    cached = sum(answer.usage.cached_tokens for _, answer in later)
    new = sum(turn.new_tokens for turn, _ in later)
    reread = sum(
        max(0, answer.usage.prompt_tokens - answer.usage.cached_tokens - turn.new_tokens) for turn, answer in later
    )
    return Round(
        turns=len(turns),
        errors=tuple(f"{turn.robot}, turn {turn.number}: {turn.error}" for turn in [*turns, *alone] if turn.error),
        other_prompts=sum(turn.prompt_tokens != answer.usage.prompt_tokens for turn, answer in answered),
        wall_s=wall_s,
        tokens=tokens,
        tokens_per_s=tokens / wall_s,
        first_p50_ms=median(answer.first_s * 1000 for turn, answer in answered if turn.number == 1),
        later_p50_ms=median(later_ms),
        later_p95_ms=sorted(later_ms)[min(len(later_ms) - 1, int(0.95 * len(later_ms)))] if later_ms else NAN,
        later_prompt_tokens=prompts,
        later_cached_tokens=cached,
        later_new_tokens=new,
        reread_per_new=reread / new if new else NAN,
        reread_share=reread / (prompts - new) if prompts > new else NAN,
        alone_per_s=median(turn.decoding_per_s for turn in alone if turn.decoding_per_s),
        cpu_s=cpu_s,
    )


def median(samples: Iterable[float]) -> float:
    """Return the median; NaN of nothing."""
    known = [sample for sample in samples if not math.isnan(sample)]
    return statistics.median(known) if known else NAN


def over(rounds: Sequence[Round], figure: Callable[[Round], float]) -> float:
    """Return the median of a figure over rounds."""
    return median(figure(each) for each in rounds)


def paired(ours: Sequence[Round], theirs: Sequence[Round], figure: Callable[[Round], float]) -> float:
    """Return the median of the ratio within each round: what slowed the whole round down cancels out."""
    return median(figure(a) / figure(b) if figure(b) else NAN for a, b in zip(ours, theirs, strict=True))


def at_least(what: str, value: float, goal: float) -> Ratio:
    """Return a ratio that should be so high."""
    return Ratio(what, value, f"≥ {goal:g}", value >= goal)


def at_most(what: str, value: float, goal: float) -> Ratio:
    """Return a ratio that should be so low."""
    return Ratio(what, value, f"≤ {goal:g}", value <= goal)


def plain(value: Any) -> Any:
    """Return figures as JSON takes them: NaN, which JSON has not, as null."""
    match value:
        case float():
            return None if math.isnan(value) else value
        case dict():
            return {name: plain(each) for name, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
    return value


class Processors:
    """Processor time by process, of this one and all that it started."""

    def __init__(self) -> None:
        self._at_start = self._read()

    def since(self) -> dict[str, float]:
        """Return the seconds since construction by the process's part; processes that ended are left out."""
        return {part: round(seconds - self._at_start.get(part, 0.0), 3) for part, seconds in self._read().items()}

    @staticmethod
    def _read() -> dict[str, float]:
        own = psutil.Process()
        seconds: dict[str, float] = {}
        for process in (own, *own.children(recursive=True)):
            try:
                times, name = process.cpu_times(), _part(process) if process != own else "robots"
            except psutil.Error:
                continue
            seconds[name] = seconds.get(name, 0.0) + times.user + times.system
        return seconds


def _part(process: psutil.Process) -> str:
    command = process.cmdline()
    if any(argument.endswith("main.py") for argument in command):
        return "daemon"
    if any("naila.inference.worker" in argument for argument in command):
        return "engine"
    return "broker" if process.name() == "mosquitto" else process.name()
