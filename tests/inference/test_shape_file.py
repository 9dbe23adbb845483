"""Files of a model's shape with random weights: what llama.cpp is told, and that it believes it."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import NamedTuple

import llama_cpp
import numpy as np
import pytest

from naila.errors import ModelError
from naila.inference.batch import Batch
from naila.inference.gguf import raw_entries, read_header
from naila.inference.model import Model
from naila.inference.shape import SHAPES, tensors
from naila.inference.shape_file import shape_header, write_shape
from naila.inference.tokens import Segment
from naila.ports import EnginePlan


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def plan(n_ctx: int = 256) -> EnginePlan:
    return EnginePlan(
        n_threads=1,
        n_threads_batch=1,
        n_gpu_layers=0,
        n_ctx=n_ctx,
        n_cells=n_ctx,
        n_sequences=4,
        n_batch=63,
        use_mmap=True,
        acceleration="cpu",
        needed_bytes=0,
        available_bytes=0,
        reasons={},
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shapes") / "tiny.gguf"
    write_shape(SHAPES["tiny"], path)
    return path


def logits_of(model: Model, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Read `count` tokens and return the logits of the last."""
    batch = Batch(model.n_batch)
    index = batch.add([3 + number % 200 for number in range(count)], position=0, sequence=0, outputs=1)
    assert batch.decode(model.context) == 0
    pointer = llama_cpp.llama_get_logits_ith(model.context, index)
    logits = np.ctypeslib.as_array(pointer, shape=(model.vocabulary.size,)).copy()
    batch.close()
    return logits


@pytest.mark.parametrize(
    ("name", "size", "weights"),
    [
        ("llama-3.1-8b", 4.92e9, 8.03e9),
        ("llama-3.2-3b", 2.02e9, 3.21e9),
        ("llama-3.2-1b", 0.808e9, 1.236e9),
        ("smollm2-135m", 0.105e9, 0.1345e9),
    ],
)
def test_a_shape_is_as_large_as_the_published_file(name: str, size: float, weights: float) -> None:
    shape = SHAPES[name]
    assert shape_header(shape, Path("x.gguf")).file_bytes == pytest.approx(size, rel=0.01)
    assert sum(prod(tensor.dims) for tensor in tensors(shape)) == pytest.approx(weights, rel=0.002)


def test_the_8b_shape_has_exactly_the_tensors_of_the_8b_model() -> None:
    found = {tensor.name: tensor for tensor in tensors(SHAPES["llama-3.1-8b"])}
    assert len(found) == 292
    assert found["token_embd.weight"].dims == found["output.weight"].dims == (4096, 128_256)
    assert found["rope_freqs.weight"].dims == (64,)
    assert found["blk.31.attn_k.weight"].dims == found["blk.0.attn_v.weight"].dims == (4096, 1024)
    assert found["blk.7.ffn_down.weight"].dims == (14_336, 4096)
    assert Counter(tensor.kind for tensor in found.values()) == {0: 66, 12: 193, 14: 33}  # F32, Q4_K, Q6_K
    better = {name.split(".")[1] for name, tensor in found.items() if "ffn_down" in name and tensor.kind == 14}
    assert better == {str(layer) for layer in (0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31)}


@pytest.mark.parametrize("name", SHAPES)
def test_blocks_divide_rows(name: str) -> None:
    blocks = {0: 1, 6: 32, 8: 32, 12: 256, 14: 256}
    assert all(tensor.dims[0] % blocks[tensor.kind] == 0 for tensor in tensors(SHAPES[name]))


def test_the_header_says_what_was_foretold(tiny: Path) -> None:
    assert read_header(tiny) == shape_header(SHAPES["tiny"], tiny)
    assert tiny.stat().st_size == read_header(tiny).file_bytes < 4_000_000
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny.gguf"]


def test_most_of_the_8b_shape_is_in_q4_k(tmp_path: Path) -> None:
    assert shape_header(SHAPES["llama-3.1-8b"], tmp_path / "8b.gguf").weight_type == "Q4_K"


def test_llama_cpp_loads_it_and_all_numbers_are_numbers(tiny: Path) -> None:
    model = Model(tiny, plan())
    try:
        logits = logits_of(model, 40)
        assert np.isfinite(logits).all()
        assert 0.01 < logits.std() < 100
        assert len(np.unique(logits)) > 0.9 * len(logits)
    finally:
        model.close()


@pytest.mark.timeout(300)
def test_small_rows_take_small_blocks_that_llama_cpp_loads_too(tmp_path: Path) -> None:
    path = tmp_path / "smol.gguf"
    write_shape(SHAPES["smollm2-135m"], path)
    model = Model(path, plan())
    try:
        assert np.isfinite(logits_of(model, 8)).all()
        assert model.chat_format.name == "ChatML"
        assert model.vocabulary.special["<|im_end|>"] == 2
    finally:
        model.close()


def test_control_tokens_have_their_places_and_text_is_bytes(tiny: Path) -> None:
    model = Model(tiny, plan())
    try:
        vocabulary = model.vocabulary
        assert model.chat_format.name == "llama-3.1"
        first = vocabulary.size - 256
        assert (vocabulary.bos, vocabulary.special["<|eot_id|>"]) == (first, first + 9)
        assert vocabulary.special["<|start_header_id|>"] == first + 6
        assert vocabulary.is_end(first + 9)
        tokens = vocabulary.encode([Segment("Hé, robot!\n", is_template=False)])
        assert b"".join(map(vocabulary.decode, tokens)).decode() == "Hé, robot!\n"
        assert vocabulary.decode(300).startswith(b"w")
    finally:
        model.close()


def test_the_places_of_llama_3_are_those_of_the_real_vocabulary(llama3_vocab: Path, tmp_path: Path) -> None:
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    path = tmp_path / "words.gguf"
    write_shape(replace(SHAPES["tiny"], n_vocab=128_256), path)
    for file in (llama3_vocab, path):
        model = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
        assert model
        vocab = llama_cpp.llama_model_get_vocab(model)
        assert llama_cpp.llama_vocab_n_tokens(vocab) == 128_256
        marks = {128_000: "begin_of_text", 128_006: "start_header_id", 128_007: "end_header_id", 128_009: "eot_id"}
        for token, name in marks.items():
            assert llama_cpp.llama_vocab_get_text(vocab, token).decode() == f"<|{name}|>"
        llama_cpp.llama_model_free(model)


def test_a_vocabulary_is_copied_as_it_stands(llama3_vocab: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_shape(SHAPES["tiny"], path, vocab=llama3_vocab)
    assert read_header(path) == shape_header(SHAPES["tiny"], path, llama3_vocab)
    assert raw_entries(path, "tokenizer.") == raw_entries(llama3_vocab, "tokenizer.")


def test_a_full_disk_is_said_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 1_234_567))
    needed = shape_header(SHAPES["llama-3.1-8b"], tmp_path).file_bytes + 64 * 2**20
    with pytest.raises(ModelError, match=f"needs {needed:,} bytes of disk, and 1,234,567 are free"):
        write_shape(SHAPES["llama-3.1-8b"], tmp_path / "8b.gguf")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shape(SHAPES["tiny"], tmp_path / "tiny.gguf", on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be written"):
        write_shape(SHAPES["tiny"], tmp_path / "file" / "tiny.gguf")
