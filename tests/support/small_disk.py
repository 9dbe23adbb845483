"""A disk of its own that can be filled, in memory: a tmpfs. Mounting needs root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

SIZE = 8 << 20
PIECE = 4096


class SmallDisk:
    """Mounted while its `with` block lasts.

    Args:
        folder: where; made if missing.

    Raises:
        PermissionError: nothing can be mounted here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        options = f"size={SIZE},nr_inodes=64,mode=0755"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "naila-test", str(self.folder)], capture_output=True, check=False
        )
        if mounted.returncode:
            raise PermissionError(mounted.stderr.decode(errors="replace").strip())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.make_writable()
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False)

    def fill(self, leave: int = 0) -> None:
        """Fill it up to so many bytes."""
        state = os.statvfs(self.folder)
        with self._ballast.open("ab", buffering=0) as ballast:
            for _ in range((state.f_bavail * state.f_frsize - leave) // PIECE):
                try:
                    ballast.write(bytes(PIECE))
                except OSError:
                    return

    def use_up_inodes(self) -> None:
        """Make empty files until there is no more."""
        for number in range(1000):
            try:
                (self.folder / f"ballast-{number}").touch()
            except OSError:
                return

    def free(self) -> None:
        """Undo both."""
        for file in self.folder.glob("ballast*"):
            file.unlink()

    def make_read_only(self) -> bool:
        """Let nobody write; returns whether that worked."""
        return not subprocess.run(
            ["mount", "-o", "remount,ro", str(self.folder)], capture_output=True, check=False
        ).returncode

    def make_writable(self) -> None:
        """Undo it."""
        subprocess.run(["mount", "-o", "remount,rw", str(self.folder)], capture_output=True, check=False)
