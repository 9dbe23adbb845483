"""The native KV cache of one context, as the prefix cache uses it."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp

from naila.inference.model import Model


class NativeKv:
    """Sequence operations of llama.cpp's memory. Belongs to the engine's thread."""

    def __init__(self, model: Model) -> None:
        self._context = model.context
        self._memory = llama_cpp.llama_get_memory(model.context)
        self._is_recurrent = model.is_recurrent

    def share(self, source: int, target: int, length: int) -> bool:
        """Let `target`, empty until now, begin with the first `length` positions of `source`, without copying.

        False for a recurrent model, whose state stands for all tokens before it.
        """
        if self._is_recurrent:
            return False
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, length)
        return True

    def graft(self, source: int, target: int, length: int) -> bool:
        """Put the first `length` positions of `source` in the place of those of `target`, without copying.

        For when both were read from the same tokens, once each: what `target` had of its own becomes free. False, and
        nothing changed, for a recurrent model.
        """
        if self._is_recurrent or not llama_cpp.llama_memory_seq_rm(self._memory, target, 0, length):
            return False
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, length)
        return True

    def trim(self, sequence: int, keep: int) -> bool:
        """Drop all but the first `keep` positions; False where only all can be dropped, and then it has been."""
        if llama_cpp.llama_memory_seq_rm(self._memory, sequence, keep, -1):
            return True
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False

    def state_size(self, sequence: int) -> int:
        """Return how many bytes `state` would give."""
        return int(llama_cpp.llama_state_seq_get_size(self._context, sequence))

    def state(self, sequence: int) -> memoryview | None:
        """Return what a sequence holds, to be kept; None where llama.cpp cannot give it."""
        state = memoryview(bytearray(self.state_size(sequence)))
        copied = llama_cpp.llama_state_seq_get_data(self._context, _bytes_of(state), len(state), sequence)
        return state if copied == len(state) else None

    def restore(self, sequence: int, state: memoryview) -> bool:
        """Fill an empty sequence with what `state` gave; False, and it is empty, where that is refused."""
        if llama_cpp.llama_state_seq_set_data(self._context, _bytes_of(state), len(state), sequence):
            return True
        self.trim(sequence, 0)
        return False


def _bytes_of(state: memoryview) -> Any:
    """Return a native pointer to what a writable view shows; it lives as long as the pointer."""
    return (ctypes.c_uint8 * len(state)).from_buffer(state)
