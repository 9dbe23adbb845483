from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from naila.config.catalogue import CatalogueEntry, HubSource
from naila.errors import (
    ModelCorruptError,
    ModelError,
    ModelNotFoundError,
    ModelTooLargeError,
    ModelTruncatedError,
    NotAGgufError,
)
from naila.services.model_files import CHUNK_BYTES, find_model, model_files, sha256_of, verify
from naila.services.verified import FILE_NAME, VerifiedFiles


def gguf(path: Path, size: int = 100) -> Path:
    path.write_bytes(b"GGUF" + bytes(size - 4))
    return path


def anything(path: Path) -> str:
    return "it does"


def up_to(limit: int) -> Callable[[Path], str]:
    def fits(path: Path) -> str:
        size = path.stat().st_size
        if size > limit:
            raise ModelTooLargeError(f"needs {size} of {limit} bytes", needed=size, available=limit, path=path)
        return f"{size} of {limit} bytes"

    return fits


def test_a_path_that_was_set_is_taken_whatever_else_is_there(tmp_path: Path) -> None:
    gguf(tmp_path / "large.gguf", 900)
    chosen = gguf(tmp_path / "small.bin")
    choice = find_model(chosen, tmp_path, anything)
    assert (choice.path, choice.reason) == (chosen, "set by LLM_MODEL_PATH")


def test_a_path_that_does_not_exist_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="naila models list") as caught:
        find_model(tmp_path / "gone.gguf", tmp_path, anything)
    assert caught.value.path == tmp_path / "gone.gguf"
    with pytest.raises(ModelNotFoundError, match=r"is a folder.*MODELS_DIR"):
        find_model(tmp_path, tmp_path, anything)


def test_the_largest_that_fits_is_chosen_and_the_log_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, size in (("a.gguf", 900), ("b.GGUF", 500), ("c.gguf", 100)):
        gguf(tmp_path / name, size)
    with caplog.at_level(logging.INFO):
        choice = find_model(None, tmp_path, up_to(600))
    assert choice.path == tmp_path / "b.GGUF"
    assert choice.reason == f"the largest model in {tmp_path} that fits: 500 of 600 bytes"
    assert choice.passed_over == ((tmp_path / "a.gguf", "needs 900 of 600 bytes"),)
    assert "model file a.gguf passed over: needs 900 of 600 bytes" in caplog.messages
    assert f"model file {choice.path}: {choice.reason}" in caplog.messages


@pytest.mark.parametrize("models_dir", ["empty", "missing", "a-file"])
def test_no_model_at_all_says_how_to_get_one(tmp_path: Path, models_dir: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").touch()
    with pytest.raises(ModelNotFoundError, match="naila models pull smollm2-135m"):
        find_model(None, tmp_path / models_dir, anything)


def test_the_only_model_keeps_its_own_error(tmp_path: Path) -> None:
    gguf(tmp_path / "a.gguf", 900)
    with pytest.raises(ModelTooLargeError) as caught:
        find_model(None, tmp_path, up_to(600))
    assert (caught.value.needed, caught.value.available) == (900, 600)


def test_when_none_of_several_fits_each_says_why(tmp_path: Path) -> None:
    gguf(tmp_path / "a.gguf", 900)
    gguf(tmp_path / "b.gguf", 800)
    with pytest.raises(ModelNotFoundError, match=r"none of the 2.*a\.gguf: needs 900.*b\.gguf: needs 800"):
        find_model(None, tmp_path, up_to(600))


def test_what_is_no_model_is_passed_over_with_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gguf(tmp_path / "mmproj-model-f16.gguf", 900)
    gguf(tmp_path / "half.gguf.abc.part", 900)
    gguf(tmp_path / ".hidden.gguf", 900)
    (tmp_path / "page.gguf").write_text("<!doctype html> the login page of a hub" * 99)
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "nowhere")
    whole = gguf(tmp_path / "whole.gguf")
    with caplog.at_level(logging.INFO):
        assert find_model(None, tmp_path, anything).path == whole
    assert "model file mmproj-model-f16.gguf passed over: an image projector, not a model" in caplog.messages
    assert "model file page.gguf passed over: not a GGUF file" in caplog.messages


