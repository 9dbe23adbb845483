"""Warmth: what is read back from disk takes the place of what was claimed, or nothing changes."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from naila.errors import GenerationError
from naila.inference.engine import Engine
from naila.inference.kv import NativeKv
from naila.inference.kv_store import KeepPlan, KvStore, open_store
from naila.inference.model import Model
from naila.inference.prefix_cache import Slot, as_tokens
from naila.inference.request import Completion, Request
from naila.inference.sampling import Sampling
from naila.inference.warmth import Warmth
from naila.ports import EnginePlan

OPENING = list(range(1000, 1100))
STORY = [*OPENING, *range(2000, 2080)]


class FakeKv(NativeKv):
    """Knows only how long sequences are; a state is as many bytes as it has tokens."""

    def __init__(self) -> None:
        self.lengths: dict[int, int] = {}
        self.bytes_per_token = 1
        self.copies = 0
        self.refuses = 0

    def share(self, source: int, target: int, length: int) -> bool:
        assert not self.lengths.get(target)
        assert length <= self.lengths[source]
        self.lengths[target] = length
        return True

    def graft(self, source: int, target: int, length: int) -> bool:
        assert length <= min(self.lengths[source], self.lengths[target])
        return True

    def trim(self, sequence: int, keep: int) -> bool:
        self.lengths[sequence] = min(keep, self.lengths.get(sequence, 0))
        return True

    def state_size(self, sequence: int) -> int:
        return self.lengths[sequence] * self.bytes_per_token

    def state(self, sequence: int) -> memoryview | None:
        self.copies += 1
        return memoryview(bytes(self.lengths[sequence]))

    def restore(self, sequence: int, state: memoryview) -> bool:
        assert not self.lengths.get(sequence)
        if self.refuses:
            self.refuses -= 1
            return False
        self.lengths[sequence] = len(state)
        return True


class Rig:
    """A warm cache over a fake of the native memory, with an opening pinned in it."""

    def __init__(self, folder: Path, cells: int = 1000) -> None:
        self.kv = FakeKv()
        self.store = KvStore(folder / "kv", "f" * 64, budget_bytes=10**9)
        self.now = 0.0
        self.warmth = Warmth(self.kv, self.store, cells=cells, sequences=8, clock=lambda: self.now)
        self.cache = self.warmth.cache
        self.opening = self.work(OPENING, None)
        self.cache.pin(self.opening)

    def on_disk(self, tokens: list[int], session: str | None) -> None:
        public = len(tokens) if session is None else len(OPENING) if tokens[:100] == OPENING else 0
        assert self.store.save(session, as_tokens(tokens), public, bytes(len(tokens)))
        self.store.flush()

    def claim(self, tokens: list[int], session: str | None) -> Slot:
        slot = self.cache.claim(as_tokens(tokens), session)
        assert slot is not None
        return slot

    def extend(self, slot: Slot, tokens: list[int]) -> None:
        assert self.cache.make_room(len(tokens))
        self.cache.extend(slot, tokens)
        self.kv.lengths[slot.id] = len(slot.tokens)

    def work(self, tokens: list[int], session: str | None) -> Slot:
        slot = self.claim(tokens, session)
        self.extend(slot, tokens[len(slot.tokens) :])
        self.cache.release(slot)
        return slot

    def shelve(self, after_s: float = 10.0) -> None:
        """Let time pass, and everything leave memory that will."""
        self.now += after_s
        for _ in range(20):
            self.warmth.shelve()
            self.store.flush()

    def recall(self, slot: Slot, tokens: list[int], session: str | None) -> None:
        self.warmth.recall(slot, as_tokens(tokens), session)
        assert len(slot.tokens) == len(slot.cells) == self.kv.lengths[slot.id]
        assert list(slot.tokens) == tokens[: len(slot.tokens)]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.store.close()


def test_what_is_read_back_shares_the_opening_again(rig: Rig) -> None:
    rig.on_disk(STORY, "a/1")
    slot = rig.claim([*STORY, 5], "a/1")
    assert len(slot.tokens) == 100
    rig.recall(slot, [*STORY, 5], "a/1")
    assert slot.tokens == as_tokens(STORY)
    assert slot.cells[:100] == rig.opening.cells
    assert rig.cache.figures.cells_used == 180
    assert (slot.kept, slot.public, rig.warmth.restored) == (180, 100, 1)


def test_what_nobody_uses_leaves_memory_and_is_as_warm_as_before(rig: Rig) -> None:
    rig.work(STORY, "a/1")
    rig.shelve()
    assert rig.cache.figures.cells_used == 0
    slot = rig.claim([*STORY, 5], "a/1")
    assert len(slot.tokens) == 0
    rig.recall(slot, [*STORY, 5], "a/1")
    assert slot.tokens == as_tokens(STORY)
    assert (slot.public, rig.warmth.restored) == (100, 1)


def test_after_a_shelf_the_opening_is_shared_again(rig: Rig) -> None:
    rig.work(STORY, "a/1")
    rig.work([*OPENING, *range(3000, 3050)], "b/1")
    rig.shelve()
    for session, words in (("a/1", STORY), ("b/1", [*OPENING, *range(3000, 3050)])):
        slot = rig.claim([*words, 5], session)
        rig.recall(slot, [*words, 5], session)
        assert list(slot.tokens) == words
    assert rig.cache.figures.cells_used == 100 + 80 + 50


def test_what_is_in_use_or_was_just_now_stays_in_memory(rig: Rig) -> None:
    busy = rig.claim(STORY, "a/1")
    rig.extend(busy, STORY[len(busy.tokens) :])
    rig.shelve(0.5)
    assert rig.cache.figures.cells_used == 180
    rig.shelve()
    assert list(busy.tokens) == STORY


def test_what_cannot_be_written_stays_in_memory(rig: Rig) -> None:
    rig.work(STORY, "a/1")
    rig.store.close()
    rig.now += 10
    for _ in range(5):
        rig.warmth.shelve()
    assert rig.cache.figures.cells_used == 180
    assert rig.kv.copies <= 2


def test_what_takes_long_to_read_back_stays_in_memory(rig: Rig) -> None:
    rig.kv.bytes_per_token = 2**20
    rig.work(STORY, "a/1")
    rig.shelve()
    assert rig.cache.figures.cells_used == 180


def test_an_opening_read_back_from_disk_is_everybodys(rig: Rig) -> None:
    other = list(range(5000, 5050))
    rig.on_disk(other, None)
    slot = rig.claim([*other, 1], "a/1")
    rig.recall(slot, [*other, 1], "a/1")
    rig.extend(slot, [1])
    assert slot.public == 50
    assert len(rig.claim([*other, 1, 2], "b/1").tokens) == 50


def test_without_room_what_was_claimed_stays_and_nobody_leaves(tmp_path: Path) -> None:
    rig = Rig(tmp_path, cells=300)
    rig.on_disk(STORY, "a/1")
    rig.work(list(range(15)), "idle/1")
    busy = rig.claim([7] * 20, "busy/1")
    rig.extend(busy, [7] * 20)
    for _ in range(2):
        slot = rig.claim([*STORY, 5], "a/1")
        rig.extend(busy, [7])
        rig.recall(slot, [*STORY, 5], "a/1")
        assert len(slot.tokens) == 100
        rig.cache.release(slot)
    assert rig.cache.figures.evictions == 0
    rig.store.close()


def test_what_the_slot_itself_would_free_is_counted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, cells=300)
    rig.on_disk(STORY, "a/1")
    slot = rig.claim([*STORY, 5], "a/1")
    rig.extend(slot, STORY[100:125])
    busy = rig.claim([7] * 20, "busy/1")
    rig.extend(busy, [7] * 20)
    rig.recall(slot, [*STORY, 5], "a/1")
    assert len(slot.tokens) == 180
    rig.store.close()


def test_a_damaged_file_leaves_what_was_claimed(rig: Rig, tmp_path: Path) -> None:
    rig.on_disk(STORY, "a/1")
    (path,) = (tmp_path / "kv").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    slot = rig.claim([*STORY, 5], "a/1")
    rig.recall(slot, [*STORY, 5], "a/1")
    assert (len(slot.tokens), slot.public, rig.warmth.restored) == (100, 100, 0)


def test_a_state_that_is_refused_leaves_what_was_claimed(rig: Rig) -> None:
    rig.on_disk(STORY, "a/1")
    slot = rig.claim([*STORY, 5], "a/1")
    rig.kv.refuses = 1
    rig.recall(slot, [*STORY, 5], "a/1")
    assert slot.cells == rig.opening.cells
    rig.extend(slot, STORY[100:120])
    rig.kv.refuses = 1
    rig.recall(slot, [*STORY, 5], "a/1")
    assert (len(slot.tokens), slot.public, rig.warmth.restored) == (120, 100, 0)
    assert rig.cache.figures.cells_used == 120


def test_a_state_is_copied_only_where_the_writer_takes_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = rig.work(STORY, "a/1")
    monkeypatch.setattr(rig.store, "has_room", lambda _: False)
    rig.warmth.keep(slot)
    assert rig.kv.copies == 0
    monkeypatch.undo()
    rig.warmth.keep(slot)
    assert (rig.kv.copies, slot.kept) == (1, 180)


def test_while_the_writer_is_busy_those_leave_first_who_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, cells=180)
    first = rig.work(list(range(40)), "a/1")
    second = rig.work(list(range(100, 140)), "b/1")
    rig.warmth.keep(second)
    monkeypatch.setattr(rig.store, "has_room", lambda _: False)
    assert rig.cache.make_room(40)
    assert (len(first.tokens), len(second.tokens)) == (40, 0)
    rig.store.close()


class Asking:
    """An engine with the small real model, asked greedily."""

    def __init__(self, path: Path, folder: Path, n_cells: int = 2048) -> None:
        plan = EnginePlan(
            n_threads=1,
            n_threads_batch=1,
            n_gpu_layers=0,
            n_ctx=1024,
            n_cells=n_cells,
            n_sequences=16,
            n_batch=64,
            use_mmap=True,
            acceleration="cpu",
            needed_bytes=0,
            available_bytes=0,
            reasons={},
        )
        self.model = Model(path, plan)
        self.engine = Engine(self.model, None, open_store(KeepPlan(folder=folder, budget_bytes=10**9), path, plan))

    def close(self) -> None:
        self.engine.close()
        self.model.close()

    def submit(
        self, prompt: list[int], session: str | None, max_tokens: int, *, is_prefix: bool = False
    ) -> tuple[Future[Completion | GenerationError], list[str]]:
        end: Future[Completion | GenerationError] = Future()
        pieces: list[str] = []
        request = Request(
            prompt=array("i", prompt),
            max_tokens=max_tokens,
            sampling=Sampling(temperature=0),
            owner=(session or "").partition("/")[0],
            session=session,
            is_prefix=is_prefix,
            on_text=pieces.append,
            on_end=end.set_result,
        )
        self.engine.submit(request)
        return end, pieces

    def ask(
        self, prompt: list[int], session: str | None, max_tokens: int = 8, *, is_prefix: bool = False
    ) -> tuple[str, int]:
        """Return the answer and how much of the prompt was not read."""
        future, pieces = self.submit(prompt, session, max_tokens, is_prefix=is_prefix)
        end = future.result(60)
        assert isinstance(end, Completion)
        return "".join(pieces), end.usage.cached_tokens


@pytest.mark.model
def test_after_a_restart_the_fleet_shares_its_opening_as_before(model_path: Path, tmp_path: Path) -> None:
    figures, answers = [], []
    for _life in range(2):
        asking = Asking(model_path, tmp_path)
        encode = asking.model.vocabulary.encode_text
        opening = list(encode("The robots of the house are kind, and each has a job. " * 30))[:300]
        asking.ask(opening, None, 0, is_prefix=True)
        prompts = [[*opening, *encode(f" Robot number {n} likes the colour of " * 4)] for n in range(4)]
        answers.append([asking.ask(prompt, f"r{n}/1") for n, prompt in enumerate(prompts)])
        figures.append((asking.engine.cache_figures.cells_used, asking.engine.restored))
        asking.close()
    assert [text for text, _ in answers[0]] == [text for text, _ in answers[1]]
    assert all(cached == 300 for _, cached in answers[0])
    assert all(cached == len(prompt) - 1 for (_, cached), prompt in zip(answers[1], prompts, strict=True))
    assert all(cells_used < 700 for cells_used, _ in figures)  # not shared, the opening alone would take 1200
    assert [restored for _, restored in figures] == [0, 5]


@pytest.mark.model
def test_an_opening_on_disk_is_held_after_a_start_without_a_step(model_path: Path, tmp_path: Path) -> None:
    opening = list(range(1000, 1100))
    steps = []
    for _life in range(2):
        asking = Asking(model_path, tmp_path)
        asking.ask(opening, None, 0, is_prefix=True)
        steps.append(asking.engine.figures.steps)
        assert asking.ask([*opening, *range(2000, 2010)], "r1/1", 1)[1] == 100
        asking.close()
    assert steps[0] > 0
    assert steps[1] == 0


@pytest.mark.model
def test_a_conversation_on_disk_and_one_that_writes_both_end(model_path: Path, tmp_path: Path) -> None:
    opening = list(range(1000, 1300))
    mine = [*opening, *range(4000, 4200)]
    asking = Asking(model_path, tmp_path, 1024)
    asking.ask(opening, None, 0, is_prefix=True)
    asking.ask(mine, "r1/1", 1)
    asking.close()
    asking = Asking(model_path, tmp_path, 1024)
    asking.ask(opening, None, 0, is_prefix=True)
    writing, _ = asking.submit([*opening, *range(6000, 6250)], "r2/1", 300)
    threading.Event().wait(0.5)
    assert asking.ask([*mine, 5], "r1/1", 1)[1] >= 300
    assert isinstance(writing.result(60), Completion)
    asking.close()
