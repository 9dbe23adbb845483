"""How a model is to be run on this machine, each decision with its reason.

From the hardware (`naila.utils.hardware_detection`), the model's own header and what a person set: threads, GPU layers,
context, room for conversations, step size and mmap, so that the model fits with room left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from naila.errors import ModelTooLargeError
from naila.ports import EnginePlan, ModelHeader
from naila.utils.hardware_detection import Hardware

MIB: Final = 2**20
GB: Final = 10**9

CONTEXT_STEP: Final = 256
CONTEXT_FLOOR: Final = 512
CONVERSATIONS: Final = 8  # whole contexts that the KV cache has room for, where memory allows
SEQUENCES: Final = 48  # conversations that the KV cache can tell apart; llama.cpp wants no more than tokens in a step
# llama.cpp's processor kernels compute a row alike in any batch of fewer than 64 tokens and otherwise above: so small
# a step makes answers independent of who else is being answered. Measured: bit for bit, and no slower for short texts.
CPU_STEP: Final = 63
STEP_FLOOR: Final = 16
UBATCH: Final = 512  # llama.cpp computes at most this many tokens at once, whatever the batch
GPU_RESERVE: Final = 256 * MIB  # what the driver and its libraries take on a GPU beside the model
MAIN_RESERVE: Final = 256 * MIB  # least main memory that stays free, for the daemon and the rest of the machine
SMALLER_MODELS: Final = (("llama-3.2-3b", 2.9 * GB), ("tinyllama-1.1b", 0.95 * GB), ("smollm2-135m", 0.4 * GB))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOverrides:
    """What a person set; None is worked out.

    Attributes:
        n_threads: LLM_THREADS.
        n_gpu_layers: LLM_GPU_LAYERS, -1 for all.
        n_ctx: LLM_CONTEXT_SIZE, the most that is wanted.
        n_cells: LLM_KV_CELLS.
        n_batch: LLM_BATCH_SIZE, the most that is wanted.
        max_tokens: LLM_MAX_TOKENS; the context stays larger.
        gpu_memory_share: LLM_GPU_MEMORY_SHARE.
        kv_type: LLM_KV_TYPE.
        flash_attention: LLM_FLASH_ATTENTION.
        repack: LLM_REPACK.
    """

    n_threads: int | None = None
    n_gpu_layers: int | None = None
    n_ctx: int = 4096
    n_cells: int | None = None
    n_batch: int = 512
    max_tokens: int = 512
    gpu_memory_share: float = 0.9
    kv_type: Literal["f16", "q8_0"] = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    repack: Literal["auto", "on", "off"] = "auto"


def plan_engine(header: ModelHeader, hardware: Hardware, overrides: EngineOverrides | None = None) -> EnginePlan:
    """Decide how to run a model so that it fits with room left.

    Args:
        header: the model.
        hardware: the machine.
        overrides: what a person set.

    Raises:
        ModelTooLargeError: it does not fit even with the smallest useful context, or not with the GPU layers set.
    """
    fitting = _Fitting(header, hardware, overrides or EngineOverrides())
    n_ctx = fitting.context()
    layers = fitting.layers(n_ctx)
    (threads, threads_reason), (batch_threads, batch_threads_reason) = _threads(hardware, fitting.overrides)
    use_mmap, mmap_reason = _mmap(hardware, layers)
    repack, repack_reason = _repack(header, hardware, layers, fitting.overrides.repack)
    n_batch, batch_reason = _batch(fitting.overrides, n_ctx, layers)
    n_cells, cells_reason = fitting.cells(n_ctx, layers)
    return EnginePlan(
        n_threads=threads,
        n_threads_batch=batch_threads,
        n_gpu_layers=layers,
        n_ctx=n_ctx,
        n_cells=n_cells,
        n_sequences=min(SEQUENCES, n_batch),
        n_batch=n_batch,
        kv_type=fitting.overrides.kv_type,
        flash_attention=fitting.overrides.flash_attention,
        use_mmap=use_mmap,
        repack=repack,
        acceleration=hardware.gpus[0].backend if layers else "cpu",
        needed_bytes=fitting.main(n_ctx, layers, n_cells),
        available_bytes=hardware.memory_available,
        reasons={
            "threads": threads_reason,
            "batch_threads": batch_threads_reason,
            "gpu_layers": fitting.layers_reason(n_ctx, layers),
            "context": fitting.context_reason(n_ctx),
            "cells": cells_reason,
            "batch": batch_reason,
            "mmap": mmap_reason,
            "repack": repack_reason,
            "memory": fitting.memory_reason(n_ctx, layers, n_cells),
        },
    )


@dataclass(frozen=True, slots=True)
class _Fitting:
    """One model in one machine's memory.

    Sizes are estimates, rather too large than too small, and within a few percent of llama.cpp's own log: weights are
    the file, spread evenly over the blocks and the output; the compute buffer is
    ruled by the logits of one step or, without flash attention, by its attention scores.
    """

    header: ModelHeader
    hardware: Hardware
    overrides: EngineOverrides

    def kv(self, n_ctx: int) -> int:
        header = self.header
        values = n_ctx * header.n_layers * header.n_kv_heads * (header.head_dim_k + header.head_dim_v)
        # q8_0 stores 32 values of a byte and their scale of two.
        return values * 2 if self.overrides.kv_type == "f16" else values * 34 // 32

    def compute(self, n_ctx: int, layers: int) -> int:
        tokens = min(self.overrides.n_batch, UBATCH if layers else CPU_STEP, n_ctx)
        widest = max(self.header.n_vocab, n_ctx * self.header.n_heads)
        outputs = min(SEQUENCES, tokens) * self.header.n_vocab * 4
        return tokens * (widest + 10 * self.header.n_embd) * 4 + outputs

    def gpu(self, n_ctx: int, layers: int, n_cells: int | None = None) -> int:
        """Return what so many layers take on the GPU."""
        if not layers:
            return 0
        kv = self.kv(n_cells or n_ctx) * min(layers, self.header.n_layers) // max(1, self.header.n_layers)
        return self.header.file_bytes * layers // self.all_layers + kv + self.compute(n_ctx, layers)

    def main(self, n_ctx: int, layers: int, n_cells: int | None = None) -> int:
        """Return what it takes of main memory with so many layers on the GPU."""
        whole = self.header.file_bytes + self.kv(n_cells or n_ctx) + self.compute(n_ctx, layers)
        if not layers or self.hardware.gpu_shares_main_memory:
            return whole
        # The token embedding stays in main memory, here at a byte a weight; so does a compute buffer.
        embedding = min(self.header.file_bytes // 3, self.header.n_vocab * self.header.n_embd)
        return whole - self.gpu(n_ctx, layers, n_cells) + embedding + self.compute(n_ctx, layers)

    @property
    def all_layers(self) -> int:
        """The blocks and the output, which llama.cpp counts as one more."""
        return self.header.n_layers + 1

    @property
    def reserve(self) -> int:
        """Main memory that is left alone."""
        return max(MAIN_RESERVE, self.hardware.memory_available // 10)

    @property
    def gpu_free(self) -> int:
        return sum(max(0, gpu.free_bytes - GPU_RESERVE) for gpu in self.hardware.gpus)

    @property
    def gpu_room(self) -> int:
        """GPU memory that the model may take: the share is of the whole, whoever has already taken the rest."""
        share, gpus = self.overrides.gpu_memory_share, self.hardware.gpus
        return sum(min(max(0, gpu.free_bytes - GPU_RESERVE), int(gpu.total_bytes * share)) for gpu in gpus)

    @property
    def wanted_context(self) -> int:
        trained, asked = self.header.n_ctx_train, self.overrides.n_ctx
        return min(trained, asked) if trained > 0 else asked

    def layers(self, n_ctx: int) -> int:
        """Return how many layers go on the GPU: as set, else as many as fit."""
        wish = self.overrides.n_gpu_layers
        if not self.hardware.gpus:
            return 0
        if wish is not None:
            return self.all_layers if wish < 0 else min(wish, self.all_layers)
        return next((n for n in range(self.all_layers, 0, -1) if self.gpu(n_ctx, n) <= self.gpu_room), 0)

    def context(self) -> int:
        """Return the largest context up to the wanted one that fits in memory."""
        wanted, least = self.wanted_context, self.overrides.max_tokens + CONTEXT_STEP
        floor = min(wanted, max(CONTEXT_FLOOR, -(-least // CONTEXT_STEP) * CONTEXT_STEP))
        steps: list[int] = [wanted, *range((wanted - 1) // CONTEXT_STEP * CONTEXT_STEP, floor, -CONTEXT_STEP), floor]
        for n_ctx in steps:
            if self._fits(n_ctx, self.layers(n_ctx)):
                return n_ctx
        raise self._too_large(floor, self.layers(floor))

    def cells(self, n_ctx: int, layers: int) -> tuple[int, str]:
        """Return how many tokens the KV cache holds, and why: conversations that stay in it need not be read again."""
        wish = self.overrides.n_cells
        if wish is not None:
            if not self._fits(n_ctx, layers, max(wish, n_ctx)):
                raise self._too_large(n_ctx, layers, max(wish, n_ctx))
            return max(wish, n_ctx), "set by LLM_KV_CELLS" + "; never less than one context" * (wish < n_ctx)
        spare = self.hardware.memory_available // 4
        for contexts in range(CONVERSATIONS, 1, -1):
            n_cells = contexts * n_ctx
            room = self.gpu(n_ctx, layers, n_cells) <= self.gpu_room if layers else self.kv(n_cells) <= spare
            if room and self._fits(n_ctx, layers, n_cells):
                return n_cells, f"{contexts} whole contexts, in all conversations together"
        return n_ctx, "one context for all conversations together: there is no memory for more"

    def _fits(self, n_ctx: int, layers: int, n_cells: int | None = None) -> bool:
        on_gpu = self.gpu(n_ctx, layers, n_cells) <= self.gpu_free
        return on_gpu and self.main(n_ctx, layers, n_cells) <= self.hardware.memory_available - self.reserve

    def _too_large(self, n_ctx: int, layers: int, n_cells: int | None = None) -> ModelTooLargeError:
        name, available = self.header.name, self.hardware.memory_available
        on_gpu = self.gpu(n_ctx, layers, n_cells)
        if on_gpu > self.gpu_free:
            return ModelTooLargeError(
                f"{name}: {layers} layers need {_gb(on_gpu)} of GPU memory even with a context of {n_ctx} tokens, and "
                f"{_gb(self.gpu_free)} are free: set LLM_GPU_LAYERS lower or to auto",
                needed=on_gpu,
                available=self.gpu_free,
                path=self.header.path,
            )
        needed = self.main(n_ctx, layers, n_cells) + self.reserve
        smaller = [model for model, size in SMALLER_MODELS if size + self.reserve <= min(available, needed - 1)]
        names = f" ({', '.join(smaller)})" if smaller else ""
        limit = ", raise the control group's memory limit" * (self.hardware.memory_limit is not None)
        return ModelTooLargeError(
            f"{name} needs {_gb(needed)} of memory even with a context of {n_ctx} tokens ({_gb(self.reserve)} of it to "
            f"stay free), and there are {_gb(available)}: take a smaller model"
            f"{names}{limit} or free some memory",
            needed=needed,
            available=available,
            path=self.header.path,
        )

    def layers_reason(self, n_ctx: int, layers: int) -> str:
        wish, taken, room = self.overrides.n_gpu_layers, self.gpu(n_ctx, layers), self.gpu_room
        if not self.hardware.gpus:
            return f"LLM_GPU_LAYERS={wish} has no effect: " * bool(wish) + "this llama.cpp sees no GPU"
        if wish is not None:
            over = f"; its {_gb(taken)} are more than LLM_GPU_MEMORY_SHARE leaves ({_gb(room)})" * (taken > room)
            return f"set by LLM_GPU_LAYERS{over}"
        gpus = " and ".join(gpu.description for gpu in self.hardware.gpus)
        memory = f"{_gb(room)} of {gpus} (LLM_GPU_MEMORY_SHARE={self.overrides.gpu_memory_share:g} and what is free)"
        if layers == self.all_layers:
            return f"all: {_gb(taken)} fit in {memory}"
        return f"{layers} of {self.all_layers} fit in {memory}" if layers else f"not one layer fits in {memory}"

    def context_reason(self, n_ctx: int) -> str:
        asked, wanted = self.overrides.n_ctx, self.wanted_context
        reason = "LLM_CONTEXT_SIZE"
        if wanted < asked:
            reason += f"={asked} is more than the {wanted} that the model was trained with"
        if n_ctx < wanted:
            reason += f"; less than {wanted}, so that its KV cache fits in memory"
        if n_ctx <= self.overrides.max_tokens:
            reason += f"; LLM_MAX_TOKENS={self.overrides.max_tokens} cannot be reached: set it lower"
        return reason

    def memory_reason(self, n_ctx: int, layers: int, n_cells: int) -> str:
        needed, available = self.main(n_ctx, layers, n_cells), self.hardware.memory_available
        where = " within the control group's limit" * (self.hardware.memory_limit is not None)
        on_gpu = layers and not self.hardware.gpu_shares_main_memory
        return (
            f"{_gb(needed)} of the {_gb(available)} free{where}"
            + f", and {_gb(self.gpu(n_ctx, layers, n_cells))} on the GPU" * bool(on_gpu)
            + f"; in all {_gb(self.header.file_bytes)} weights, {_gb(self.kv(n_cells))} KV cache and "
            f"{_gb(self.compute(n_ctx, layers))} for computing"
        )


def _threads(hardware: Hardware, overrides: EngineOverrides) -> tuple[tuple[int, str], tuple[int, str]]:
    """Choose the threads that decode and those that read prompts in.

    They meet at a barrier several times a token and spin there: one that is not scheduled holds up all others.
    Measured with two threads on two cores: 190 tokens/s alone, 16 beside one busy process, where one thread makes 70
    to 140. So a core is left for everything else where that costs little: decoding is bound by memory, and three
    cores of four fill its bus. Reading in is bound by arithmetic, where every core counts and a sibling does not.
    """
    if overrides.n_threads is not None:
        many = overrides.n_threads > hardware.logical_cpus
        reason = "set by LLM_THREADS" + f"; slow, for there are {hardware.logical_cpus} CPUs" * many
        return (overrides.n_threads, reason), (overrides.n_threads, reason)
    cores, words = hardware.usable_cores, _cores_in_words(hardware)
    reading = (cores, f"{words}: reading in is bound by arithmetic")
    return ((cores - 1, f"{words}, less one for everything else that runs") if cores >= 4 else (cores, words)), reading


def _cores_in_words(hardware: Hardware) -> str:
    words = f"{hardware.physical_cores} physical core{'s' * (hardware.physical_cores != 1)} may be used"
    if hardware.logical_cpus > hardware.physical_cores:
        words += f" (of {hardware.logical_cpus} logical CPUs; hyper-threads do not help)"
    if hardware.fast_cores < hardware.physical_cores:
        words += f", {hardware.fast_cores} of them fast"
    if hardware.cpu_quota is not None and hardware.usable_cores < hardware.fast_cores:
        words += f", the control group's quota grants {hardware.cpu_quota:g}"
    return words


def _batch(overrides: EngineOverrides, n_ctx: int, layers: int) -> tuple[int, str]:
    """Choose the tokens of one step: on a GPU many, for it has many hands; on a processor few."""
    most, why = n_ctx, "no more than the context"
    if not layers:
        most, why = CPU_STEP, f"fewer than {CPU_STEP + 1} on a processor: answers then don't depend on who else asks"
    if overrides.n_batch < STEP_FLOOR:
        return STEP_FLOOR, f"LLM_BATCH_SIZE={overrides.n_batch} is less than an engine for several robots can work with"
    return (overrides.n_batch, "LLM_BATCH_SIZE") if overrides.n_batch <= most else (most, why)


def _mmap(hardware: Hardware, layers: int) -> tuple[bool, str]:
    if not hardware.build.supports_mmap:
        return False, "off: this llama.cpp cannot map files"
    if layers and hardware.gpu_shares_main_memory and hardware.gpus[0].backend != "metal":
        return False, "off: the GPU shares main memory, where the weights would lie twice"
    return True, "on: the file's pages are used as they are, and a restart finds them in memory"


def _repack(
    header: ModelHeader, hardware: Hardware, layers: int, wish: Literal["auto", "on", "off"]
) -> tuple[bool, str]:
    """Choose whether llama.cpp lays weights out anew for its kernels of small batches, in memory of their own.

    With AVX-512 VNNI its tiled kernels read K-quants straight from the mapped file, faster than from the new layout
    (docs/decisions/0019). Elsewhere, and for Q4_0, the new layout wins.
    """
    if wish != "auto":
        return wish == "on", "set by LLM_REPACK"
    kind, features = header.weight_type, hardware.build.cpu_features
    # What AMX multiplies is laid out anew, too.
    if kind.endswith("_K") and "AVX512_VNNI" in features and "AMX_INT8" not in features and not layers:
        return False, f"off: with AVX-512 VNNI prompts in {kind} are read faster from the file as it is, and at once"
    return True, "on: llama.cpp lays weights out for this processor where it has kernels for that"


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB" if size >= GB else f"{size / 10**6:.0f} MB"
