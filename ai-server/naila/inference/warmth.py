"""Conversations that outlive memory: KV put on disk before it is lost, and read back when its conversation goes on."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from typing import Final

from naila.inference.kv import NativeKv
from naila.inference.kv_store import KvStore, Saved
from naila.inference.prefix_cache import PrefixCache, Slot

_WORTH_KEEPING: Final = 16  # fewer tokens are read again sooner than from a file
_SHELVED_AFTER_S: Final = 1.0
_SOON_READ_BYTES: Final = 32 * 2**20  # read back within about ten milliseconds


class Warmth:
    """A prefix cache with a store behind it. Belongs to the engine's thread.

    Attributes:
        cache: what is in memory.
        restored: how many conversations were read back, since the start.
    """

    def __init__(
        self,
        kv: NativeKv,
        store: KvStore | None,
        *,
        cells: int,
        sequences: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kv = kv
        self._store = store
        self.cache: Final = PrefixCache(
            kv, cells=cells, sequences=sequences, on_evict=self.keep, is_lost=self._is_lost, clock=clock
        )
        self.restored = 0

    @property
    def is_kept(self) -> bool:
        """Whether there is a disk behind it at all."""
        return self._store is not None

    def recall(self, slot: Slot, prompt: array[int], session: str | None, *, spare: int = 1) -> None:
        """Read KV back from disk into a claimed slot, where the disk holds more of the prompt than memory does.

        What the slot shared with another, it shares afterwards too. Where there is no room, or the file is damaged, the
        slot keeps what was claimed. `spare` tokens at the end of the prompt are left to decode.
        """
        if self._store is None:
            return
        saved, common = self._store.longest(prompt, session, spare=spare)
        if saved is None or common < len(slot.tokens) + _WORTH_KEEPING:
            return
        if not self.cache.can_make_room(len(saved.tokens), emptying=slot):
            return
        state = self._store.load(saved)
        if state is not None and self.cache.make_room(len(saved.tokens), emptying=slot):
            self._replace(slot, saved, common, state)

    def _replace(self, slot: Slot, saved: Saved, common: int, state: memoryview) -> None:
        """Put a saved state in the place of what a slot holds, which the saved one begins with."""
        twin, shared = self.cache.twin(slot)
        claimed, public, kept = slot.tokens[:], slot.public, slot.kept
        own = self._kv.state(slot.id) if len(claimed) > shared else None
        self.cache.cut(slot, 0)
        if self._kv.restore(slot.id, state):
            self.cache.extend(slot, saved.tokens)
            slot.kept = len(saved.tokens)
            slot.public = saved.public
            self.restored += 1
        elif own is not None and self._kv.restore(slot.id, own):
            self.cache.extend(slot, claimed)
            slot.kept, slot.public = kept, public
        elif twin is not None:
            self.cache.share(twin, slot, shared)
            return
        if twin is not None and slot.tokens:
            self.cache.graft(twin, slot, shared)
        self.cache.cut(slot, min(common, len(slot.tokens)))

    def keep(self, slot: Slot) -> None:
        """Put what a slot holds on disk, where it is a conversation or a pinned prefix and not there yet."""
        if self._store is not None and _is_worth_keeping(slot) and not self._is_lost(slot):
            self._save(self._store, slot)

    def _save(self, store: KvStore, slot: Slot) -> None:
        state = self._kv.state(slot.id)
        if state is not None and store.save(slot.session, slot.tokens, slot.public, state):
            slot.kept = len(slot.tokens)

    def keep_one(self) -> bool:
        """Put one idle conversation on disk that is only in memory; tell whether there was one."""
        for slot in self.cache.idle():
            before = slot.kept
            self.keep(slot)
            if slot.kept != before:
                return True
        return False

    def shelve(self) -> None:
        """Let leave memory, one at a time, what is not in use, is on disk and is soon read back.

        Whoever writes pays for every cell in use: with a small model a thousand held tokens double the time of a step.
        A large model's state is worth its place: it takes longer to read back, and held tokens cost little beside it.
        """
        store = self._store
        if store is None:
            return
        for slot in self.cache.unused(_SHELVED_AFTER_S):
            if self._kv.state_size(slot.id) > _SOON_READ_BYTES:
                continue
            _, common = store.longest(slot.tokens, slot.session, spare=0)
            if common == len(slot.tokens):
                self.cache.drop(slot)
                return
            if (slot.session is not None or slot.pinned) and slot.kept < len(slot.tokens):
                self._save(store, slot)
                return

    def forget(self, session: str) -> None:
        """Drop what is held of a conversation, or of a device (`device/`), in memory and on disk."""
        self.cache.forget(session)
        if self._store is not None:
            self._store.forget(session)

    def _is_lost(self, slot: Slot) -> bool:
        """Tell whether what a slot holds should be kept and could not be now, the writer having too much to do."""
        if self._store is None or not _is_worth_keeping(slot):
            return False
        return not self._store.has_room(self._kv.state_size(slot.id))

    def close(self) -> None:
        """Put everything on disk that is only in memory."""
        if self._store is None:
            return
        while self.keep_one():
            self._store.flush()
        self._store.close()


def _is_worth_keeping(slot: Slot) -> bool:
    return (slot.session is not None or slot.pinned) and len(slot.tokens) - slot.kept >= _WORTH_KEEPING
