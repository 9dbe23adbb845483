"""How the KV cache is best laid out: one pool or a stream for each conversation, f16 or q8_0, flash attention or not.

    python benchmarks/kv_modes.py [--model FILE] [--threads N] [--rounds N]

Eight conversations of some length are held; tokens a second are measured while all eight write, and while one writes
and seven are held. The modes take turns, round by round, so that a machine whose speed drifts favours none.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp

import naila.inference.backend  # noqa: F401 - its log callback keeps llama.cpp quiet
from naila.inference.batch import Batch

CONVERSATIONS = 8
STEPS = 24
STEP_TOKENS = 63
MODES = {
    "one pool, f16": {},
    "streams, f16": {"kv_unified": False},
    "one pool, f16, no flash attention": {"flash_attn_type": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED},
    "one pool, q8_0": {"type_k": llama_cpp.GGML_TYPE_Q8_0, "type_v": llama_cpp.GGML_TYPE_Q8_0},
    "streams, q8_0": {
        "kv_unified": False,
        "type_k": llama_cpp.GGML_TYPE_Q8_0,
        "type_v": llama_cpp.GGML_TYPE_Q8_0,
    },
}


@contextmanager
def context_of(model: Any, threads: int, length: int, mode: dict[str, Any]) -> Iterator[int]:
    """Make a context with room for the conversations."""
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = CONVERSATIONS * (length + 2 * STEPS + 64)
    parameters.n_batch = parameters.n_ubatch = STEP_TOKENS
    parameters.n_seq_max = CONVERSATIONS
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.kv_unified = True
    for name, value in mode.items():
        setattr(parameters, name, value)
    context = llama_cpp.llama_init_from_model(model, parameters)
    yield context
    llama_cpp.llama_free(context)


def measure(context: int, length: int) -> tuple[float, float]:
    """Return tokens a second with all conversations writing, and with one."""
    batch = Batch(STEP_TOKENS)
    for sequence in range(CONVERSATIONS):
        for start in range(0, length, STEP_TOKENS):
            tokens = [1000 + sequence + at for at in range(start, min(start + STEP_TOKENS, length))]
            batch.clear()
            batch.add(tokens, position=start, sequence=sequence, outputs=0)
            if batch.decode(context) != 0:
                raise SystemExit("the conversations do not fit")
    speeds = []
    for writers, begin in ((CONVERSATIONS, length), (1, length + STEPS)):
        started = time.perf_counter()
        for step in range(STEPS):
            batch.clear()
            for sequence in range(writers):
                batch.add([2000 + step], position=begin + step, sequence=sequence, outputs=1)
            batch.decode(context)
        speeds.append(writers * STEPS / (time.perf_counter() - started))
    batch.close()
    return speeds[0], speeds[1]


def main() -> None:
    """Measure and print a table for each length."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    model = llama_cpp.llama_model_load_from_file(str(args.model).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"{args.model} cannot be loaded")
    for length in (100, 700):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in MODES}
        for _ in range(args.rounds):
            for name, mode in MODES.items():
                with context_of(model, args.threads, length, dict(mode)) as context:
                    found[name].append(measure(context, length))
        print(f"\n{CONVERSATIONS} conversations of {length} tokens, {args.threads} threads, tokens/s (median):\n")
        print(f"{'':<36} {'all write':>10} {'one writes':>11}")
        for name, speeds in found.items():
            everybody, one = (statistics.median(column) for column in zip(*speeds, strict=True))
            print(f"{name:<36} {everybody:>10.0f} {one:>11.0f}")


if __name__ == "__main__":
    main()
