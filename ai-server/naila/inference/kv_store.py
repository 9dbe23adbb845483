"""KV of conversations on disk: reading it back takes a thousandth of the time of reading the words again.

One file a sequence, in a folder that only the daemon's user can read:

    "NAILAKV2" · header length (4 bytes) · header (JSON: fingerprint, session, number of tokens, how many of the first
    are everybody's, size of the state, CRC-32 of these and of what follows) · tokens (4 bytes each) · the state, as
    `llama_state_seq_get_data` gives it

The fingerprint stands for everything that the state depends on: the model's content, the context's parameters, the
version of llama.cpp. A file with another one, or that is damaged, is removed. Files are written by a thread of their
own and renamed into place; when they are more than the budget, those used least recently go.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import secrets
import shutil
import threading
import time
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import llama_cpp

from naila.inference.prefix_cache import belongs, common_prefix
from naila.ports import EnginePlan

_log = logging.getLogger(__name__)

_MAGIC: Final = b"NAILAKV2"
_SUFFIX: Final = ".kv"
_MAX_HEADER: Final = 65_536
_MAX_QUEUED: Final = 64
_MAX_QUEUED_BYTES: Final = 256 * 2**20
_SAMPLE: Final = 65_536
_SAMPLES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPlan:
    """Where KV is kept, and how much of it.

    Attributes:
        folder: holds a folder for the model that is served.
        budget_bytes: most bytes on disk; 0 keeps nothing.
    """

    folder: Path
    budget_bytes: int


@dataclass(frozen=True, slots=True)
class Saved:
    """A sequence on disk.

    Attributes:
        path: its file.
        session: whose conversation it is; None for a prefix that all share.
        tokens: what it holds.
        public: how many of its first tokens are no device's own.
        size: bytes of the file.
    """

    path: Path
    session: str | None
    tokens: array[int]
    public: int
    size: int


@dataclass(frozen=True, slots=True)
class _Header:
    """What a file says about itself.

    Attributes:
        fingerprint: what its state depends on.
        session: whose conversation it is; None for a prefix that all share.
        tokens: how many tokens it holds.
        public: how many of its first tokens are no device's own.
        size: bytes of its state.
    """

    fingerprint: str
    session: str | None
    tokens: int
    public: int
    size: int

    def checksum(self, *parts: bytes | memoryview) -> int:
        """Return the CRC-32 of the header's fields and of what follows it."""
        crc = zlib.crc32(json.dumps(asdict(self)).encode())
        for part in parts:
            crc = zlib.crc32(part, crc)
        return crc


def open_store(keep: KeepPlan, model_path: Path, plan: EnginePlan) -> KvStore | None:
    """Open what is kept for a model, and remove what was kept for any other.

    None where nothing is to be kept, or, with a line in the log, where the folder cannot be used.
    """
    try:
        fingerprint = _fingerprint(model_path, plan)
        keep.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        keep.folder.chmod(0o700)
        for other in keep.folder.iterdir():
            if other.is_dir() and (other.name != fingerprint[:16] or not keep.budget_bytes):
                shutil.rmtree(other, ignore_errors=True)
        if not keep.budget_bytes:
            return None
        return KvStore(keep.folder / fingerprint[:16], fingerprint, budget_bytes=keep.budget_bytes)
    except Exception as exc:  # noqa: BLE001 - the model is served with or without it
        _log.warning("KV cannot be kept in %s, conversations are read again after a restart: %s", keep.folder, exc)
        return None


def forget_files(folder: Path, session: str) -> int:
    """Remove what is kept of a conversation, or of a device (`device/`), of any model; return how many files.

    For whoever forgets while no engine runs.
    """
    gone = 0
    for path in folder.glob(f"*/*{_SUFFIX}"):
        try:
            with path.open("rb") as file:
                header, _, _ = _header(file.read(len(_MAGIC) + 4 + _MAX_HEADER))
        except Exception:  # noqa: BLE001, S112 - the engine removes what is damaged
            continue
        if belongs(header.session, session):
            path.unlink(missing_ok=True)
            gone += 1
    return gone


