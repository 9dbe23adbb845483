"""Writes GGUF files of a named model's shape with random weights: the right speed, no download, no sense in its words.

Every tensor has the name, the shape and the type that llama.cpp's own `Q4_K_M` gives it, so a step costs what it costs
in the real model. Blocks are random bytes with scales that keep all numbers small. The vocabulary is as large as the
real one and has its control tokens at their places; its words are invented, unless another file's are copied.

Source: the GGUF specification, version 3 (ggml, docs/gguf.md); the block layouts in ggml-common.h of llama.cpp.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Final

from naila.errors import ModelError
from naila.inference.gguf import BLOCKS, prevailing_type, raw_entries, read_header
from naila.inference.shape import F32, Q4_K, Q5_0, Q6_K, Q8_0, Shape, tensors
from naila.ports import ModelHeader

_ALIGNMENT: Final = 32
_POOL_BLOCKS: Final = 65_537  # a prime: rows, whose blocks are a multiple of something, begin at ever other places
_RESERVE: Final = 64 * 2**20
_UINT32, _FLOAT32, _STRING, _ARRAY, _INT32 = 4, 6, 8, 9, 5
_NORMAL, _CONTROL = 1, 3

_LLAMA3_MARKS: Final = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>", *(f"<|reserved_special_token_{number}|>" for number in range(3, 248)),
)  # fmt: skip
_CHATML_MARKS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def shape_header(shape: Shape, path: Path, vocab: Path | None = None) -> ModelHeader:
    """Return what the header of a file will say, before it is written: enough to see whether it will fit."""
    shape, head = _head(shape, vocab)
    bytes_of: Counter[int] = Counter()
    for tensor in tensors(shape):
        bytes_of[tensor.kind] += tensor.size
    return ModelHeader(
        path=path,
        name=f"{shape.name} shape, random weights",
        architecture="llama",
        file_bytes=len(head) + sum(_padded(tensor.size) for tensor in tensors(shape)),
        n_layers=shape.n_layers,
        n_ctx_train=shape.n_ctx,
        n_embd=shape.n_embd,
        n_heads=shape.n_heads,
        n_kv_heads=shape.n_kv_heads,
        head_dim_k=shape.head_dim,
        head_dim_v=shape.head_dim,
        n_vocab=shape.n_vocab,
        n_parameters=sum(prod(tensor.dims) for tensor in tensors(shape)),
        weight_type=prevailing_type(bytes_of),
    )


def write_shape(
    shape: Shape, path: Path, *, vocab: Path | None = None, on_progress: Callable[[float], None] = lambda _: None
) -> None:
    """Write a file of a shape; it appears when it is whole.

    Args:
        shape: which.
        path: where; its folder is made if need be.
        vocab: a GGUF file whose vocabulary is copied.
        on_progress: told the share written, 0 to 1.

    Raises:
        ModelError: there is no room for it, or the disk failed, or `vocab` is no model file.
    """
    shape, head = _head(shape, vocab)
    parts = tensors(shape)
    size = len(head) + sum(_padded(tensor.size) for tensor in parts)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < size + _RESERVE:
            raise ModelError(
                f"{path} needs {size + _RESERVE:,} bytes of disk, and {free:,} are free in {path.parent}", path=path
            )
        try:
            with part.open("xb") as file:
                file.write(head)
                pools: dict[int, bytes] = {}
                for tensor in parts:
                    if tensor.kind not in pools:
                        pools[tensor.kind] = _pool(tensor.kind)
                    pool = pools[tensor.kind]
                    for length in _pieces(tensor.size, len(pool)):
                        file.write(memoryview(pool)[:length])
                    file.write(bytes(_padded(tensor.size) - tensor.size))
                    on_progress(file.tell() / size)
                # Pages that still go to the disk would disturb what is measured with the file.
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    except OSError as exc:
        raise ModelError(f"{path} cannot be written: {exc.strerror or exc}", path=path) from exc


def _pieces(size: int, most: int) -> Iterator[int]:
    for start in range(0, size, most):
        yield min(most, size - start)


def _pool(kind: int) -> bytes:
    """Return random blocks whose numbers have a mean near 0 and a deviation near 0.02, as trained weights have."""
    if kind == F32:  # norms and the scaling of positions
        return struct.pack("<f", 1.0) * 4096
    _, block_bytes = BLOCKS[kind]
    noise = hashlib.shake_256(b"naila").digest(_POOL_BLOCKS * block_bytes)
    # The scale of a block, which stands first, or last in a Q6_K block; Q4_K has one for its offsets too.
    scale = {
        Q4_K: struct.pack("<ee", 8e-5, 6e-4),
        Q6_K: struct.pack("<e", 1.5e-5),
        Q5_0: struct.pack("<e", 2e-3),
        Q8_0: struct.pack("<e", 2.7e-4),
    }[kind]
    blocks = (noise[at : at + block_bytes - len(scale)] for at in range(0, len(noise), block_bytes))
    return b"".join(block + scale if kind == Q6_K else scale + block for block in blocks)


def _head(shape: Shape, vocab: Path | None) -> tuple[Shape, bytes]:
    """Return the shape, with the size of a copied vocabulary, and everything before the first tensor's blocks."""
    if vocab is None:
        tokenizer = _invented(shape)
    else:
        shape = replace(shape, n_vocab=read_header(vocab).n_vocab)
        tokenizer = raw_entries(vocab, "tokenizer.")
    numbers = {
        "block_count": shape.n_layers,
        "context_length": shape.n_ctx,
        "embedding_length": shape.n_embd,
        "feed_forward_length": shape.n_ff,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads,
        "rope.dimension_count": shape.head_dim,
        "vocab_size": shape.n_vocab,
    }
    entries = [
        _text("general.architecture", "llama"),
        _text("general.name", f"{shape.name} shape, random weights"),
        _entry("general.file_type", _UINT32, struct.pack("<I", 15)),
        _entry("general.quantization_version", _UINT32, struct.pack("<I", 2)),
        *(_entry(f"llama.{key}", _UINT32, struct.pack("<I", number)) for key, number in numbers.items()),
        _entry("llama.attention.layer_norm_rms_epsilon", _FLOAT32, struct.pack("<f", 1e-5)),
        _entry("llama.rope.freq_base", _FLOAT32, struct.pack("<f", shape.rope_base)),
        *tokenizer,
    ]
    parts = tensors(shape)
    offset, infos = 0, []
    for tensor in parts:
        dims = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
        infos.append(_string(tensor.name) + dims + struct.pack("<IQ", tensor.kind, offset))
        offset += _padded(tensor.size)
    head = b"".join((b"GGUF", struct.pack("<IQQ", 3, len(parts), len(entries)), *entries, *infos))
    return shape, head.ljust(_padded(len(head)), b"\0")


