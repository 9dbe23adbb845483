"""Log lines: one for people, or one JSON object each. A record's `device_id` and `request_id` are shown where given."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

_IDS: Final = ("device_id", "request_id")


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        ids = " ".join(f"{name}={value}" for name in _IDS if (value := getattr(record, name, None)))
        if not ids:
            return line
        head, newline, rest = line.partition("\n")
        return f"{head} [{ids}]{newline}{rest}"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: str(value) for name in _IDS if (value := getattr(record, name, None))}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def configure(
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"], layout: Literal["text", "json"], stream: TextIO = sys.stderr
) -> None:
    """Send the whole process's logs to `stream`; other people's libraries only from WARNING on, unless debugging."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter() if layout == "json" else _TextFormatter())
    logging.basicConfig(level="WARNING" if level == "INFO" else level, handlers=[handler], force=True)
    logging.getLogger("naila").setLevel(level)
    # llama.cpp speaks of every tensor: only where somebody looks for exactly that.
    logging.getLogger("naila.llama_cpp").setLevel("DEBUG" if level == "DEBUG" else "ERROR")
    logging.captureWarnings(capture=True)
