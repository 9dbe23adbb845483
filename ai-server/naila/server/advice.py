"""What measured speeds mean for the settings and for how many robots a machine will carry, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from naila.inference.speed import Figures, ThreadSpeed
from naila.ports import EnginePlan, ModelHeader

_WORTH_CHANGING: Final = 0.9
_STALL_S: Final = 0.5  # a pause in the middle of an answer that a listener notices
_SPEECH: Final = 4  # tokens a second that a person speaks or reads aloud, about
_TURNS: Final = 10
_CELL_STEP: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """How robots are assumed to talk.

    Attributes:
        every_s: seconds from one question of a robot to its next.
        new_tokens: of a question, with what stands around it.
        answer_tokens: of an answer.
        busy: share of the time that the machine may be busy: the rest keeps queues short.
    """

    every_s: float = 30
    new_tokens: int = 25
    answer_tokens: int = 40
    busy: float = 0.7

    @property
    def words(self) -> str:
        """The assumption, to be printed."""
        return (
            f"each robot asks every {self.every_s:g} s, {self.new_tokens} new tokens, for an answer of "
            f"{self.answer_tokens}; the machine is busy {self.busy:.0%} of the time at most"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One piece of advice.

    Attributes:
        about: a setting, or what else it is about.
        value: what it should be, or is.
        why: the reason, with figures.
        is_change: whether something should be set that is not.
    """

    about: str
    value: str
    why: str
    is_change: bool = False


def advise(figures: Figures, plan: EnginePlan, header: ModelHeader, talk: Talk, robots: int) -> list[Advice]:
    """Say what the figures mean.

    Args:
        figures: measured under `plan`.
        plan: how the model is run now.
        header: the model.
        talk: how robots are assumed to talk.
        robots: how many there are.
    """
    return [
        *_threads(figures, plan, talk),
        _batch(figures, plan, robots),
        _context(plan, figures, talk),
        _cells(figures, plan, header, talk, robots),
        _robots(figures, talk, robots),
        *_first_words(figures, robots),
        _answer(figures, talk),
    ]


def carried(figures: Figures, talk: Talk) -> int:
    """Return how many robots the machine carries, from what it writes for several together."""
    reading = max(figures.reading.values())
    robots = 0
    while robots < 10_000:
        writing = max(speed for count, speed in figures.together.items() if count <= max(robots + 1, 1))
        turn_s = talk.new_tokens / reading + talk.answer_tokens / writing
        if (robots + 1) * turn_s > talk.every_s * talk.busy:
            break
        robots += 1
    return robots


def rate(speed: float) -> str:
    """Write a speed with as many digits as it deserves."""
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"


def _threads(figures: Figures, plan: EnginePlan, talk: Talk) -> Iterator[Advice]:
    if not figures.threads:
        return

    def turn_s(reading: ThreadSpeed, writing: ThreadSpeed) -> float:
        return talk.new_tokens / reading.reading + talk.answer_tokens / writing.writing

    by_count = {speed.threads: speed for speed in figures.threads}
    best = min(figures.threads, key=lambda speed: turn_s(speed, speed))
    now_reading, now_writing = by_count.get(plan.n_threads_batch), by_count.get(plan.n_threads)
    fastest = (
        f"{best.threads} thread{'s write' if best.threads > 1 else ' writes'} {rate(best.writing)} tokens/s and "
        f"read{'s' * (best.threads == 1)} {rate(best.reading)}"
    )
    if now_reading is None or now_writing is None:
        yield Advice(about="LLM_THREADS", value=str(best.threads), why=fastest, is_change=True)
        return
    now, then = turn_s(now_reading, now_writing), turn_s(best, best)
    if then < now * _WORTH_CHANGING:
        why = f"{fastest}: a turn takes {then:.2g} s instead of {now:.2g}; set it and measure again"
        yield Advice(about="LLM_THREADS", value=str(best.threads), why=why, is_change=True)
        return
    same = f"{plan.n_threads}" + f", {plan.n_threads_batch} to read" * (plan.n_threads != plan.n_threads_batch)
    yield Advice(about="LLM_THREADS", value="as it is", why=f"{same}: no other number is clearly faster")


