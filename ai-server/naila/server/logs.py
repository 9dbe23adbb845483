"""Log lines: one for people, or one JSON object each; `device_id` and `request_id` are shown where a line has them.

A line belongs to the request that its code works for (`naila.turn_ids`), or to the one that it names itself. Secrets
stand in none.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

from naila.server.redaction import Redaction
from naila.server.ring import Ring
from naila.turn_ids import current_turn

_IDS: Final = ("device_id", "request_id")


class _TextFormatter(logging.Formatter):
    def __init__(self, redact: Redaction) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        line = self._redact(super().format(record))
        ids = " ".join(f"{name}={value}" for name in _IDS if (value := getattr(record, name, None)))
        if not ids:
            return line
        head, newline, rest = line.partition("\n")
        return f"{head} [{ids}]{newline}{rest}"


class _JsonFormatter(logging.Formatter):
    def __init__(self, redact: Redaction) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact(record.getMessage()),
        }
        fields |= {name: str(value) for name in _IDS if (value := getattr(record, name, None))}
        if record.exc_info:
            fields["exception"] = self._redact(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False)


class _Whose(logging.Filter):
    """Gives a record the ids of the turn that it was made in, where it names none."""

    def filter(self, record: logging.LogRecord) -> bool:
        turn = current_turn()
        if turn is not None and not any(hasattr(record, name) for name in _IDS):
            record.device_id, record.request_id = turn.device_id, turn.request_id
        return True


class _Kept(logging.Handler):
    """Keeps the last lines in a ring."""

    def __init__(self, ring: Ring) -> None:
        super().__init__(logging.INFO)
        self._ring = ring

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._ring.append(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler of logging's own
            self.handleError(record)

    def close(self) -> None:
        self._ring.close()
        super().close()


def configure(
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    layout: Literal["text", "json"],
    stream: TextIO = sys.stderr,
    *,
    secrets: Iterable[str] = (),
    keep: Ring | None = None,
) -> None:
    """Send the whole process's logs to `stream`; other people's libraries only from WARNING on, unless debugging.

    Args:
        level: how much.
        layout: a line for people, or a JSON object.
        stream: where to.
        secrets: what must stand in no line.
        keep: keeps the last lines from INFO on.
    """
    redact = Redaction(secrets)
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    handlers[0].setFormatter(_JsonFormatter(redact) if layout == "json" else _TextFormatter(redact))
    if keep is not None:
        handlers.append(_Kept(keep))
        handlers[1].setFormatter(_JsonFormatter(redact))
    for handler in handlers:
        handler.addFilter(_Whose())
    logging.basicConfig(level="WARNING" if level == "INFO" else level, handlers=handlers, force=True)
    logging.getLogger("naila").setLevel(level)
    # llama.cpp speaks of every tensor: only where somebody looks for exactly that.
    logging.getLogger("naila.llama_cpp").setLevel("DEBUG" if level == "DEBUG" else "ERROR")
    logging.captureWarnings(capture=True)
