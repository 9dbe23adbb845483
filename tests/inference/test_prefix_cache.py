"""The prefix cache over a fake of the native memory that checks every operation."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from naila.inference.prefix_cache import PrefixCache, Slot, as_tokens, common_prefix


class FakeKv:
    """Holds tokens as the native cache would; shared cells are counted once by whoever looks."""

    def __init__(self, *, is_recurrent: bool = False) -> None:
        self.lengths: dict[int, int] = {}
        self._is_recurrent = is_recurrent

    def share(self, source: int, target: int, length: int) -> bool:
        if self._is_recurrent:
            return False
        assert not self.lengths.get(target)
        assert length <= self.lengths[source]
        self.lengths[target] = length
        return True

    def graft(self, source: int, target: int, length: int) -> bool:
        assert length <= min(self.lengths[source], self.lengths[target])
        return not self._is_recurrent

    def trim(self, sequence: int, keep: int) -> bool:
        kept = keep if not self._is_recurrent or keep == self.lengths.get(sequence, 0) else 0
        self.lengths[sequence] = min(kept, self.lengths.get(sequence, 0))
        return kept == keep


def cache_of(cells: int = 1000, sequences: int = 4, kv: FakeKv | None = None) -> tuple[PrefixCache, FakeKv]:
    kv = kv or FakeKv()
    return PrefixCache(kv, cells=cells, sequences=sequences), kv


def read_in(cache: PrefixCache, kv: FakeKv, prompt: list[int], session: str | None = None) -> tuple[Slot, int]:
    """Claim, decode what is missing and release; return the slot and how much of the prompt was there."""
    slot = cache.claim(as_tokens(prompt), session)
    assert slot is not None
    had = len(slot.tokens)
    assert list(slot.tokens) == prompt[:had]
    assert cache.make_room(len(prompt) - had)
    cache.extend(slot, as_tokens(prompt[had:]))
    kv.lengths[slot.id] = len(prompt)
    cache.release(slot)
    return slot, had


SYSTEM = list(range(100))


def test_the_next_turn_goes_on_where_the_conversation_was() -> None:
    cache, kv = cache_of()
    first, _ = read_in(cache, kv, [*SYSTEM, 1, 2, 3], "a")
    second, had = read_in(cache, kv, [*SYSTEM, 1, 2, 3, 4, 5], "a")
    assert (second, had) == (first, 103)
    assert cache.figures.cells_used == 105


def test_another_conversation_shares_the_beginning_without_copying() -> None:
    cache, kv = cache_of()
    first, _ = read_in(cache, kv, [*SYSTEM, 1, 2, 3], "r/a")
    second, had = read_in(cache, kv, [*SYSTEM, 7, 8], "r/b")
    assert second is not first
    assert had == 100
    assert cache.figures.cells_used == 105


def test_nameless_requests_share_with_each_other() -> None:
    cache, kv = cache_of()
    read_in(cache, kv, [*SYSTEM, 1, 2, 3])
    assert read_in(cache, kv, [*SYSTEM, 7, 8])[1] == 100


@pytest.mark.parametrize(("first", "second"), [("a/1", "b/1"), ("a/1", "ab/1"), (None, "b/1"), ("a/1", None)])
def test_what_another_device_said_is_not_shared(first: str | None, second: str | None) -> None:
    cache, kv = cache_of()
    read_in(cache, kv, [*SYSTEM, 1, 2, 3], first)
    assert read_in(cache, kv, [*SYSTEM, 1, 2, 4], second)[1] == 0


def test_devices_share_a_prefix_that_was_read_in_for_all_and_no_more() -> None:
    cache, kv = cache_of(sequences=8)
    opening, _ = read_in(cache, kv, SYSTEM)
    cache.pin(opening)
    read_in(cache, kv, [*SYSTEM, 1, 2, 3], "a/1")
    assert read_in(cache, kv, [*SYSTEM, 1, 2, 4], "b/1")[1] == 100
    assert read_in(cache, kv, [*SYSTEM, 1, 2, 5], "a/2")[1] == 102
    assert cache.unpin()
    cache.drop(opening)
    assert read_in(cache, kv, [*SYSTEM, 1, 2, 6], "c/1")[1] == 100
    assert cache.figures.cells_used == 100 + 3 + 3 + 1 + 3


def test_a_prefix_that_many_hold_is_public_only_as_far_as_it_was_kept() -> None:
    cache, kv = cache_of(sequences=4)
    opening, _ = read_in(cache, kv, SYSTEM)
    cache.pin(opening)
    read_in(cache, kv, [*SYSTEM[:50], 1, 2, 3], "a/1")
    cache.unpin()
    cache.drop(opening)
    read_in(cache, kv, [*SYSTEM[:50], *SYSTEM[50:], 4], "a/1")
    assert read_in(cache, kv, [*SYSTEM, 5], "b/1")[1] == 50


def test_a_changed_prompt_rolls_back_to_the_common_part() -> None:
    cache, kv = cache_of()
    read_in(cache, kv, [*SYSTEM, 1, 2, 3, 4], "a")
    _, had = read_in(cache, kv, [*SYSTEM, 1, 9], "a")
    assert had == 101
    assert cache.figures.cells_used == 102


def test_the_last_token_is_always_left_to_decode() -> None:
    cache, kv = cache_of()
    read_in(cache, kv, SYSTEM, "a")
    slot = cache.claim(as_tokens(SYSTEM), "a")
    assert slot is not None
    assert len(slot.tokens) == 99


def test_the_least_recently_used_conversation_leaves_when_cells_run_out() -> None:
    cache, kv = cache_of(cells=25, sequences=8)
    for number in range(3):
        read_in(cache, kv, [number] * 10, str(number))
    assert cache.figures.evictions == 1
    assert [read_in(cache, kv, [number] * 10, str(number))[1] for number in (2, 0)] == [9, 0]


def test_the_least_recently_used_conversation_leaves_when_sequences_run_out() -> None:
    cache, kv = cache_of(sequences=2)
    for number in range(3):
        read_in(cache, kv, [number + 1] * 10, str(number))
    assert cache.figures.sequences_used == 2
    assert read_in(cache, kv, [2] * 10, "1")[1] == 9


def test_a_pinned_prefix_never_leaves_and_is_never_changed() -> None:
    cache, kv = cache_of(cells=130, sequences=4)
    pinned, _ = read_in(cache, kv, SYSTEM)
    cache.pin(pinned)
    for number in range(10):
        slot, had = read_in(cache, kv, [*SYSTEM, *[number + 500] * 10], str(number))
        assert slot is not pinned
        assert had == 100
    assert list(pinned.tokens) == SYSTEM


def test_what_is_worked_on_is_never_thrown_out() -> None:
    cache, _ = cache_of(cells=20, sequences=2)
    slot = cache.claim(as_tokens([1] * 10), "a")
    assert slot is not None
    cache.extend(slot, [1] * 10)
    assert not cache.make_room(11)
    assert len(slot.tokens) == 10


def test_nobody_is_thrown_out_where_that_would_not_be_enough() -> None:
    cache, kv = cache_of(cells=100, sequences=8)
    for number in range(4):
        read_in(cache, kv, [number] * 10, f"{number}/1")
    busy = cache.claim(as_tokens([7] * 50), "busy/1")
    assert busy is not None
    cache.extend(busy, [7] * 50)
    assert not cache.can_make_room(51)
    assert not cache.make_room(51)
    assert cache.figures.evictions == 0
    assert cache.make_room(50)
    assert cache.figures.evictions == 4


def test_whose_leaving_frees_nothing_stays() -> None:
    cache, kv = cache_of(cells=60, sequences=8)
    read_in(cache, kv, [*range(20), 1], "a/1")
    read_in(cache, kv, [*range(20), 2], "a/2")
    busy = cache.claim(as_tokens([*range(20), 3]), "a/3")
    assert busy is not None
    cache.extend(busy, [3])
    shares, _ = read_in(cache, kv, list(range(20)), "a/4")
    assert len(shares.tokens) == 20
    read_in(cache, kv, [9] * 10, "b/1")
    cache.cut(shares, 19)  # all that it holds, others hold too
    shares.used_at = 0
    assert cache.make_room(60 - 21)
    assert len(shares.tokens) == 19
    assert cache.figures.evictions == 3


def test_those_who_share_only_with_each_other_leave_together() -> None:
    cache, kv = cache_of(cells=40, sequences=8)
    read_in(cache, kv, list(range(20)), "a/1")
    other = cache.claim(as_tokens([*range(19), 5]), "a/2")
    assert other is not None
    cache.release(other)
    read_in(cache, kv, list(range(20)), "a/1")
    assert cache.make_room(40)
    assert cache.figures.cells_used == 0


def test_whose_content_would_be_lost_leaves_last() -> None:
    kv = FakeKv()
    cache = PrefixCache(kv, cells=40, sequences=8, is_lost=lambda slot: slot.session == "a/1")
    first, _ = read_in(cache, kv, [1] * 20, "a/1")
    second, _ = read_in(cache, kv, [2] * 20, "b/1")
    assert cache.make_room(20)
    assert (len(first.tokens), len(second.tokens)) == (20, 0)
    assert cache.make_room(40)
    assert len(first.tokens) == 0


def test_no_slot_while_all_are_busy() -> None:
    cache, _ = cache_of(sequences=1)
    assert cache.claim(as_tokens([1, 2]), "a") is not None
    assert cache.claim(as_tokens([3, 4]), "b") is None


def test_forgetting_a_conversation_frees_its_cells() -> None:
    cache, kv = cache_of()
    read_in(cache, kv, [*SYSTEM, 1], "a")
    read_in(cache, kv, [*SYSTEM, 2], "b")
    assert cache.forget("a") == 1
    assert cache.figures.cells_used == 101


def test_a_recurrent_model_reads_again_what_it_cannot_cut() -> None:
    cache, kv = cache_of(kv=FakeKv(is_recurrent=True))
    read_in(cache, kv, [*SYSTEM, 1, 2], "a")
    assert read_in(cache, kv, [*SYSTEM, 9], "a")[1] == 0


@pytest.mark.parametrize(("a", "b", "limit", "common"), [([], [1], 5, 0), ([1], [1], 0, 0), ([1, 2], [1, 3], 9, 1)])
def test_common_prefix(a: list[int], b: list[int], limit: int, common: int) -> None:
    assert common_prefix(as_tokens(a), as_tokens(b), limit) == common


class CacheMachine(RuleBasedStateMachine):
    """Claims, extensions, releases and evictions in any order keep the books right."""

    @initialize(cells=st.integers(12, 60), sequences=st.integers(1, 5))
    def begin(self, cells: int, sequences: int) -> None:
        self.cells = cells
        self.cache, self.kv = cache_of(cells, sequences)
        self.working: list[tuple[Slot, array[int]]] = []

    @rule(
        prompt=st.lists(st.integers(0, 2), min_size=1, max_size=12),
        session=st.sampled_from([None, "a/1", "a/2", "b/1"]),
    )
    def claim(self, prompt: list[int], session: str | None) -> None:
        tokens = as_tokens(prompt)
        slot = self.cache.claim(tokens, session)
        if slot is None:
            return
        assert slot.busy
        assert slot.tokens == tokens[: len(slot.tokens)]
        assert len(slot.tokens) < len(tokens)
        self.working.append((slot, tokens))

    @rule(data=st.data(), amount=st.integers(1, 4))
    def work(self, data: st.DataObject, amount: int) -> None:
        if not self.working:
            return
        slot, tokens = data.draw(st.sampled_from(self.working))
        chunk = tokens[len(slot.tokens) : len(slot.tokens) + amount]
        if self.cache.make_room(len(chunk)):
            self.cache.extend(slot, chunk)
            self.kv.lengths[slot.id] = len(slot.tokens)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.working:
            self.working.remove(pair := data.draw(st.sampled_from(self.working)))
            self.cache.release(pair[0])

    @rule(data=st.data())
    def pin_or_unpin(self, data: st.DataObject) -> None:
        if not self.cache.unpin() and (idle := self.cache.idle()):
            self.cache.pin(data.draw(st.sampled_from(idle)))

    @rule(data=st.data(), more=st.integers(0, 9))
    def restore(self, data: st.DataObject, more: int) -> None:
        """As `Warmth` does: what a slot holds is read from disk, and what was shared is shared again."""
        if not self.working:
            return
        slot, tokens = data.draw(st.sampled_from(self.working))
        saved = tokens[: len(slot.tokens) + more]
        held = {id(other): other.tokens[:] for other in self.cache.slots}
        possible = self.cache.can_make_room(len(saved), emptying=slot)
        assert self.cache.make_room(len(saved), emptying=slot) == possible
        if not possible:
            assert held == {id(other): other.tokens for other in self.cache.slots}
            return
        twin, shared = self.cache.twin(slot)
        before = self.cache.figures.cells_used + len(saved) - len(slot.tokens)
        self.cache.cut(slot, 0)
        self.cache.extend(slot, saved)
        self.kv.lengths[slot.id] = len(saved)
        assert self.cache.figures.cells_used <= self.cells
        if twin is not None:
            self.cache.graft(twin, slot, shared)
        assert self.cache.figures.cells_used == before

    @invariant()
    def books_are_right(self) -> None:
        figures = self.cache.figures
        slots = self.cache.slots
        assert figures.cells_used == len({cell for slot in slots for cell in slot.cells}) <= self.cells
        assert all(len(slot.tokens) == len(slot.cells) == self.kv.lengths.get(slot.id, 0) for slot in slots)
        assert {slot.id for slot, _ in self.working} == {slot.id for slot in slots if slot.busy}


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
