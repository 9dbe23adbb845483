"""Model files on disk: which one to serve, and whether it is whole."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from naila.config.catalogue import CatalogueEntry
from naila.errors import ModelCorruptError, ModelError, ModelNotFoundError, ModelTruncatedError, NotAGgufError
from naila.services.verified import Stamp, VerifiedFiles

_log = logging.getLogger(__name__)

CHUNK_BYTES = 8 * 1024 * 1024
PART = re.compile(r"-(\d{5})-of-(\d{5})$")
SHA256_LINE = re.compile(r"\s*([0-9a-fA-F]{64})(\s+\*?.*)?\s*")

Fits = Callable[[Path], str]
"""Says how a model file fits this machine; raises a ModelError if it does not, or cannot be served at all."""

Progress = Callable[[int, int], None]
"""Told how many bytes are done, of how many. What it raises ends the work and reaches the caller: the way to cancel."""


def no_progress(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model file to serve.

    Attributes:
        path: the file.
        reason: why this one.
        passed_over: larger or unfit files, each with the reason.
    """

    path: Path
    reason: str
    passed_over: tuple[tuple[Path, str], ...] = ()


def find_model(explicit: Path | None, models_dir: Path, fits: Fits) -> ModelChoice:
    """Choose the model to serve: the one that was set, else the largest in `models_dir` that fits.

    The choice, its reason and every file that was passed over are logged.

    Raises:
        ModelNotFoundError: there is none, or none that fits; the message says what to do.
        ModelError: what `fits` raised, where there is only one file to choose.
    """
    choice = _explicit(explicit) if explicit is not None else _largest(models_dir, fits)
    for path, why in choice.passed_over:
        _log.info("model file %s passed over: %s", path.name, why)
    _log.info("model file %s: %s", choice.path, choice.reason)
    return choice


def model_files(models_dir: Path) -> list[Path]:
    """Return the GGUF files of a folder that may hold a model of their own, largest first."""
    found = [path for path in _listing(models_dir) if _is_candidate(path)]
    return sorted(found, key=lambda path: (-size_of(path), path.name))


def size_of(path: Path) -> int:
    """Return the bytes of a model file, all its parts together if it is the first of several."""
    return sum(part.stat().st_size for part in _parts(path) if part.is_file())


def _explicit(path: Path) -> ModelChoice:
    if path.is_dir():
        raise ModelNotFoundError(
            f"LLM_MODEL_PATH={path} is a folder: name a .gguf file, or set MODELS_DIR to the folder instead", path=path
        )
    if not path.is_file():
        raise ModelNotFoundError(
            f"LLM_MODEL_PATH={path}: there is no such file. Put it there, correct the path, or leave LLM_MODEL_PATH "
            f"empty to use the largest model in MODELS_DIR; `naila models list` shows what can be fetched",
            path=path,
        )
    return ModelChoice(path, "set by LLM_MODEL_PATH")


def _largest(models_dir: Path, fits: Fits) -> ModelChoice:
    passed_over: list[tuple[Path, str]] = []
    refusals: list[ModelError] = []
    candidates = model_files(models_dir)
    for path in candidates:
        try:
            _check_parts(path)
            how = fits(path)
        except ModelError as exc:
            passed_over.append((path, str(exc)))
            refusals.append(exc)
        else:
            place = "the only" if len(candidates) == 1 else "the largest"
            return ModelChoice(path, f"{place} model in {models_dir} that fits: {how}", tuple(passed_over))
    if len(refusals) == 1:
        raise refusals[0]
    if not refusals:
        raise ModelNotFoundError(
            f"there is no model in {models_dir}: fetch one with `naila models pull smollm2-135m` (98 MB), put a .gguf "
            f"file there, or name one with LLM_MODEL_PATH"
        )
    reasons = "; ".join(f"{path.name}: {why}" for path, why in passed_over)
    raise ModelNotFoundError(
        f"none of the {len(refusals)} models in {models_dir} can be served here ({reasons}). `naila models list` "
        f"shows smaller ones"
    )