def test_a_model_in_parts_counts_whole_and_is_named_by_its_first(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        gguf(tmp_path / f"big-{number:05d}-of-00003.gguf", 400)
    gguf(tmp_path / "single.gguf", 1000)
    first = tmp_path / "big-00001-of-00003.gguf"
    assert model_files(tmp_path) == [first, tmp_path / "single.gguf"]
    assert find_model(None, tmp_path, anything).path == first
    (tmp_path / "big-00002-of-00003.gguf").unlink()
    (tmp_path / "single.gguf").unlink()
    with pytest.raises(ModelNotFoundError, match=r"big-00002-of-00003\.gguf is missing"):
        find_model(None, tmp_path, anything)


def an_entry(path: Path, **changes: object) -> CatalogueEntry:
    content = path.read_bytes()
    fields: dict[str, object] = {
        "name": "tiny",
        "title": "Tiny",
        "description": "For tests.",
        "file": path.name,
        "source": HubSource("maker/tiny"),
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "licence": "MIT",
        "memory_bytes": 1,
        "context": 2048,
        "may_act": False,
    }
    return CatalogueEntry(**{**fields, **changes})  # type: ignore[arg-type]


class Reads:
    """Counts how often a file was read from its beginning."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, done: int, _total: int) -> None:
        self.count += done == 0


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")
    entry, stamps, reads = an_entry(path), VerifiedFiles(tmp_path / "state"), Reads()
    assert verify(path, entry, stamps=stamps, progress=reads).outcome == "hashed"
    again = verify(path, entry, stamps=VerifiedFiles(tmp_path / "state"), progress=reads)
    assert (again.outcome, again.sha256, again.against) == ("unchanged", entry.sha256, "the catalogue")
    assert reads.count == 1
    os.utime(path, ns=(1, 1))
    assert verify(path, entry, stamps=stamps, progress=reads).outcome == "hashed"
    content = path.read_bytes()
    path.rename(tmp_path / "old")
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    assert verify(path, entry, stamps=stamps, progress=reads).outcome == "hashed"
    assert reads.count == 3
    assert verify(path, entry, stamps=stamps, progress=reads, again=True).outcome == "hashed"
    assert reads.count == 4


def test_a_flipped_bit_is_found_every_time(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")
    entry, stamps = an_entry(path), VerifiedFiles(tmp_path)
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(ModelCorruptError, match="naila models pull tiny"):
            verify(path, entry, stamps=stamps)


def test_a_short_file_is_truncated_and_a_long_one_is_another(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")
    reads = Reads()
    with pytest.raises(ModelTruncatedError) as caught:
        verify(path, an_entry(path, size_bytes=500), stamps=VerifiedFiles(tmp_path), progress=reads)
    assert (caught.value.size, caught.value.expected) == (100, 500)
    with pytest.raises(ModelCorruptError, match="has 100 bytes, the catalogue states 50"):
        verify(path, an_entry(path, size_bytes=50), stamps=VerifiedFiles(tmp_path), progress=reads)
    assert reads.count == 0


def test_a_sidecar_overrules_the_catalogue(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")
    other_build = an_entry(path, size_bytes=500, sha256="ab" * 32)
    sidecar = tmp_path / "m.gguf.sha256"
    sidecar.write_text(f"{sha256_of(path).upper()} *m.gguf\n")
    found = verify(path, other_build, stamps=VerifiedFiles(tmp_path))
    assert (found.outcome, found.against) == ("hashed", "m.gguf.sha256")
    sidecar.write_text("cd" * 32)
    with pytest.raises(ModelCorruptError, match="says cdcd"):
        verify(path, None, stamps=VerifiedFiles(tmp_path))
    sidecar.write_text("to be filled in\n")
    with pytest.raises(ModelCorruptError, match="does not begin with a SHA-256"):
        verify(path, None, stamps=VerifiedFiles(tmp_path))


def test_a_file_that_nobody_vouches_for_is_unknown_and_not_read(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")
    reads = Reads()
    for entry in (None, an_entry(path, sha256=None)):
        assert verify(path, entry, stamps=VerifiedFiles(tmp_path), progress=reads).outcome == "unknown"
    with pytest.raises(ModelTruncatedError):
        verify(path, an_entry(path, sha256=None, size_bytes=101), stamps=VerifiedFiles(tmp_path))
    assert reads.count == 0


def test_what_is_missing_or_no_gguf_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        verify(tmp_path / "gone.gguf", None, stamps=VerifiedFiles(tmp_path))
    (tmp_path / "m.gguf").write_text("hello")
    with pytest.raises(NotAGgufError):
        verify(tmp_path / "m.gguf", None, stamps=VerifiedFiles(tmp_path))


def test_a_file_that_changes_while_it_is_read_is_not_passed(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")

    def meanwhile(done: int, total: int) -> None:
        os.utime(path, ns=(5, 5))

    with pytest.raises(ModelCorruptError, match="changed while it was checked"):
        verify(path, an_entry(path), stamps=VerifiedFiles(tmp_path), progress=meanwhile)


def test_hashing_tells_its_progress_and_stops_when_told(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + bytes(2 * CHUNK_BYTES))
    seen: list[int] = []

    class StopError(Exception):
        pass

    def stop_in_the_middle(done: int, total: int) -> None:
        seen.append(done)
        if done:
            raise StopError

    with pytest.raises(StopError):
        verify(path, an_entry(path), stamps=VerifiedFiles(tmp_path), progress=stop_in_the_middle)
    assert seen == [0, CHUNK_BYTES]
    assert not (tmp_path / FILE_NAME).exists()


def test_stamps_go_to_the_daemons_folder_where_the_models_are_read_only(tmp_path: Path) -> None:
    models, state = tmp_path / "models", tmp_path / "state"
    models.mkdir()
    path = gguf(models / "m.gguf")
    # A folder of the stamp file's name stops every writer, root too, as a read-only file system does.
    (models / FILE_NAME).mkdir()
    entry, reads = an_entry(path), Reads()
    for _ in range(2):
        verify(path, entry, stamps=VerifiedFiles(state), progress=reads)
    assert reads.count == 1
    assert (state / FILE_NAME).is_file()
    assert sorted(found.name for found in models.iterdir()) == [FILE_NAME, "m.gguf"]


@pytest.mark.parametrize("damage", ["{", "[]", '{"m.gguf": 7}', '{"m.gguf": {"sha256": 7}}', "\x00\xff"])
def test_a_damaged_stamp_file_costs_a_hash_and_nothing_more(tmp_path: Path, damage: str) -> None:
    path = gguf(tmp_path / "m.gguf")
    (tmp_path / FILE_NAME).write_text(damage, encoding="latin-1")
    stamps = VerifiedFiles(tmp_path)
    assert verify(path, an_entry(path), stamps=stamps).outcome == "hashed"
    assert verify(path, an_entry(path), stamps=stamps).outcome == "unchanged"


def test_a_stamp_does_not_vouch_for_another_expectation(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")
    stamps = VerifiedFiles(tmp_path)
    verify(path, an_entry(path), stamps=stamps)
    with pytest.raises(ModelError):
        verify(path, an_entry(path, sha256="ab" * 32), stamps=stamps)
