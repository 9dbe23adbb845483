"""A native batch: tokens of many sequences for one decode call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp


class Batch:
    """Room for `capacity` tokens, filled anew for each step."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._batch: Any = llama_cpp.llama_batch_init(capacity, 0, 1)

    def __len__(self) -> int:
        return int(self._batch.n_tokens)

    def clear(self) -> None:
        """Forget the tokens of the last step."""
        self._batch.n_tokens = 0

    def add(self, tokens: Sequence[int], *, position: int, sequence: int, outputs: int) -> int:
        """Append tokens of one sequence; the last `outputs` of them get logits. Return the index of the last one."""
        batch, start = self._batch, len(self)
        for offset, token in enumerate(tokens):
            index = start + offset
            batch.token[index] = token
            batch.pos[index] = position + offset
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = int(offset >= len(tokens) - outputs)
        last = start + len(tokens) - 1
        batch.n_tokens = last + 1
        return last

    def decode(self, context: int) -> int:
        """Compute; return what `llama_decode` says: 0 done, 1 no room, 2 aborted, negative failed."""
        code: int = llama_cpp.llama_decode(context, self._batch)
        return code

    def close(self) -> None:
        """Free the native memory."""
        if self.capacity:
            llama_cpp.llama_batch_free(self._batch)
            self.capacity = 0