def _invented(shape: Shape) -> list[bytes]:
    """Return a vocabulary of byte tokens, words that nobody says and the model's control tokens."""
    marks = _LLAMA3_MARKS if shape.marks == "llama-3" else _CHATML_MARKS
    words = [*_byte_letters(), *(f"w{number:06}" for number in range(shape.n_vocab - 256 - len(marks)))]
    tokens = [*words, *marks] if shape.marks == "llama-3" else [*marks, *words]
    begin, end = (marks[0], marks[9]) if shape.marks == "llama-3" else (marks[1], marks[2])
    kinds = [_CONTROL if token in set(marks) else _NORMAL for token in tokens]
    return [
        _text("tokenizer.ggml.model", "gpt2"),
        _text("tokenizer.ggml.pre", "llama-bpe" if shape.marks == "llama-3" else "smollm"),
        _array("tokenizer.ggml.tokens", _STRING, [_string(token) for token in tokens]),
        _array("tokenizer.ggml.token_type", _INT32, [struct.pack("<i", kind) for kind in kinds]),
        _array("tokenizer.ggml.merges", _STRING, []),
        _entry("tokenizer.ggml.bos_token_id", _UINT32, struct.pack("<I", tokens.index(begin))),
        _entry("tokenizer.ggml.eos_token_id", _UINT32, struct.pack("<I", tokens.index(end))),
    ]


def _byte_letters() -> list[str]:
    """Return the letters that byte-level BPE writes the 256 bytes with: themselves where they can be seen."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(256))
    return [chr(byte if byte in seen else 256 + next(hidden)) for byte in range(256)]


def _text(key: str, text: str) -> bytes:
    return _entry(key, _STRING, _string(text))


def _array(key: str, kind: int, items: Sequence[bytes]) -> bytes:
    return _entry(key, _ARRAY, struct.pack("<IQ", kind, len(items)) + b"".join(items))


def _entry(key: str, kind: int, value: bytes) -> bytes:
    return _string(key) + struct.pack("<I", kind) + value


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
