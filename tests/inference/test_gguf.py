"""Reading GGUF headers, whole, broken and hostile."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from naila.errors import ModelError, ModelNotFoundError, ModelTruncatedError, NotAGgufError
from naila.inference.gguf import read_header


def test_the_real_model_tells_its_shape(model_path: Path) -> None:
    header = read_header(model_path)
    assert header.architecture == "llama"
    assert header.file_bytes == 98_362_432
    assert (header.n_layers, header.n_heads, header.n_kv_heads, header.head_dim_k) == (30, 9, 3, 64)
    assert (header.n_ctx_train, header.n_embd, header.n_vocab) == (8192, 576, 49_152)
    assert header.weight_type == "Q4_1"


def test_a_vocabulary_of_128000_tokens_is_read(llama3_vocab: Path) -> None:
    header = read_header(llama3_vocab)
    assert (header.n_vocab, header.n_kv_heads, header.n_layers) == (128_256, 8, 32)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"nothing\.gguf"):
        read_header(tmp_path / "nothing.gguf")


@pytest.mark.parametrize("content", [b"", b"GGU", b"<!DOCTYPE html><title>404</title>"])
def test_another_kind_of_file_is_no_gguf(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(NotAGgufError, match="is not a GGUF file"):
        read_header(path)


@pytest.mark.parametrize("keep", [5, 100, 5_000, 2_000_000, 98_362_431])
def test_a_file_cut_anywhere_is_truncated(model_path: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.gguf"
    with model_path.open("rb") as source:
        path.write_bytes(source.read(keep))
    with pytest.raises(ModelTruncatedError) as caught:
        read_header(path)
    assert caught.value.size == keep
    assert caught.value.expected > keep


def test_an_unreadable_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "old.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    with pytest.raises(NotAGgufError, match="version 1"):
        read_header(path)


def test_a_header_that_announces_nonsense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63) + bytes(64))
    with pytest.raises(NotAGgufError, match="announced"):
        read_header(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_else(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "fuzz.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + data)
    with pytest.raises(ModelError):
        read_header(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 2500), st.integers(0, 255))
def test_a_flipped_byte_in_the_header_is_read_or_refused(
    model_path: Path, tmp_path: Path, position: int, value: int
) -> None:
    path = tmp_path / "flipped.gguf"
    with model_path.open("rb") as source:
        data = bytearray(source.read(3_000_000))
    data[position] = value
    path.write_bytes(data)
    with pytest.raises(ModelError):
        read_header(path)