def _batch(figures: Figures, plan: EnginePlan, robots: int) -> Advice:
    size = max(figures.reading)
    fastest = max(figures.reading.values())
    stall = size / figures.reading[size]
    why = f"while one robot's words are read, the others' next token waits {stall:.2g} s at most"
    shorter = [
        step
        for step, speed in figures.reading.items()
        if robots <= step < size and step / speed <= stall / 1.5 and speed >= fastest * _WORTH_CHANGING
    ]
    if stall > _STALL_S and shorter and not plan.n_gpu_layers:
        # The longest that is short enough, else the shortest that is no slower.
        step = max((s for s in shorter if s / figures.reading[s] <= _STALL_S), default=min(shorter))
        why += f", with {step} {step / figures.reading[step]:.2g} s, and reading is about as fast"
        return Advice(about="LLM_BATCH_SIZE", value=str(step), why=why, is_change=True)
    return Advice(about="LLM_BATCH_SIZE", value="as it is", why=f"{size} tokens a step: {why}")


def _context(plan: EnginePlan, figures: Figures, talk: Talk) -> Advice:
    turns = max(0, plan.n_ctx - figures.prefix_tokens) // (talk.new_tokens + talk.answer_tokens)
    return Advice(
        about="LLM_CONTEXT_SIZE",
        value="as it is",
        why=f"{plan.n_ctx} tokens hold about {turns} turns of a conversation; then the oldest leave",
    )


def _cells(figures: Figures, plan: EnginePlan, header: ModelHeader, talk: Talk, robots: int) -> Advice:
    each = _TURNS * (talk.new_tokens + talk.answer_tokens)
    wanted = -(-(figures.prefix_tokens + robots * each) // _CELL_STEP) * _CELL_STEP
    values = header.n_layers * header.n_kv_heads * (header.head_dim_k + header.head_dim_v)
    cell_bytes = values * 2 if plan.kv_type == "f16" else values * 34 // 32
    if wanted <= plan.n_cells:
        fit = (plan.n_cells - figures.prefix_tokens) // each
        why = f"{plan.n_cells} cells keep about {fit} conversations of {_TURNS} turns in memory"
        return Advice(about="LLM_KV_CELLS", value="as it is", why=why)
    more = (wanted - plan.n_cells) * cell_bytes
    why = f"{robots} conversations of {_TURNS} turns stay in memory, for {more / 1e6:.0f} MB more"
    if plan.needed_bytes + more <= plan.available_bytes * 0.9 and not plan.n_gpu_layers:
        return Advice(about="LLM_KV_CELLS", value=str(wanted), why=why, is_change=True)
    back = f", read back from disk in {figures.kept.load_ms:.2g} ms each" if figures.kept is not None else ""
    fit = max(1, (plan.n_cells - figures.prefix_tokens) // each)
    why = f"{plan.n_cells} cells keep about {fit} conversations of {_TURNS} turns; the others leave{back}"
    return Advice(about="LLM_KV_CELLS", value="as it is", why=why)


def _robots(figures: Figures, talk: Talk, robots: int) -> Advice:
    number = carried(figures, talk)
    most = max(figures.together)
    why = "as they talk by assumption"
    if number < robots:
        why += f"; {robots} need a smaller model, a faster machine or longer pauses"
    elif number > most:
        why += f"; more than {most} is extrapolated"
    return Advice(about="robots", value=f"about {number}" if number else "not one", why=why)


def _first_words(figures: Figures, robots: int) -> Iterator[Advice]:
    burst_ms = figures.burst_ms[1] if figures.burst_ms is not None else None
    if burst_ms is None and robots > 1:
        burst_ms = robots * figures.new_tokens / max(figures.reading.values()) * 1000
    computed = " (computed)" if figures.burst_ms is None else ""
    for ms, when in (
        (figures.turn_ms, "one robot asks and nobody else is there"),
        (figures.busy_turn_ms, f"one asks while {robots - 1} others are being answered"),
        (burst_ms, f"the last of {robots} that ask at the same moment{computed}"),
    ):
        if ms is not None:
            yield Advice(about="first word", value=_band(ms), why=f"{_time(ms)}: {when}")


def _answer(figures: Figures, talk: Talk) -> Advice:
    most = max(figures.together)
    each = figures.together[most] / most
    alone = figures.together.get(1, each)
    slowest = "faster" if each >= _SPEECH else "slower"
    whole = f"an answer of {talk.answer_tokens} tokens takes {talk.answer_tokens / alone:.2g} s"
    others = f", {talk.answer_tokens / each:.2g} s when {most} are written together" if most > 1 else ""
    return Advice(
        about="whole answer",
        value=f"{slowest} than speech",
        why=f"{whole}{others}: {rate(each)} tokens/s each, speech has about {_SPEECH}",
    )


def _band(ms: float) -> str:
    return "under 1 s" if ms < 1000 else "under 3 s" if ms < 3000 else "over 3 s"


def _time(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
