"""Log lines, for people and for machines."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from naila.server import logs
from naila.server.flight_record import log_ring
from naila.server.ring import read_ring
from naila.turn_ids import working_for

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


async def test_every_line_of_a_turn_carries_its_ids() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "json", stream)

    async def turn(device_id: str) -> None:
        with working_for(device_id, f"q-{device_id}"):
            await asyncio.sleep(0)
            log.info("deep inside")
            await asyncio.to_thread(log.info, "in a thread")
            await asyncio.create_task(asyncio.sleep(0))
            log.info("of somebody else", extra={"device_id": "other", "request_id": "q9"})
        log.info("after it")

    await asyncio.gather(turn("r1"), turn("r2"))
    found = [(line["message"], line.get("device_id"), line.get("request_id")) for line in lines(stream)]
    for device in ("r1", "r2"):
        assert ("deep inside", device, f"q-{device}") in found
        assert ("in a thread", device, f"q-{device}") in found
    assert found.count(("of somebody else", "other", "q9")) == 2
    assert found.count(("after it", None, None)) == 2


@pytest.mark.parametrize("layout", ["text", "json"])
def test_a_secret_stands_in_no_line(layout: Any, tmp_path: Path) -> None:
    stream = io.StringIO()
    secret = 'p4ss"w\\rd\u00e9'  # noqa: S105 - no real one
    keep = log_ring(tmp_path)
    logs.configure("DEBUG", layout, stream, secrets=[secret], keep=keep)
    try:
        raise ValueError(f"cannot log in with {secret!r}")
    except ValueError:
        log.exception("it failed: %s", {"password": secret})
    log.info("plain %s, and json %s", secret, json.dumps(secret))
    written = stream.getvalue() + "\n".join(read_ring(keep.path))
    assert "***" in written
    assert "p4ss" not in written


def test_the_last_lines_from_info_on_are_kept(tmp_path: Path) -> None:
    keep = log_ring(tmp_path)
    logs.configure("DEBUG", "text", io.StringIO(), keep=keep)
    log.debug("what somebody said")
    with working_for("r2", "q1"):
        log.info("phase: running")
    logging.getLogger("other").warning("trouble")
    kept = [json.loads(line) for line in read_ring(keep.path)]
    assert [line["message"] for line in kept] == ["phase: running", "trouble"]
    assert kept[0]["request_id"] == "q1"
