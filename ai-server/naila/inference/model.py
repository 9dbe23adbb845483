"""A model in memory: weights, vocabulary, chat format and one context, freed together."""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import llama_cpp

from naila.errors import ModelLoadError
from naila.inference.backend import native_log
from naila.inference.chat_format import ChatFormat, chat_format
from naila.inference.tokens import Vocabulary
from naila.ports import EnginePlan

_log = logging.getLogger(__name__)

_FLASH_ATTENTION: Final = {
    "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}

Progress = Callable[[float], bool]
"""Told the share loaded, 0 to 1; False gives up."""


class Model:
    """Weights and a context.

    Reading the vocabulary and rendering prompts is safe from any thread; the context belongs to the engine's thread.

    Attributes:
        path: the file.
        vocabulary: tokens.
        chat_format: how conversations are written for it.
        context: the native context.
        n_ctx: tokens that fit.
        n_cells: tokens that the KV cache holds, for all conversations together.
        n_sequences: conversations that the KV cache can tell apart.
        n_batch: most tokens in one decode call.
        is_recurrent: its state cannot be cut in the middle.
    """

    def __init__(self, path: Path, plan: EnginePlan, *, on_progress: Progress | None = None) -> None:
        """Load the file as planned.

        Raises:
            ModelLoadError: llama.cpp refused it; the message holds llama.cpp's own last words.
        """
        self.path: Final = path
        self._freeing = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            native_log.take_errors()
            self._model = _load(path, plan, on_progress)
            undo.callback(llama_cpp.llama_model_free, self._model)
            self.vocabulary: Final = Vocabulary(self._model)
            self.chat_format: Final[ChatFormat] = self._chat_format()
            self.context: Final[int] = _context(self._model, path, plan)
            undo.callback(llama_cpp.llama_free, self.context)
            self._freeing = undo.pop_all()
        self.n_ctx: Final = plan.n_ctx
        self.n_cells: Final = int(llama_cpp.llama_n_ctx(self.context))
        self.n_sequences: Final = plan.n_sequences
        self.is_recurrent: Final = bool(
            llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(self._model)
        )
        self.n_batch: Final = int(llama_cpp.llama_n_batch(self.context))
        _log.info(
            "%s: %d tokens of context, room for %d in %d conversations, chat format: %s",
            path.name,
            self.n_ctx,
            self.n_cells,
            self.n_sequences,
            self.chat_format.name,
        )

    def close(self) -> None:
        """Free everything. The engine must have stopped."""
        self._freeing.close()

    def _chat_format(self) -> ChatFormat:
        template = llama_cpp.llama_model_chat_template(self._model, None)
        vocabulary = self.vocabulary
        vocab = llama_cpp.llama_model_get_vocab(self._model)
        return chat_format(
            template.decode("utf-8", errors="replace") if template else None,
            special=vocabulary.special,
            bos=vocabulary.text_of(vocabulary.bos),
            eos=vocabulary.text_of(llama_cpp.llama_vocab_eos(vocab)),
        )


def _load(path: Path, plan: EnginePlan, on_progress: Progress | None) -> Any:
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = plan.n_gpu_layers
    parameters.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP if plan.use_mmap else llama_cpp.LLAMA_LOAD_MODE_NONE
    parameters.use_extra_bufts = plan.repack
    callback = llama_cpp.llama_progress_callback(lambda share, _data: on_progress is None or on_progress(share))
    parameters.progress_callback = callback
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise ModelLoadError(
            f"llama.cpp cannot load {path}: {native_log.take_errors() or 'no reason given'}; `naila models verify` "
            f"tells whether it is whole, and a newer NAILA may know its format",
            path=path,
        )
    return model


def _context(model: Any, path: Path, plan: EnginePlan) -> Any:
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = plan.n_cells
    parameters.kv_unified = True
    parameters.n_batch = parameters.n_ubatch = min(plan.n_batch, plan.n_ctx)
    parameters.n_seq_max = plan.n_sequences
    parameters.n_threads = plan.n_threads
    parameters.n_threads_batch = plan.n_threads_batch
    parameters.flash_attn_type = _FLASH_ATTENTION[plan.flash_attention]
    if plan.kv_type == "q8_0":
        parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_Q8_0
    parameters.no_perf = True
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise ModelLoadError(
            f"llama.cpp cannot make a context of {plan.n_ctx} tokens for {path}: "
            f"{native_log.take_errors() or 'no reason given'}; try a smaller LLM_CONTEXT_SIZE",
            path=path,
        )
    return context


class AbortFlag:
    """A flag that stops a decode from inside, without Python.

    llama.cpp asks its abort callback before every node of the compute graph, about a thousand times a token. A Python
    callback would take the GIL each time. `strlen` on a buffer that holds no byte or one byte before its terminator
    answers 0 or 1, which is all that the callback has to do.
    """

    def __init__(self, context: int) -> None:
        self._buffer = ctypes.create_string_buffer(2)
        self._callback = ctypes.cast(ctypes.CDLL(None).strlen, llama_cpp.ggml_abort_callback)
        llama_cpp.llama_set_abort_callback(context, self._callback, ctypes.cast(self._buffer, ctypes.c_void_p))

    def set(self) -> None:
        """Stop the decode that runs, and the next ones, until cleared. Safe from any thread."""
        self._buffer[0] = b"\x01"

    def clear(self) -> None:
        """Let decodes run."""
        self._buffer[0] = b"\x00"