def _listing(models_dir: Path) -> list[Path]:
    try:
        return sorted(models_dir.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise ModelNotFoundError(
            f"{models_dir} cannot be read: {exc.strerror}: let NAILA's user in, or set MODELS_DIR"
        ) from exc


def _is_candidate(path: Path) -> bool:
    if path.suffix.lower() != ".gguf" or path.name.startswith(".") or not path.is_file():
        return False
    part = PART.search(path.stem)
    if part is not None and int(part[1]) != 1:
        return False
    why = "an image projector, not a model" if "mmproj" in path.name.lower() else _not_gguf(path)
    if why is not None:
        _log.info("model file %s passed over: %s", path.name, why)
    return why is None


def _not_gguf(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return None if file.read(4) == b"GGUF" else "not a GGUF file"
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"


def _parts(path: Path) -> Iterator[Path]:
    part = PART.search(path.stem)
    count = int(part[2]) if part is not None and int(part[1]) == 1 else 1
    if part is None or count == 1:
        yield path
        return
    for number in range(1, count + 1):
        yield path.with_name(f"{path.stem[: part.start()]}-{number:05d}-of-{part[2]}{path.suffix}")


def _check_parts(path: Path) -> None:
    missing = [part.name for part in _parts(path) if not part.is_file()]
    if missing:
        raise ModelNotFoundError(
            f"its part {missing[0]} is missing ({len(missing)} in all): fetch all parts into one folder", path=path
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """What is known of a file after it was checked.

    Attributes:
        path: the file.
        outcome: `hashed` now; `unchanged` since it was hashed; `unknown` when nothing says what it should be.
        sha256: what it was found to be, if it was hashed now or before.
        against: where the expected SHA-256 came from.
    """

    path: Path
    outcome: Literal["hashed", "unchanged", "unknown"]
    sha256: str | None = None
    against: str | None = None


def verify(
    path: Path,
    entry: CatalogueEntry | None,
    *,
    stamps: VerifiedFiles,
    progress: Progress = no_progress,
    again: bool = False,
) -> Verification:
    """Check a file's size and SHA-256 against its sidecar `NAME.gguf.sha256`, else against its catalogue entry.

    A file is hashed once, then again only when its size, modification time or inode changed. Blocks for as long as
    reading the file takes; run it in a thread.

    Args:
        path: the file.
        entry: the catalogue's entry for a file of this name, if there is one.
        stamps: where is noted what was hashed before.
        progress: told after each chunk.
        again: hash it even if it did not change: a person asked, or the disk is in doubt.

    Raises:
        ModelNotFoundError: there is no such file.
        NotAGgufError: it does not begin like a GGUF file.
        ModelTruncatedError: it is shorter than the catalogue says.
        ModelCorruptError: it is another file than expected, or changed while it was read.
        ModelError: it cannot be read.
    """
    before = _stamp_now(path)
    not_gguf = _not_gguf(path)
    if not_gguf is not None:
        raise NotAGgufError(f"{path}: {not_gguf}", path=path)
    expected, against = _expected(path, entry)
    if entry is not None and expected == entry.sha256:
        _check_size(path, before.size, entry)
    if expected is None:
        return Verification(path, "unknown")
    if not again and stamps.known(path, before) == expected:
        return Verification(path, "unchanged", expected, against)
    try:
        actual = sha256_of(path, progress)
    except OSError as exc:
        raise ModelError(f"{path} cannot be read: {exc.strerror}", path=path) from exc
    if _stamp_now(path) != before:
        raise ModelCorruptError(
            f"{path} changed while it was checked: wait until it is written, then try again", path=path
        )
    if actual != expected:
        raise ModelCorruptError(
            f"{path} is damaged or another file: its SHA-256 is {actual}, {against} says {expected}. {_advice(entry)}",
            path=path,
        )
    stamps.note(path, before, actual)
    return Verification(path, "hashed", actual, against)


def sha256_of(path: Path, progress: Progress = no_progress) -> str:
    """Return the SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    done, total = 0, path.stat().st_size
    progress(done, total)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            progress(done, total)
    return digest.hexdigest()


def sidecar_of(path: Path) -> Path:
    """Return where a file's SHA-256 is kept, in the form of `sha256sum`."""
    return path.with_name(f"{path.name}.sha256")


def _expected(path: Path, entry: CatalogueEntry | None) -> tuple[str | None, str | None]:
    sidecar = sidecar_of(path)
    with suppress(FileNotFoundError):
        first = sidecar.read_text(encoding="utf-8", errors="replace").splitlines()[:1]
        line = SHA256_LINE.fullmatch(first[0]) if first else None
        if line is None:
            raise ModelCorruptError(f"{sidecar} does not begin with a SHA-256 in hex: correct or remove it", path=path)
        return line[1].lower(), sidecar.name
    if entry is not None and entry.sha256 is not None:
        return entry.sha256, "the catalogue"
    return None, None


def _check_size(path: Path, size: int, entry: CatalogueEntry) -> None:
    if size < entry.size_bytes:
        raise ModelTruncatedError(
            f"{path} has {size} of the {entry.size_bytes} bytes that the catalogue states. {_advice(entry)}",
            path=path,
            size=size,
            expected=entry.size_bytes,
        )
    if size > entry.size_bytes:
        raise ModelCorruptError(
            f"{path} has {size} bytes, the catalogue states {entry.size_bytes}. {_advice(entry)}", path=path
        )


def _advice(entry: CatalogueEntry | None) -> str:
    if entry is None:
        return "Copy it here again, or correct the .sha256 file"
    return (
        f"Fetch it again with `naila models pull {entry.name}`; if it is another build of the same name, put its own "
        f"SHA-256 into {entry.file}.sha256"
    )


def _stamp_now(path: Path) -> Stamp:
    try:
        return Stamp.of(path)
    except FileNotFoundError as exc:
        raise ModelNotFoundError(f"{path}: there is no such file", path=path) from exc
