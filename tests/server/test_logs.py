"""Log lines, for people and for machines."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from naila.server import logs

log = logging.getLogger("naila.test")


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    named = [logging.getLogger(name) for name in ("naila", "naila.llama_cpp")]
    handlers, levels = list(root.handlers), [(logger, logger.level) for logger in (root, *named)]
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    for logger, level in levels:
        logger.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n") if line]


def test_json_lines_parse_whatever_is_said() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "json", stream)
    log.info('he said "%s"', "a\nb\u2028 \U0001f916", extra={"device_id": "r2", "request_id": "q1"})
    log.warning("plain")
    first, second = lines(stream)
    assert first["message"] == 'he said "a\nb\u2028 \U0001f916"'
    assert (first["level"], first["logger"]) == ("info", "naila.test")
    assert (first["device_id"], first["request_id"]) == ("r2", "q1")
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert set(second) == {"time", "level", "logger", "message"}


def test_a_json_line_carries_the_exception() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "json", stream)
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        log.exception("it failed")
    (line,) = lines(stream)
    assert "ValueError: bad\nnews" in line["exception"]


def test_a_text_line_shows_the_ids_before_the_traceback() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "text", stream)
    try:
        raise ValueError("bad news")
    except ValueError:
        log.exception("it failed", extra={"device_id": "r2", "request_id": "q1"})
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR   naila.test: it failed [device_id=r2 request_id=q1]")
    assert rest[0].startswith("Traceback")


def test_a_text_line_without_ids_is_plain() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "text", stream)
    log.info("all is %s", "well")
    assert stream.getvalue().endswith("INFO    naila.test: all is well\n")


def test_others_speak_from_warning_on_unless_debugging() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "text", stream)
    logging.getLogger("other").info("chatter")
    log.debug("detail")
    logging.getLogger("naila.llama_cpp").warning("a tensor")
    assert stream.getvalue() == ""
    logging.getLogger("other").warning("trouble")
    logs.configure("DEBUG", "text", stream)
    logging.getLogger("other").debug("chatter")
    log.debug("detail")
    assert [line.split(": ", 1)[1] for line in stream.getvalue().splitlines()] == ["trouble", "chatter", "detail"]


def test_errors_only_means_errors_only() -> None:
    stream = io.StringIO()
    logs.configure("ERROR", "text", stream)
    log.warning("trouble")
    logging.getLogger("other").warning("trouble")
    assert stream.getvalue() == ""


def test_a_warning_of_python_is_a_log_line() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "DeprecationWarning: old" in lines(stream)[0]["message"]
