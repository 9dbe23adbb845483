"""One file about a brain in trouble that a person can send: `naila doctor --report`.

Settings without secrets, hardware, plan, findings, versions, the flight record, the last log lines, and whether the
database is whole. What was said is in it only where RECORD_WORDS was set.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import naila
from naila.config.settings import Settings, variable
from naila.errors import ModelError, StorageError
from naila.memory.database import Database
from naila.server.flight_record import flight_folder, read_record
from naila.server.model_source import ModelSource
from naila.server.redaction import Redaction

_MOST_COMPLAINTS = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at one place.

    Attributes:
        name: the place.
        status: `ok`, `warn` (works, could be better) or `fail` (mend this).
        detail: what was found.
        fix: what to do about it.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str | None = None


async def write_report(path: Path, settings: Settings, findings: Sequence[Finding]) -> None:
    """Write the file, readable for its owner only.

    Raises:
        OSError: it cannot be written.
    """
    flight = _flight(settings)
    report = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "findings": [asdict(finding) for finding in findings],
        "settings": {variable(field): _plain(getattr(settings, field)) for field in Settings.model_fields},
        "machine": _machine(settings),
        "database": await _integrity(settings.memory_path),
        "last_health": _last_health(flight.get("brain", [])),
        **flight,
    }
    redact = Redaction(settings.secrets)
    text = json.dumps(_plain(report, redact), indent=1, ensure_ascii=False)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
        os.fchmod(descriptor, 0o600)  # it may have been there
        file.write(f"{text}\n")


def _versions() -> Mapping[str, object]:
    packages = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return {
        "naila": naila.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: str(item[0]).lower())),
    }


def _machine(settings: Settings) -> Mapping[str, object]:
    """Describe the hardware and how the model that would be served is run on it."""
    source = ModelSource.of(settings)
    described: dict[str, object] = {"hardware": _plain(source.hardware())}
    try:
        header = source.choose().header
        described |= {"model": _plain(header), "plan": _plain(source.plan(header))}
    except ModelError as exc:
        described["model"] = str(exc)
    return described


async def _integrity(path: Path) -> Mapping[str, object]:
    size = _size(path)
    if size is None:
        return {"path": str(path), "verdict": "there is none"}
    try:
        async with Database(path, move_corrupt=False) as database:
            verdicts = await database.read(
                lambda connection: connection.execute(f"PRAGMA integrity_check({_MOST_COMPLAINTS})").fetchall()
            )
    except StorageError as exc:
        return {"path": str(path), "verdict": str(exc)}
    return {"path": str(path), "bytes": size, "verdict": "; ".join(str(found[0]) for found in verdicts)}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def _flight(settings: Settings) -> Mapping[str, list[object]]:
    try:
        return {name: list(lines) for name, lines in read_record(flight_folder(settings.memory_path)).items()}
    except OSError as exc:
        return {"brain": [f"the flight record cannot be read: {exc}"]}


def _last_health(brain: Sequence[object]) -> object:
    healths = [line for line in brain if isinstance(line, dict) and line.get("kind") == "health"]
    return healths[-1] if healths else None


def _plain(value: object, redact: Callable[[str], str] = str) -> object:
    """Return what JSON can hold, without secrets; of anything else its own text."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value), redact)
    if isinstance(value, Mapping):
        return {redact(str(name)): _plain(each, redact) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, redact) for each in value]
    return value if value is None or isinstance(value, int | float) else redact(str(value))
