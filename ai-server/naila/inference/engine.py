"""The engine: one thread that owns the context and answers many requests at once.

Continuous batching: requests join and leave between steps. A step is one `llama_decode` over one token of every request
that writes and a chunk of those that are being read in (`naila.inference.scheduler` divides it). What the KV cache
already holds of a prompt is not read again (`naila.inference.prefix_cache`).

A request is its tokens; what of them its slot holds has been decoded, the rest is unread. That is all the state there
is: a request that reads, one that writes and one that was thrown out and let in again differ only in how many tokens
are unread. Nobody but this thread touches the context, so nothing needs a lock but the way in.

Source of the idea: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from array import array
from typing import Final

from naila.errors import EngineFailedError, GenerationError
from naila.events import FinishReason
from naila.inference.backend import native_log
from naila.inference.batch import Batch
from naila.inference.draft import Draft
from naila.inference.intake import Intake
from naila.inference.job import EngineFigures, EngineLimits, Job
from naila.inference.kv import NativeKv
from naila.inference.kv_store import KvStore
from naila.inference.model import AbortFlag, Model
from naila.inference.prefix_cache import CacheFigures, Slot, belongs
from naila.inference.request import Completion, Request
from naila.inference.sampling import Sampler
from naila.inference.scheduler import FairShares, share_step
from naila.inference.speculation import PromptLookup, Speculation, StepCost
from naila.inference.text import TextAssembler
from naila.inference.warmth import Warmth
from naila.ports import StopCause

_log = logging.getLogger(__name__)

_NO_ROOM: Final = 1
_ABORTED: Final = 2
_GROWTH: Final = 8
_IDLE_S: Final = 1.0
_SHELVE_EVERY_S: Final = 0.25
_FEW: Final = 2
_NOTHING: Final = array("i")


class Engine:
    """Works from construction to `close`."""

    def __init__(
        self,
        model: Model,
        limits: EngineLimits | None = None,
        store: KvStore | None = None,
        draft: Draft | None = None,
    ) -> None:
        self._model = model
        self._draft = draft
        self._limits = limits or EngineLimits()
        self._batch = Batch(model.n_batch)
        self._warmth = Warmth(NativeKv(model), store, cells=model.n_cells, sequences=model.n_sequences)
        self._cache = self._warmth.cache
        self._shares = FairShares()
        self._arrivals = itertools.count()
        self._cost = StepCost()
        self._intake = Intake(
            AbortFlag(model.context),
            most=self._limits.running + self._limits.waiting,
            longest=min(model.n_ctx, model.n_cells) - 1,
        )
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self.figures = EngineFigures()
        self._last_step = self._last_shelved = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="naila-engine", daemon=True)
        self._thread.start()

    def stalled_for(self) -> float:
        """Return the seconds for which it has made no step although it had work."""
        return time.monotonic() - self._last_step if self._running or self._waiting else 0.0

    @property
    def load(self) -> tuple[int, int]:
        """How many requests run, and how many wait."""
        return len(self._running), len(self._waiting)

    @property
    def cache_figures(self) -> CacheFigures:
        """How full the KV cache is."""
        return self._cache.figures

    @property
    def slots(self) -> list[Slot]:
        """The sequences of the KV cache, to be looked at only."""
        return self._cache.slots

    @property
    def restored(self) -> int:
        """How many conversations were read back from disk."""
        return self._warmth.restored

    def submit(self, request: Request) -> None:
        """Take a request in. It ends exactly once, through its `on_end`. Safe from any thread.

        Raises:
            EngineBusyError: too many wait.
            ContextOverflowError: it can never fit.
            EngineFailedError: the engine was closed.
        """
        self._intake.submit(request)

    def cancel(self, request: Request, cause: StopCause) -> None:
        """End a request, even inside a long read. Safe from any thread; one that has ended stays as it is."""
        self._intake.cancel(request, cause)

    def forget(self, session: str) -> None:
        """Drop what the KV cache holds of a conversation. Safe from any thread."""
        self._intake.forget(session)

    def close(self) -> None:
        """End everything as cancelled and stop the thread."""
        self._intake.close()
        self._thread.join()
        self._batch.close()
        if self._draft is not None:
            self._draft.close()

    def _run(self) -> None:
        while not self._is_done():
            try:
                self._take_mail()
                self._last_step = time.monotonic()
                self._sweep()
                self._let_in()
                if self._running:
                    self._step()
            except Exception as exc:  # noqa: BLE001 - whatever happens, every request ends and the thread lives
                jobs = [*self._running, *self._waiting]
                _log.exception("the engine failed with %d requests", len(jobs))
                self._fail(jobs, EngineFailedError(f"the engine failed: {exc!r}"))
        self._warmth.close()

    def _is_done(self) -> bool:
        return not self._running and not self._waiting and self._intake.is_empty()

    def _take_mail(self) -> None:
        """Collect what came; sleep while there is nothing to do."""
        has_work = bool(self._running or self._waiting) or self._intake.is_closing
        # With nothing to do, what is only in memory is put on disk, a little at a time.
        patience_s = 0 if has_work else _IDLE_S if self._warmth.is_kept else None
        try:
            for letter in self._intake.collect(patience_s=patience_s):
                if isinstance(letter, Request):
                    self._waiting.append(self._job(letter))
                else:
                    self._forget(letter)
        except queue.Empty:
            if not has_work:
                self._warmth.keep_one()
        if (now := time.monotonic()) - self._last_shelved > _SHELVE_EVERY_S:
            self._last_shelved = now
            self._warmth.shelve()

    def _job(self, request: Request) -> Job:
        self._shares.enter(request.owner, {job.owner for job in [*self._running, *self._waiting]})
        return Job(
            request=request,
            arrival=next(self._arrivals),
            tokens=array("i", request.prompt),
            sampler=Sampler(request.sampling, request.grammar),
            assembler=TextAssembler(request.stop),
            submitted=time.perf_counter(),
            speculation=self._speculation(),
        )

    def _speculation(self) -> Speculation | None:
        mode = self._limits.speculation
        # A recurrent state cannot be rolled back to before a wrong guess.
        if mode == "off" or self._model.is_recurrent:
            return None
        cost = self._cost if mode == "auto" else None
        draft = (self._draft.guesser(cost),) if self._draft is not None else ()
        return Speculation(PromptLookup(cost), *draft)

    def _forget(self, session: str) -> None:
        """Drop a conversation, now where nobody works on it, else as soon as that ends."""
        for job in [*self._running, *self._waiting]:
            if belongs(job.request.session, session):
                job.is_forgotten = True
        self._warmth.forget(session)

    def _sweep(self) -> None:
        """End what was cancelled."""
        for job in [*self._running, *self._waiting]:
            if self._intake.is_closing:
                job.request.cause = job.request.cause or "cancelled"
            if job.request.cause is not None:
                self._end(job, job.request.cause)

    def _let_in(self) -> None:
        while self._waiting and len(self._running) < self._limits.running:
            job = self._shares.next(self._waiting)
            spare = min(job.request.max_tokens, 1)
            slot = self._cache.claim(job.tokens, job.request.session, spare=spare)
            if slot is None:
                return
            job.slot = slot
            if self._running and not self._cache.make_room(self._wanted() + job.unread + _GROWTH):
                self._leave(job)
                return
            self._warmth.recall(slot, job.tokens, job.request.session, spare=spare)
            if job.cached < 0:
                job.cached = len(slot.tokens)
                job.let_in = time.perf_counter()
            self._waiting.remove(job)
            self._running.append(job)
            if not job.unread:
                self._end_read(job)

    def _wanted(self) -> int:
        """Cells that what runs is sure to want: what is unread of it, and a little to write."""
        return sum(job.unread + _GROWTH for job in self._running)

    def _step(self) -> None:
        capacity = self._batch.capacity
        plan = share_step(self._running, capacity=capacity, reading=self._cost.affordable(capacity))
        self._guess([job for job, _ in plan], self._batch.capacity - sum(count for _, count in plan))
        if not self._cache.make_room(sum(count + len(job.guess) for job, count in plan)):
            self._make_do(plan)
            return
        self._batch.clear()
        outputs: dict[int, Job] = {}
        for job, count in plan:
            held = len(job.place.tokens)
            wanted = 1 + len(job.guess) if count == job.unread else 0
            tokens = job.tokens[held : held + count] + job.guess
            index = self._batch.add(tokens, position=held, sequence=job.place.id, outputs=wanted)
            if wanted:
                outputs[index - len(job.guess)] = job
        started = time.perf_counter()
        code = self._decode({job.request: count + len(job.guess) for job, count in plan})
        if code != 0:
            self._recover(plan, code)
            return
        self._cost.learn(len(self._batch), time.perf_counter() - started)
        for job, count in plan:
            held = len(job.place.tokens)
            self._cache.extend(job.place, job.tokens[held : held + count] + job.guess)
            self._shares.charge(job.owner, count)
        self.figures.steps += 1
        self.figures.tokens += len(self._batch)
        self.figures.jobs += len(plan)
        for index, job in outputs.items():
            try:
                self._draw(job, index)
            except EngineFailedError as exc:
                self._fail([job], exc)

    def _guess(self, jobs: list[Job], room: int) -> None:
        """Guess on for whoever writes, while few do: where many write, a step is well used already."""
        for job in jobs:
            is_writing = job.unread == 1 and len(jobs) <= _FEW
            left = min(room, job.request.max_tokens - job.drawn - 1, self._model.n_ctx - len(job.tokens) - 1)
            job.guess = job.speculation.guess(job.tokens, left) if is_writing and job.speculation else _NOTHING
            room -= len(job.guess)

    def _make_do(self, plan: list[tuple[Job, int]]) -> None:
        """Do without what can be done without, so that the next step has room."""
        if any(job.guess for job, _ in plan):
            for job, _ in plan:
                job.give_up_guessing()
        elif len(self._running) > 1:
            self._preempt()
        elif not self._cache.unpin():
            self._fail(list(self._running), EngineFailedError("the KV cache has no room for even one request"))

    def _decode(self, tokens: dict[Request, int]) -> int:
        if not self._intake.begin_step(tokens):
            return _ABORTED
        code = _ABORTED
        try:
            code = self._batch.decode(self._model.context)
        finally:
            self._intake.end_step(was_aborted=code == _ABORTED)
        return code

    def _recover(self, plan: list[tuple[Job, int]], code: int) -> None:
        """Undo a step that was not done; nobody but a failed request notices."""
        for job, _ in plan:
            self._cache.rollback(job.place)
        if code == _ABORTED:
            return
        if code == _NO_ROOM and len(self._running) > 1:
            self._preempt()
            return
        why = native_log.take_errors() or "no reason given"
        error = EngineFailedError(f"llama_decode returned {code} for {len(self._batch)} tokens: {why}", code=code)
        self._fail([job for job, _ in plan], error)

    def _preempt(self) -> None:
        """Throw the last comer out; it is let in again, with what it has written, when there is room."""
        job = max(self._running, key=lambda job: (job.is_background, job.arrival))
        self.figures.preempted += 1
        self._running.remove(job)
        self._cache.drop(job.place)
        self._leave(job)
        self._waiting.append(job)

    def _draw(self, job: Job, index: int) -> None:
        """Draw a request's next tokens, where it wants any: one, and one more for each guess that came true."""
        if job.request.max_tokens == 0:
            self._end_read(job)
            return
        guess, held = job.guess, len(job.tokens)
        reason = self._draw_one(job, index)
        taken = 0
        while reason is None and taken < len(guess) and job.tokens[-1] == guess[taken]:
            taken += 1
            reason = self._draw_one(job, index + taken)
        if guess:
            self._cache.cut(job.place, min(held + taken, len(job.tokens)))
            self.figures.guessed += len(guess)
            self.figures.taken += taken
            if job.speculation is not None:
                job.speculation.learn(len(guess), taken)
        if reason is not None:
            self._end(job, reason)

    def _end_read(self, job: Job) -> None:
        """End a request that only wanted its prompt to be held."""
        if job.request.is_prefix:
            self._cache.pin(job.place)
        self._end(job, "length")

    def _draw_one(self, job: Job, index: int) -> FinishReason | None:
        """Draw a token from one output and pass its text on; tell whether the answer ends with it."""
        token = job.sampler.sample(self._model.context, index)
        job.drawn += 1
        job.first = job.first or time.perf_counter()
        vocabulary = self._model.vocabulary
        if vocabulary.is_end(token):
            return "stop"
        job.write(job.assembler.feed(vocabulary.decode(token)), self._limits.text_every_s)
        if job.assembler.stopped:
            return "stop"
        if job.drawn >= job.request.max_tokens or len(job.tokens) + 1 >= self._model.n_ctx:
            return "length"
        job.tokens.append(token)
        return None

    def _end(self, job: Job, reason: FinishReason) -> None:
        job.unsaid += job.assembler.finish()
        self._dismiss(job, job.completion(reason))

    def _fail(self, jobs: list[Job], error: EngineFailedError) -> None:
        for job in jobs:
            if job.slot is not None:
                self._cache.drop(job.slot)
            self._dismiss(job, error)

    def _dismiss(self, job: Job, end: Completion | GenerationError) -> None:
        (self._running if job in self._running else self._waiting).remove(job)
        self._leave(job)
        job.give_up_guessing()
        job.sampler.close()
        self._intake.release()
        if not self._running and not self._waiting:
            self._shares.reset()
        try:
            job.say()
            job.request.on_end(end)
        except Exception:  # noqa: BLE001 - the engine's thread must live
            _log.exception("whoever asked could not be told how the answer ended")

    def _leave(self, job: Job) -> None:
        if job.slot is not None:
            if job.is_forgotten:
                self._cache.drop(job.slot)
            self._cache.release(job.slot)
            job.slot = None
