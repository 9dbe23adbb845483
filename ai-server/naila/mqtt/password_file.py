"""Mosquitto's password file: a line for each user, `name:$7$iterations$salt$hash`, as mosquitto_passwd writes it."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from naila.errors import StorageError

# mosquitto_passwd's own figures. So few iterations would not protect a word that a person chose; they do protect
# `new_password`, which nobody can guess however fast a guess is, and cost a small broker little when a fleet connects.
ITERATIONS: Final = 101
_SALT_BYTES: Final = 12  # Mosquitto refuses any other length
_HASH_BYTES: Final = 64

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PASSWORD_LENGTH: Final = 32

_NEW_MODE: Final = 0o600
_WIDEST_MODE: Final = 0o640


def new_password() -> str:
    """Return a random password of 190 bits, of letters and digits only: it needs no quotes anywhere."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_PASSWORD_LENGTH))


def password_hash(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """Return what stands behind the colon: PBKDF2 with HMAC-SHA-512."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations, _HASH_BYTES)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


class PasswordFile:
    """The file that `password_file` in mosquitto.conf names.

    It is replaced as a whole, so that the broker never reads half of it; other lines stay as they are. A new one is
    its owner's only (0600). One that is there keeps its owner, group and mode, which let the broker read it, but others
    lose what rights they had. Two processes that write do so one after the other.

    Args:
        path: where it is; a symbolic link is followed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def add(self, user: str, password: str, *, replace: bool = False) -> bool:
        """Write a user's password; return False, and change nothing, where there is one and `replace` is not set.

        Raises:
            StorageError: the file cannot be read or written.
        """
        entry = f"{user}:{password_hash(password, secrets.token_bytes(_SALT_BYTES))}\n".encode()
        with self._told(), self._locked():
            lines = self._lines()
            others = [line for line in lines if _user(line) != user.encode()]
            if len(others) < len(lines) and not replace:
                return False
            self._write([*others, entry])
        return True

    def remove(self, user: str) -> bool:
        """Remove a user; return whether there was one.

        Raises:
            StorageError: the file cannot be read or written.
        """
        with self._told(), self._locked():
            lines = self._lines()
            others = [line for line in lines if _user(line) != user.encode()]
            if len(others) < len(lines):
                self._write(others)
        return len(others) < len(lines)

    def _lines(self) -> list[bytes]:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return [line + b"\n" for line in text.removesuffix(b"\n").split(b"\n")] if text else []

    def _write(self, lines: list[bytes]) -> None:
        number, name = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)  # made with 0600
        new = Path(name)
        try:
            with os.fdopen(number, "wb") as file:
                file.writelines(lines)
                self._keep_rights(file.fileno())
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self._sync_folder()

    def _keep_rights(self, number: int) -> None:
        try:
            old = self.path.stat()
        except FileNotFoundError:
            os.fchmod(number, _NEW_MODE)
            return
        new = os.fstat(number)
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            os.fchown(number, old.st_uid, old.st_gid)
        os.fchmod(number, old.st_mode & _WIDEST_MODE)

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder: the file itself is replaced, so a lock on it would be on what is gone."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as exc:
            raise StorageError(
                f"{self.path}: the password file cannot be used ({exc.strerror}): do this as its owner, or with sudo"
            ) from exc
        except OSError as exc:
            raise StorageError(f"{self.path}: the password file cannot be used: {exc.strerror}") from exc


def _user(line: bytes) -> bytes | None:
    """Return whose line it is; None for a comment, or for what Mosquitto passes over."""
    name, colon, _ = line.partition(b":")
    return name.strip() if colon and not line.startswith(b"#") else None
