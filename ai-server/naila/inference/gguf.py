"""Reads the header of a GGUF file, without llama.cpp and without trusting the file.

Everything that planning needs (layers, heads, vocabulary) and everything that tells a whole file from a truncated one
stands in the header; reading it in Python means that a bad download is a clear error here instead of a crash there.

Source: the GGUF specification, versions 2 and 3 (ggml, docs/gguf.md).
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from naila.errors import ModelNotFoundError, ModelTruncatedError, NotAGgufError
from naila.ports import ModelHeader

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_MAX_ENTRIES: Final = 1 << 20
_MAX_ARRAY_DEPTH: Final = 4

_SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING: Final = 8
_ARRAY: Final = 9

# ggml type id: (weights in a block, bytes of a block), from ggml's type traits.
BLOCKS: Final = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip

_TYPE_NAMES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip

_Value = int | float | bool | str | list["_Value"] | None


class _PastEndError(Exception):
    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class _Reader:
    """A cursor over the file that refuses to run past its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._end = len(data)
        self.offset = 0

    def take(self, size: int) -> int:
        """Move past `size` bytes and return where they began."""
        start, self.offset = self.offset, self.offset + size
        if self.offset > self._end:
            raise _PastEndError(self.offset)
        return start

    def scalar(self, layout: struct.Struct) -> int | float | bool:
        value: int | float | bool = layout.unpack_from(self._data, self.take(layout.size))[0]
        return value

    def count(self) -> int:
        return int(self.scalar(_SCALARS[10]))

    def string(self) -> str:
        size = self.count()
        start = self.take(size)
        return self._data[start : start + size].decode("utf-8", errors="replace")

    def value(self, kind: int, depth: int = 0) -> _Value:
        """Read one value; long arrays are passed over and only counted: an `int` stands for them."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(depth)
        if kind not in _SCALARS:
            raise ValueError(f"unknown value type {kind}")
        return self.scalar(_SCALARS[kind])

    def _array(self, depth: int) -> _Value:
        if depth >= _MAX_ARRAY_DEPTH:
            raise ValueError("arrays nested too deep")
        kind, length = int(self.scalar(_SCALARS[4])), self.count()
        if kind in _SCALARS and length > 4096:
            self.take(length * _SCALARS[kind].size)
            return length
        if kind == _STRING and length > 4096:
            self._skip_strings(length)
            return length
        if length > 4096:
            raise ValueError(f"array of {length} arrays")
        return [self.value(kind, depth + 1) for _ in range(length)]

    def _skip_strings(self, length: int) -> None:
        # A vocabulary has 128,000 of these: one call each, no slices.
        data, end, unpack = self._data, self._end, _SCALARS[10].unpack_from
        offset = self.offset
        for _ in range(length):
            if offset + 8 > end:
                raise _PastEndError(offset + 8)
            offset += 8 + unpack(data, offset)[0]
        self.offset = offset
        self.take(0)


def read_header(path: Path) -> ModelHeader:
    """Read what a GGUF file says about itself and check that it is whole.

    Raises:
        ModelNotFoundError: there is no such file.
        NotAGgufError: it is something else, or its header makes no sense.
        ModelTruncatedError: it ends before its last tensor.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            if magic != _MAGIC:
                raise NotAGgufError(
                    f"{path} is not a GGUF file (it begins with {magic!r}, not {_MAGIC!r}): "
                    "it may be an error page or another format; fetch it again with `naila models pull`",
                    path=path,
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(path, data)
    except OSError as exc:
        raise ModelNotFoundError(
            f"{path}: {exc.strerror or exc}: put a model there that NAILA's user can read", path=path
        ) from exc


def raw_entries(path: Path, prefix: str) -> list[bytes]:
    """Return the entries whose keys begin with `prefix` as they stand in a file that `read_header` found whole."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        _, n_keys = _counts(reader)
        found = []
        for _ in range(n_keys):
            start = reader.offset
            key = reader.string()
            reader.value(int(reader.scalar(_SCALARS[4])))
            if key.startswith(prefix):
                found.append(data[start : reader.offset])
        return found


def _counts(reader: _Reader) -> tuple[int, int]:
    """Read the very beginning; return how many tensors and how many metadata entries follow."""
    reader.take(4)
    version = int(reader.scalar(_SCALARS[4]))
    if version not in _VERSIONS:
        raise ValueError(f"version {version}, and {' or '.join(map(str, _VERSIONS))} is readable here")
    n_tensors, n_keys = reader.count(), reader.count()
    if n_tensors > _MAX_ENTRIES or n_keys > _MAX_ENTRIES:
        raise ValueError(f"{n_tensors} tensors and {n_keys} keys announced")
    return n_tensors, n_keys


def _parse(path: Path, data: mmap.mmap) -> ModelHeader:
    reader = _Reader(data)
    try:
        n_tensors, n_keys = _counts(reader)
        metadata: dict[str, _Value] = {}
        for _ in range(n_keys):
            key = reader.string()
            metadata[key] = reader.value(int(reader.scalar(_SCALARS[4])))
        expected, weights, kind = _tensors(reader, n_tensors, int(_number(metadata, "general.alignment", 32)))
        header = replace(_header(path, len(data), metadata), n_parameters=weights, weight_type=kind)
    except _PastEndError as exc:
        raise _truncated(path, len(data), exc.offset) from exc
    except (ValueError, struct.error, OverflowError, MemoryError) as exc:
        raise NotAGgufError(
            f"{path}: the GGUF header makes no sense: {exc}; fetch it again with `naila models pull`", path=path
        ) from exc
    if len(data) < expected:
        raise _truncated(path, len(data), expected)
    return header


def prevailing_type(bytes_of: Mapping[int, int]) -> str:
    """Return ggml's name of the type that most bytes are of, given the bytes of each type id; empty where unknown."""
    return _TYPE_NAMES.get(max(bytes_of, key=lambda kind: bytes_of[kind]), "")


def _truncated(path: Path, size: int, expected: int) -> ModelTruncatedError:
    return ModelTruncatedError(
        f"{path} is truncated: it has {size:,} bytes and its header announces at least {expected:,}; "
        "fetch it again with `naila models pull`",
        path=path,
        size=size,
        expected=expected,
    )


def _tensors(reader: _Reader, n_tensors: int, alignment: int) -> tuple[int, int, str]:
    """Return the bytes that a file with these tensors has at least, their weights, and the type of most bytes."""
    if not 0 < alignment <= 1 << 20:
        raise ValueError(f"alignment {alignment}")
    end = held = 0
    bytes_of: Counter[int] = Counter()
    for _ in range(n_tensors):
        name = reader.string()
        n_dims = int(reader.scalar(_SCALARS[4]))
        if n_dims > 8:
            raise ValueError(f"tensor {name!r} has {n_dims} dimensions")
        weights = 1
        for _ in range(n_dims):
            weights *= reader.count()
        kind = int(reader.scalar(_SCALARS[4]))
        per_block, block_bytes = BLOCKS.get(kind, (1, 0))
        size = weights // per_block * block_bytes
        held += weights
        bytes_of[kind] += size
        end = max(end, reader.count() + size)
    if not n_tensors:
        return reader.offset, 0, ""
    return -(-reader.offset // alignment) * alignment + end, held, prevailing_type(bytes_of)


def _header(path: Path, size: int, metadata: dict[str, _Value]) -> ModelHeader:
    architecture = str(metadata.get("general.architecture") or "")
    if not architecture:
        raise ValueError("general.architecture is missing")

    def number(key: str, default: float | None = None) -> int:
        return int(_number(metadata, f"{architecture}.{key}", default))

    n_embd, n_heads = number("embedding_length"), max(1, number("attention.head_count"))
    vocabulary = metadata.get("tokenizer.ggml.tokens")
    n_tokens = vocabulary if isinstance(vocabulary, int) else len(vocabulary) if isinstance(vocabulary, list) else 0
    return ModelHeader(
        path=path,
        name=str(metadata.get("general.name") or path.stem),
        architecture=architecture,
        file_bytes=size,
        n_layers=number("block_count"),
        n_ctx_train=number("context_length"),
        n_embd=n_embd,
        n_heads=n_heads,
        n_kv_heads=number("attention.head_count_kv", n_heads),
        head_dim_k=number("attention.key_length", n_embd // n_heads),
        head_dim_v=number("attention.value_length", n_embd // n_heads),
        n_vocab=n_tokens or number("vocab_size", 0),
    )


def _number(metadata: dict[str, _Value], key: str, default: float | None = None) -> float:
    """Return a number; a value for each layer (an array) counts as its largest."""
    value = metadata.get(key, default)
    if isinstance(value, list):
        value = max((item for item in value if isinstance(item, int | float)), default=default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is missing" if value is None else f"{key} is {value!r}, not a number")  # noqa: TRY004
    if not 0 <= value < 1 << 40:
        raise ValueError(f"{key} is {value}")
    return value