def _fingerprint(path: Path, plan: EnginePlan) -> str:
    """Return what a state depends on: the model's content, sampled throughout, the context, llama.cpp's version."""
    size = path.stat().st_size
    context = f"{plan.kv_type} {plan.flash_attention} {plan.n_gpu_layers} {plan.repack}"
    digest = hashlib.sha256(f"{size} {llama_cpp.__version__} {context}".encode())
    with path.open("rb") as file:
        for at in range(0, size, max(_SAMPLE, size // _SAMPLES)):
            file.seek(at)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


class KvStore:
    """The files of one model. `longest`, `load` and `save` belong to one thread, the engine's."""

    def __init__(self, folder: Path, fingerprint: str, *, budget_bytes: int) -> None:
        """Open the folder, making it if need be.

        Args:
            folder: where the files are.
            fingerprint: what a state depends on.
            budget_bytes: most bytes on disk.

        Raises:
            OSError: the folder cannot be made or read.
        """
        self._folder = folder
        self._fingerprint = fingerprint
        self._budget = budget_bytes
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._saved: dict[Path, Saved] = {saved.path: saved for saved in self._scan()}
        self._writes: queue.Queue[tuple[str | None, array[int], int, bytes | memoryview] | None] = queue.Queue()
        self._queued = 0
        self._queued_bytes = 0
        self._writer = threading.Thread(target=self._write_all, name="naila-kv-writer", daemon=True)
        self._writer.start()

    @property
    def bytes_used(self) -> int:
        """Bytes of all files."""
        with self._lock:
            return sum(saved.size for saved in self._saved.values())

    def longest(self, prompt: array[int], session: str | None, *, spare: int = 1) -> tuple[Saved | None, int]:
        """Return what begins with the longest part of a prompt, and how long that is.

        What is of the same conversation or shared by all counts; of the prompt all but its last `spare` tokens.
        """
        with self._lock:
            mine = [saved for saved in self._saved.values() if saved.session in {None, session}]
        ranked = [(common_prefix(saved.tokens, prompt, len(prompt) - spare), saved) for saved in mine]
        common, best = max(ranked, key=lambda pair: pair[0], default=(0, None))
        return (best, common) if common else (None, 0)

    def load(self, saved: Saved) -> memoryview | None:
        """Read a state back; None, and the file is gone, where it is damaged."""
        try:
            # A state may have hundreds of megabytes: it is read once and never copied.
            data = memoryview(bytearray(saved.path.stat().st_size))
            with saved.path.open("rb") as file:
                file.readinto(data)
            header, crc, start = _header(bytes(data[: len(_MAGIC) + 4 + _MAX_HEADER]))
            state = data[start + 4 * header.tokens :]
            whole = len(state) == header.size and header.checksum(data[start:]) == crc
        except Exception as exc:  # noqa: BLE001 - whatever is in the file
            _log.warning("the saved KV in %s cannot be read: %s", saved.path.name, exc)
            whole = False
        if not whole:
            self._remove([saved])
            return None
        with contextlib.suppress(OSError):
            os.utime(saved.path)
        return state

    def has_room(self, size: int) -> bool:
        """Tell whether the writer would take a state of so many bytes now. Whatever its size, it takes one."""
        with self._lock:
            return not self._queued or (self._queued < _MAX_QUEUED and self._queued_bytes + size <= _MAX_QUEUED_BYTES)

    def save(self, session: str | None, tokens: array[int], public: int, state: bytes | memoryview) -> bool:
        """Have a state written, soon; False where the writer has too much to do: then it is not kept."""
        if not self.has_room(len(state)):
            return False
        with self._lock:
            self._queued += 1
            self._queued_bytes += len(state)
        self._writes.put((session, array("i", tokens), public, state))
        return True

    def forget(self, session: str) -> None:
        """Remove what is kept of a conversation; of a whole device where the name ends in `/`."""
        self.flush()
        with self._lock:
            gone = [saved for saved in self._saved.values() if belongs(saved.session, session)]
        self._remove(gone)

    def flush(self) -> None:
        """Wait until everything has been written."""
        self._writes.join()

    def close(self) -> None:
        """Write what waits and stop."""
        self._writes.put(None)
        self._writer.join()

    def _write_all(self) -> None:
        while (item := self._writes.get()) is not None:
            try:
                self._write(*item)
            except Exception as exc:  # noqa: BLE001 - the next one may be written
                _log.warning("KV cannot be kept in %s: %s", self._folder, exc)
            finally:
                with self._lock:
                    self._queued -= 1
                    self._queued_bytes -= len(item[3])
                self._writes.task_done()
        self._writes.task_done()

    def _write(self, session: str | None, tokens: array[int], public: int, state: bytes | memoryview) -> None:
        fields = _Header(self._fingerprint, session, len(tokens), public, len(state))
        words = tokens.tobytes()
        header = json.dumps({**asdict(fields), "crc32": fields.checksum(words, state)}).encode()
        path = self._folder / f"{secrets.token_hex(8)}{_SUFFIX}"
        part = path.with_suffix(".part")
        part.touch(mode=0o600, exist_ok=False)
        try:
            with part.open("wb") as file:
                file.writelines((_MAGIC, len(header).to_bytes(4, "little"), header, words, state))
                size = file.tell()
                file.flush()
                os.fsync(file.fileno())  # else a power cut could leave a finished name on an unfinished file
            part.rename(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        saved = Saved(path, session, tokens, public, size)
        with self._lock:
            # What a longer state of the same conversation contains need not be kept.
            older = [
                other
                for other in self._saved.values()
                if other.session == session
                and (session is not None or common_prefix(other.tokens, tokens, len(tokens)) == len(other.tokens))
            ]
            self._saved[path] = saved
        self._remove(older)
        self._remove(self._beyond_budget())

    def _beyond_budget(self) -> list[Saved]:
        with self._lock:
            newest_first = sorted(self._saved.values(), key=lambda saved: _used_at(saved.path), reverse=True)
        total, gone = 0, []
        for saved in newest_first:
            total += saved.size
            if total > self._budget:
                gone.append(saved)
        return gone

    def _remove(self, gone: list[Saved]) -> None:
        for saved in gone:
            with self._lock:
                self._saved.pop(saved.path, None)
            with contextlib.suppress(OSError):
                saved.path.unlink(missing_ok=True)

    def _scan(self) -> Iterator[Saved]:
        """Look at what is there; remove what is of no use."""
        for path in list(self._folder.iterdir()):
            try:
                saved = self._look_at(path)
            except Exception as exc:  # noqa: BLE001 - whatever is in the file
                _log.info("removing %s: %s", path.name, exc)
                with contextlib.suppress(OSError):
                    path.unlink()
            else:
                yield saved

    def _look_at(self, path: Path) -> Saved:
        if path.suffix != _SUFFIX:
            raise ValueError("not a finished file")
        with path.open("rb") as file:
            header, _, start = _header(file.read(len(_MAGIC) + 4 + _MAX_HEADER))
            if header.fingerprint != self._fingerprint:
                raise ValueError("of another model, context or version")
            size = path.stat().st_size
            if size != start + 4 * header.tokens + header.size:
                raise ValueError("truncated")
            file.seek(start)
            tokens = array("i")
            tokens.fromfile(file, header.tokens)
        return Saved(path, header.session, tokens, header.public, size)


def _header(data: bytes) -> tuple[_Header, int, int]:
    """Return the header, the checksum that it gives, and where it ends."""
    start = len(_MAGIC) + 4
    if data[: len(_MAGIC)] != _MAGIC:
        raise ValueError("not a KV file")
    size = int.from_bytes(data[len(_MAGIC) : start], "little")
    if size > _MAX_HEADER:
        raise ValueError("header too long")
    values: dict[str, Any] = json.loads(data[start : start + size])
    crc = values.pop("crc32")
    header = _Header(**values)
    numbers = (header.tokens, header.public, header.size, crc)
    if not all(type(number) is int and number >= 0 for number in numbers) or header.public > header.tokens:
        raise ValueError("a number in the header is none")
    if not isinstance(header.fingerprint, str) or not isinstance(header.session, str | None):
        raise ValueError("a name in the header is none")  # noqa: TRY004
    return header, crc, start + size


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
