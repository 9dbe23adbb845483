"""Measures a model on this machine through a real engine, each measurement within its seconds.

Prompts are random ordinary tokens: speed does not depend on what they say.
"""

from __future__ import annotations

import random
import statistics
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

import llama_cpp

from naila.errors import GenerationError, ModelLoadError
from naila.inference.engine import Engine
from naila.inference.job import EngineLimits
from naila.inference.kv import NativeKv
from naila.inference.kv_store import KvStore
from naila.inference.model import Model
from naila.inference.request import Completion, Request
from naila.inference.sampling import Sampling
from naila.inference.speed import Figures, KeptKv, ThreadSpeed
from naila.inference.writers import Writers
from naila.ports import EnginePlan

_SCRATCH: Final = "scratch/bench"
_PROBE: Final = 16
_PREFIX: Final = 200
_OWN: Final = 60
_ANSWER: Final = 64
_LEAST_SEQUENCES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long measuring may take.

    Attributes:
        seconds: for one measurement.
        rounds: how often the threads are compared; they take turns, so that a disturbance hits all alike.
    """

    seconds: float
    rounds: int


class Yardstick:
    """One model and one engine, to be measured. Close it."""

    def __init__(
        self,
        path: Path,
        plan: EnginePlan,
        pace: Pace,
        *,
        conversations: int,
        new_tokens: int,
        sampling: Sampling,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Load the model.

        Args:
            path: its file.
            plan: how it is run.
            pace: how long measuring may take.
            conversations: how many at once.
            new_tokens: new words of a turn, in tokens.
            sampling: how tokens are drawn.
            say: told what is measured now.

        Raises:
            ModelLoadError: llama.cpp refused it, or its plan leaves no room to measure anything.
        """
        if plan.n_sequences < _LEAST_SEQUENCES:
            raise ModelLoadError(
                f"steps of {plan.n_batch} tokens leave room for {plan.n_sequences} conversations, too few to measure: "
                f"set LLM_BATCH_SIZE to {_LEAST_SEQUENCES} or more",
                path=path,
            )
        self._plan = plan
        self._pace = pace
        self._new_tokens = new_tokens
        self._sampling = sampling
        self._say = say
        self._cut: list[str] = []
        say(f"loading {path.name}")
        started = time.perf_counter()
        self._model = Model(path, plan)
        self._load_s = time.perf_counter() - started
        # The starter of the writers and a cancelled read are beside the conversations.
        # Guessing is off: how often guesses come true depends on the words, and these mean nothing.
        self._engine = Engine(self._model, EngineLimits(running=conversations + 2, speculation="off"))
        vocabulary = self._model.vocabulary
        self._ordinary = [token for token in range(vocabulary.size) if not vocabulary.is_control(token)]
        self._random = random.Random(0)  # noqa: S311 - words, not secrets
        # The prefix, a scratch conversation and a little air are beside them.
        self._n = min(conversations, plan.n_sequences - 4)
        if self._n < conversations:
            self._cut.append(f"{self._n} conversations instead of {conversations}: LLM_BATCH_SIZE leaves no more")
        self._prompts: dict[str, array[int]] = {}
        self._prefix: array[int] = array("i")
        self._answer = _ANSWER
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_engine()
        self._model.close()

    def measure(self, threads: Sequence[int], folder: Path) -> Figures:
        """Measure everything; the engine does not answer afterwards.

        Args:
            threads: numbers of threads to compare.
            folder: where KV may be kept for a moment.

        Raises:
            GenerationError: the engine failed.
        """
        reading = self._reading()
        compared = self._compare(threads, reading)
        self._begin_conversations(max(reading.values()))
        together = self._together()
        turn_ms = self._turns()
        busy_ms = self._busy_turns()
        burst = self._burst(max(reading.values()))
        abort_ms = self._abort(min(reading.values()))
        return Figures(
            load_s=self._load_s,
            reading=reading,
            threads=compared,
            prefix_tokens=len(self._prefix),
            own_tokens=len(next(iter(self._prompts.values()))) - len(self._prefix),
            new_tokens=self._new_tokens,
            together=together,
            turn_ms=turn_ms,
            busy_turn_ms=busy_ms,
            burst_ms=burst,
            abort_ms=abort_ms,
            kept=self._keep(folder),
            cut=tuple(self._cut),
        )

    def _reading(self) -> dict[int, float]:
        """Return the tokens read a second, by tokens in a step."""
        self._say("reading: how many tokens in a step")
        most = min(self._model.n_batch, self._model.n_ctx - 1)
        sizes = sorted({most, *(size for size in (16, 32, 64, 128, 256, 512, 1024) if size < most)})[-4:]
        self._read(min(_PROBE, most))  # the weights come from the disk, buffers are made
        seconds = self._pace.seconds / len(sizes)
        return {size: size / self._median(partial(self._read, size), seconds) for size in sizes}

    def _compare(self, counts: Sequence[int], reading: dict[int, float]) -> tuple[ThreadSpeed, ...]:
        """Compare numbers of threads, for one conversation."""
        if self._plan.n_gpu_layers:
            self._cut.append("threads were not compared: the model is on the GPU")
            return ()
        seconds = max(0.2, self._pace.seconds * 4 / (2 * len(counts) * self._pace.rounds))
        prompt = {_SCRATCH: self._words(_PROBE)}
        speeds: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
        for _ in range(self._pace.rounds):
            for count in counts:
                self._say(f"threads: {count}")
                # Nothing is decoded now, so the context may be changed from here.
                llama_cpp.llama_set_n_threads(self._model.context, count, count)
                share = min(1.0, count / self._plan.n_threads_batch)
                size = max(min(reading), min(max(reading), int(max(reading.values()) * share * seconds)))
                speeds[count].append((size / self._read(size), self._write(prompt, seconds)))
        llama_cpp.llama_set_n_threads(self._model.context, self._plan.n_threads, self._plan.n_threads_batch)
        self._engine.forget(_SCRATCH)
        return tuple(
            ThreadSpeed(count, *(statistics.median(column) for column in zip(*speed, strict=True)))
            for count, speed in speeds.items()
        )

    def _begin_conversations(self, speed: float) -> None:
        """Read in a prefix that all share and a little that each has of its own, as much as the time allows."""
        self._say(f"reading {self._n} conversations in")
        wanted = _PREFIX + self._n * _OWN
        affordable = speed * self._pace.seconds * 4
        # Answers and new words need room too, in a conversation and in all of them together.
        room = min(self._model.n_cells / 2, wanted * self._model.n_ctx / 2 / (_PREFIX + _OWN))
        share = min(1.0, affordable / wanted, room / wanted)
        prefix, own = max(8, int(_PREFIX * share)), max(4, int(_OWN * share))
        if share < 1:
            why = "reading is slow" if affordable < room else "the KV cache is small"
            self._cut.append(f"conversations of {prefix + own} tokens instead of {_PREFIX + _OWN}: {why}")
        self._answer = max(4, min(_ANSWER, (self._model.n_cells - prefix) // self._n - own - self._new_tokens - 8))
        self._prefix = self._words(prefix)
        self._ask(self._prefix, is_prefix=True)
        for number in range(self._n):
            session = f"robot{number}/bench"
            self._prompts[session] = self._prefix + self._words(own)
            self._ask(self._prompts[session], session=session)

    def _together(self) -> dict[int, float]:
        speeds = {}
        for count in sorted({count for count in (1, 2, 4, 8, 16, 32) if count < self._n} | {self._n}):
            self._say(f"writing: {count} together")
            speeds[count] = self._write(dict(list(self._prompts.items())[:count]), self._pace.seconds)
        return speeds

    def _turns(self) -> float:
        self._say("a later turn")
        return self._median(lambda: self._turn(0), self._pace.seconds) * 1000

    def _busy_turns(self) -> float | None:
        if self._n == 1:
            return None
        self._say(f"a later turn while {self._n - 1} others write")
        others = dict(list(self._prompts.items())[1:])
        writers = Writers(self._engine, others, self._sampling, max_tokens=self._answer)
        writers.start()
        try:
            return self._median(lambda: self._turn(0), self._pace.seconds) * 1000
        finally:
            writers.stop()

    def _burst(self, speed: float) -> tuple[float, float] | None:
        expected = self._n * self._new_tokens / speed
        if self._n == 1:
            return None
        if expected > self._pace.seconds * 2:
            self._cut.append(f"all {self._n} asking at once was not measured: about {expected:.1f} s")
            return None
        self._say(f"{self._n} ask at once")
        until, medians, last = time.perf_counter() + self._pace.seconds, list[float](), list[float]()
        while not last or time.perf_counter() + last[-1] / 1000 < until:
            asked = [self._submit(self._question(n), max_tokens=1, session=s) for n, s in enumerate(self._prompts)]
            times = [ended.result().ttft_ms for _, ended in asked]
            medians.append(statistics.median(times))
            last.append(max(times))
        return statistics.median(medians), statistics.median(last)

    def _abort(self, speed: float) -> float | None:
        """Cancel long reads at several places of a step; return the worst time in ms."""
        self._say("cancelling inside a long read")
        length = min(16 * self._model.n_batch, self._model.n_ctx - 1)  # little of it is read
        step_s = min(length, self._model.n_batch) / speed
        waits = []
        for share in (0.2, 0.5, 0.8):
            request, ended = self._submit(self._words(length), session=_SCRATCH)
            time.sleep(min(step_s * share, self._pace.seconds))
            cancelled = time.perf_counter()
            self._engine.cancel(request, "cancelled")
            if ended.result().finish_reason == "cancelled":
                waits.append(time.perf_counter() - cancelled)
            self._engine.forget(_SCRATCH)
        return max(waits) * 1000 if waits else None

    def _keep(self, folder: Path) -> KeptKv | None:
        """Put the longest conversation on disk and read it back. Without the engine, the context is ours."""
        self._say("keeping a conversation on disk")
        self._stop_engine()
        kv, memory = NativeKv(self._model), llama_cpp.llama_get_memory(self._model.context)
        lengths = [llama_cpp.llama_memory_seq_pos_max(memory, n) + 1 for n in range(self._model.n_sequences)]
        length = max(lengths)
        sequence, tokens = lengths.index(length), self._words(length + 1)
        store = KvStore(folder, "bench", budget_bytes=2**40)
        try:
            started = time.perf_counter()
            state = kv.state(sequence)
            if state is None or not store.save(_SCRATCH, tokens[:-1], 0, state):
                return None
            store.flush()
            saved = time.perf_counter()
            size = store.bytes_used
            kv.trim(sequence, 0)
            trimmed = time.perf_counter()
            found, _ = store.longest(tokens, _SCRATCH)
            state = store.load(found) if found is not None else None
            if state is None or not kv.restore(sequence, state):
                return None
            return KeptKv(length, size, (saved - started) * 1000, (time.perf_counter() - trimmed) * 1000)
        finally:
            store.forget(_SCRATCH)
            store.close()

    def _stop_engine(self) -> None:
        if self._is_open:
            self._is_open = False
            self._engine.close()

    def _words(self, count: int) -> array[int]:
        return array("i", self._random.choices(self._ordinary, k=count))

    def _question(self, number: int) -> array[int]:
        """Return a conversation with something new said in it."""
        return list(self._prompts.values())[number] + self._words(self._new_tokens)

    def _turn(self, number: int) -> float:
        session = list(self._prompts)[number]
        return self._ask(self._question(number), max_tokens=1, session=session).ttft_ms / 1000

    def _read(self, count: int) -> float:
        """Return the seconds that reading so many new tokens takes."""
        ms = self._ask(self._words(count), session=_SCRATCH).total_ms
        self._engine.forget(_SCRATCH)
        return ms / 1000

    def _write(self, prompts: dict[str, array[int]], seconds: float) -> float:
        writers = Writers(self._engine, prompts, self._sampling, max_tokens=self._answer)
        writers.start(seconds)
        return writers.wait()

    def _ask(
        self, prompt: array[int], *, max_tokens: int = 0, session: str | None = None, is_prefix: bool = False
    ) -> Completion:
        return self._submit(prompt, max_tokens=max_tokens, session=session, is_prefix=is_prefix)[1].result()

    def _submit(
        self, prompt: array[int], *, max_tokens: int = 0, session: str | None = None, is_prefix: bool = False
    ) -> tuple[Request, Future[Completion]]:
        ended: Future[Completion] = Future()

        def end(outcome: Completion | GenerationError) -> None:
            if isinstance(outcome, Completion):
                ended.set_result(outcome)
            else:
                ended.set_exception(outcome)

        request = Request(
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=self._sampling,
            owner=(session or "").partition("/")[0],
            session=session,
            is_prefix=is_prefix,
            on_text=lambda _: None,
            on_end=end,
        )
        self._engine.submit(request)
        return request, ended

    @staticmethod
    def _median(measured: Callable[[], float], seconds: float) -> float:
        """Measure again and again, at least once, at most nine times, within the seconds; return the median."""
        until, times = time.perf_counter() + seconds, [measured()]
        while len(times) < 9 and time.perf_counter() + times[-1] < until:
            times.append(measured())
        return statistics.median(times)
