"""What was hashed before, so that a file of many gigabytes is hashed once and not at every start."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

_log = logging.getLogger(__name__)

FILE_NAME = ".verified.json"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells a file from a changed one without reading it.

    Attributes:
        size: bytes.
        mtime_ns: when it was last written.
        inode: which file of the file system it is.
    """

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Return what the file is now."""
        status = path.stat()
        return cls(size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino)


class VerifiedFiles:
    """The SHA-256 of files as they were when they were hashed.

    Kept in `.verified.json` beside the model file, or in a folder of the daemon's own where that one is read-only.
    It saves work and proves nothing: who can write there can write the models too.
    """

    def __init__(self, fallback_dir: Path) -> None:
        self._fallback_dir = fallback_dir

    def known(self, path: Path, stamp: Stamp) -> str | None:
        """Return the SHA-256 of the file, if it was hashed in exactly this state."""
        for store in (path.parent / FILE_NAME, self._fallback_dir / FILE_NAME):
            record = _read(store).get(path.name)
            if isinstance(record, dict):
                sha256 = record.get("sha256")
                if isinstance(sha256, str) and record == {**asdict(stamp), "sha256": sha256}:
                    return sha256
        return None

    def note(self, path: Path, stamp: Stamp, sha256: str) -> None:
        """Keep the SHA-256 of a file; where nothing can be written it is logged, and hashed again next time."""
        record = {**asdict(stamp), "sha256": sha256}
        for folder in (path.parent, self._fallback_dir):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _write(folder / FILE_NAME, {**_read(folder / FILE_NAME), path.name: record})
            except OSError as exc:
                _log.debug("%s cannot be written: %s", folder / FILE_NAME, exc)
            else:
                return
        _log.warning("that %s is whole could not be noted: it will be read again at the next start", path)


def _read(store: Path) -> dict[str, object]:
    try:
        document = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _write(store: Path, document: dict[str, object]) -> None:
    descriptor, name = tempfile.mkstemp(dir=store.parent, prefix=FILE_NAME)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)  # who may read the models may read this: the daemon has its own user
            json.dump(document, file, indent=1, sort_keys=True)
        temporary.replace(store)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
