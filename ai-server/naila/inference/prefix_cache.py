"""What the KV cache holds, and for whom: shared prefixes, warm conversations, and who leaves when space is short.

Bookkeeping over a few native operations (`KvMemory`), testable without a model. The cache is unified: all sequences
live in one pool of cells, and a cell that several sequences share is there once.
"""

from __future__ import annotations

import itertools
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol


def as_tokens(tokens: Iterable[int]) -> array[int]:
    """Return tokens in the form whose slices compare at the speed of memcmp."""
    return array("i", tokens)


class KvMemory(Protocol):
    """The native side of a KV cache."""

    def share(self, source: int, target: int, length: int) -> bool:
        """Let `target`, empty until now, begin with the first `length` positions of `source`; False where it can't."""
        ...

    def graft(self, source: int, target: int, length: int) -> bool:
        """Put the first `length` positions of `source` in the place of those of `target`; False where it can't."""
        ...

    def trim(self, sequence: int, keep: int) -> bool:
        """Drop all but the first `keep` positions; False where a model can only drop everything, and then it has."""
        ...


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of the cache.

    Attributes:
        id: the native sequence id.
        tokens: what it holds, in order.
        cells: for each token the cell that holds it; two slots that share a cell name the same one.
        session: whose conversation it is; None for a nameless one.
        busy: a request works in it now.
        pinned: never evicted.
        used_at: when it was last used, in uses of the cache.
        idle_since: the same on the monotonic clock, in seconds.
        kept: how many of its tokens were saved on disk.
        public: how many of its first tokens are no device's own: they were read in as a prefix for all.
    """

    id: int
    tokens: array[int] = field(default_factory=lambda: array("i"))
    cells: list[int] = field(default_factory=list)
    session: str | None = None
    busy: bool = False
    pinned: bool = False
    used_at: int = 0
    idle_since: float = 0.0
    kept: int = 0
    public: int = 0


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """How full the cache is.

    Attributes:
        cells_used: tokens held, shared ones once.
        cells: room for tokens.
        sequences_used: sequences that hold something.
        evictions: sequences that left for want of space, since the start.
    """

    cells_used: int
    cells: int
    sequences_used: int
    evictions: int


class PrefixCache:
    """Hands out sequences that already hold as much of a prompt as the cache knows.

    Of what it holds for a device, the longest common beginning counts. A request goes on in the sequence of its own
    conversation; from the device's other ones, and from what is pinned, the beginning is shared. Of what another device
    said nothing is shared: how soon an answer comes would tell what it was. What was used least recently leaves when
    cells or sequences run out.
    """

    def __init__(
        self,
        memory: KvMemory,
        *,
        cells: int,
        sequences: int,
        on_evict: Callable[[Slot], None] = lambda _: None,
        is_lost: Callable[[Slot], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty cache.

        Args:
            memory: the native side.
            cells: room for tokens.
            sequences: how many sequences there are.
            on_evict: told of a slot that leaves for want of space, while it still holds everything.
            is_lost: tells whether what a slot holds would be lost if it left now; others leave before it.
            clock: seconds that never jump.
        """
        self._memory = memory
        self._on_evict = on_evict
        self._is_lost = is_lost
        self._clock = clock
        self._cells = cells
        self.slots: Final = [Slot(id=number) for number in range(sequences)]
        self._holders: Counter[int] = Counter()
        self._next_cell = 0
        self._uses = 0
        self._evictions = 0

    @property
    def figures(self) -> CacheFigures:
        """How full the cache is, now."""
        used = sum(1 for slot in self.slots if slot.tokens)
        return CacheFigures(len(self._holders), self._cells, used, self._evictions)

    @property
    def free_cells(self) -> int:
        """Cells that nobody holds."""
        return self._cells - len(self._holders)

    def claim(self, prompt: array[int], session: str | None, *, spare: int = 1) -> Slot | None:
        """Return a busy slot that holds the longest known beginning of `prompt` and nothing else.

        None while every sequence is busy.

        Args:
            prompt: tokens.
            session: whose conversation it is.
            spare: how many of its last tokens are left to decode at least: one where its logits are wanted.
        """
        source, common = self._longest(prompt, session, len(prompt) - spare)
        if source is not None and self._may_go_on_in(source, common, session):
            slot = source
            self._trim(slot, common)
        else:
            target = self._empty_slot(sparing=source)
            if target is None:
                return None
            slot = target
            if source is not None and source.tokens:
                self.share(source, slot, common)
                self.touch(source)
        slot.busy = True
        slot.session = session
        self.touch(slot)
        return slot

    def extend(self, slot: Slot, tokens: Sequence[int]) -> None:
        """Note that the tokens were decoded into the slot."""
        for token in tokens:
            slot.tokens.append(token)
            slot.cells.append(self._next_cell)
            self._holders[self._next_cell] = 1
            self._next_cell += 1

    def can_make_room(self, cells: int, *, emptying: Slot | None = None) -> bool:
        """Tell whether so many cells are free or can be made free by evicting.

        Args:
            cells: how many are wanted.
            emptying: a slot that is about to be emptied: what it alone holds counts as free.
        """
        return self._free(emptying) >= cells or self._cells - len(self._staying(emptying)) >= cells

    def make_room(self, cells: int, *, emptying: Slot | None = None) -> bool:
        """Evict until so many cells are free, as few as need be; False, and nobody left, where that cannot be."""
        if not self.can_make_room(cells, emptying=emptying):
            return False
        staying = self._staying(emptying) if self._free(emptying) < cells else set()
        while self._free(emptying) < cells:
            # Who shares all that it holds frees nothing by leaving, unless those that it shares it with leave too.
            idle = [slot for slot in self._evictable() if slot.cells[-1] not in staying]
            alone = [slot for slot in idle if self._holders[slot.cells[-1]] == 1]
            self._evict(self._first_to_leave(alone or idle))
        return True

    def twin(self, slot: Slot) -> tuple[Slot | None, int]:
        """Return another slot that shares cells with this one, as many as possible, and how many."""
        best, most = None, 0
        for other in self.slots:
            both = zip(slot.cells, other.cells, strict=False) if other is not slot else ()
            shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], both))
            if shared > most:
                best, most = other, shared
        return best, most

    def share(self, source: Slot, target: Slot, length: int) -> bool:
        """Let `target`, empty until now, begin with the first tokens of `source`; False where a model can't."""
        if not self._memory.share(source.id, target.id, length):
            return False
        target.tokens = source.tokens[:length]
        target.cells = source.cells[:length]
        target.public = min(source.public, length)
        self._holders.update(target.cells)
        return True

    def graft(self, source: Slot, target: Slot, length: int) -> None:
        """Let two slots that begin with the same tokens, each in cells of its own, share those of `source`."""
        if self._memory.graft(source.id, target.id, length):
            self._let_go(target.cells[:length])
            target.cells[:length] = source.cells[:length]
            self._holders.update(target.cells[:length])

    def release(self, slot: Slot) -> None:
        """End the work in a slot; what it holds stays."""
        slot.busy = False
        self.touch(slot)

    def cut(self, slot: Slot, keep: int) -> None:
        """Keep only the first tokens of a slot."""
        self._trim(slot, keep)

    def pin(self, slot: Slot) -> None:
        """Keep a slot from being evicted, and let everybody begin with what it holds.

        No more than a quarter of the sequences are kept, so that work has room.
        """
        slot.public = len(slot.tokens)
        slot.pinned = sum(other.pinned for other in self.slots) < len(self.slots) // 4

    def unpin(self) -> bool:
        """Let what is pinned be evicted: work has no room otherwise; tell whether anything was."""
        pinned = [slot for slot in self.slots if slot.pinned]
        for slot in pinned:
            slot.pinned = False
        return bool(pinned)

    def touch(self, slot: Slot) -> None:
        """Note that a slot is used now."""
        self._uses += 1
        slot.used_at = self._uses
        slot.idle_since = self._clock()

    def rollback(self, slot: Slot) -> None:
        """Bring the native memory back to what the slot is known to hold, whatever a decode left behind."""
        self._trim(slot, len(slot.tokens), always=True)

    def drop(self, slot: Slot) -> None:
        """Forget what a slot holds."""
        self._trim(slot, 0, always=True)

    def forget(self, session: str) -> int:
        """Drop what idle slots hold of a conversation, or of a device (`device/`); return how many there were."""
        mine = [slot for slot in self.slots if belongs(slot.session, session) and not slot.busy]
        for slot in mine:
            self._trim(slot, 0)
        return len(mine)

    def idle(self) -> list[Slot]:
        """Return the slots that hold something and are not worked in, the least recently used first."""
        return sorted((s for s in self.slots if s.tokens and not s.busy), key=lambda slot: slot.used_at)

    def unused(self, seconds: float) -> list[Slot]:
        """Return the slots that hold something and that nobody has used for so long, the least recently used first."""
        until = self._clock() - seconds
        return [slot for slot in self.idle() if slot.idle_since <= until]

    def _longest(self, prompt: array[int], session: str | None, most: int) -> tuple[Slot | None, int]:
        best, best_rank = None, (0, False, False, 0)
        for slot in self.slots:
            is_same_owner = _owner(slot.session) == _owner(session)
            limit = most if is_same_owner else min(most, slot.public)
            common = common_prefix(slot.tokens, prompt, limit)
            rank = (common, not slot.busy, session is not None and slot.session == session, slot.used_at)
            if common and rank > best_rank:
                best, best_rank = slot, rank
        return best, best_rank[0]

    def _may_go_on_in(self, slot: Slot, common: int, session: str | None) -> bool:
        if slot.busy or slot.pinned:
            return False
        is_own = session is not None and slot.session == session
        return is_own or (slot.session is None and common == len(slot.tokens))

    def _empty_slot(self, *, sparing: Slot | None) -> Slot | None:
        """Return a slot that holds nothing, evicting somebody if need be, `sparing` only if there is nobody else."""
        slot = next((s for s in self.slots if not s.tokens and not s.busy), None)
        if slot is None and (idle := self._evictable()):
            slot = self._first_to_leave([s for s in idle if s is not sparing] or idle)
            self._evict(slot)
        return slot

    def _evictable(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.tokens and not slot.busy and not slot.pinned]

    def _first_to_leave(self, slots: list[Slot]) -> Slot:
        """Return the least recently used, of those whose content would not be lost if there are any."""
        by_age = sorted(slots, key=lambda slot: slot.used_at)
        return next((slot for slot in by_age if not self._is_lost(slot)), by_age[0])

    def _free(self, emptying: Slot | None) -> int:
        mine = emptying.cells if emptying is not None else ()
        return self.free_cells + sum(1 for cell in mine if self._holders[cell] == 1)

    def _staying(self, emptying: Slot | None) -> set[int]:
        """Return the cells that no eviction frees."""
        stay = [slot.cells for slot in self.slots if (slot.busy or slot.pinned) and slot is not emptying]
        return set().union(*stay)

    def _evict(self, slot: Slot) -> None:
        self._evictions += 1
        self._on_evict(slot)
        self._trim(slot, 0)

    def _trim(self, slot: Slot, keep: int, *, always: bool = False) -> None:
        if keep == len(slot.tokens) and not always:
            return
        if not self._memory.trim(slot.id, keep):
            keep = 0
        self._let_go(slot.cells[keep:])
        del slot.tokens[keep:]
        del slot.cells[keep:]
        slot.kept = min(slot.kept, keep)
        slot.public = min(slot.public, keep)

    def _let_go(self, cells: Iterable[int]) -> None:
        for cell in cells:
            self._holders[cell] -= 1
            if not self._holders[cell]:
                del self._holders[cell]


def belongs(session: str | None, name: str) -> bool:
    """Tell whether a conversation is the one named, or one of the device named (`device/`)."""
    return session is not None and (session == name or (name.endswith("/") and session.startswith(name)))


def _owner(session: str | None) -> str | None:
    """Return the device whose conversation it is."""
    return None if session is None else session.partition("/")[0]


def common_prefix(a: array[int], b: array[int], limit: int) -> int:
    """Return how many tokens, at most `limit`, two sequences begin with in common."""
    high = min(len(a), len(b), limit)
    if a[:high] == b[:high]:
        return max(high, 0)
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
