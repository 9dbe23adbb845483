"""Lines that survive their writer."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from naila.server.ring import Ring, read_ring

SOURCE = Path(__file__).parents[2] / "ai-server"


def test_what_was_written_is_read_oldest_first(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "deep" / "ring", slots=8)
    for line in ("one", "zwei \U0001f916", "three"):
        ring.append(line)
    assert read_ring(ring.path) == ["one", "zwei \U0001f916", "three"]
    assert stat.S_IMODE(ring.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(ring.path.parent.stat().st_mode) == 0o700


def test_only_the_last_ones_are_kept_and_the_file_does_not_grow(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", slots=8, slot_bytes=64)
    for number in range(100):
        ring.append(f"line {number}")
    assert read_ring(ring.path, slot_bytes=64) == [f"line {number}" for number in range(92, 100)]
    assert ring.path.stat().st_size == 8 * 64


def test_a_restart_goes_on_behind_the_last_line(tmp_path: Path) -> None:
    for number in range(5):
        ring = Ring(tmp_path / "ring", slots=4)
        ring.append(f"life {number}")
        ring.close()
    assert read_ring(tmp_path / "ring") == [f"life {number}" for number in range(1, 5)]


def test_a_long_line_takes_several_slots_and_comes_back_whole(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", slots=32, slot_bytes=64)
    ring.append("before")
    ring.append("x" * 300)
    ring.append("after")
    assert read_ring(ring.path, slot_bytes=64) == ["before", "x" * 300, "after"]
    ring.append("y" * 100_000)
    assert read_ring(ring.path, slot_bytes=64)[-1] == "y" * ((64 - 19) * 16)


def test_a_line_whose_beginning_was_written_over_is_left_out(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", slots=4, slot_bytes=64)
    ring.append("x" * 130)
    ring.append("a")
    ring.append("b")
    assert read_ring(ring.path, slot_bytes=64) == ["a", "b"]


def test_the_last_line_can_be_replaced(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", slots=4)
    ring.append("first")
    for times in range(10):
        ring.replace_last(f"refused {times} times")
    assert read_ring(ring.path) == ["refused 9 times"]


def test_a_file_of_another_layout_or_of_rubbish_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    path.write_bytes(os.urandom(50_000))
    ring = Ring(path, slots=4)
    ring.append("mine")
    assert read_ring(path) == ["mine"]


def test_a_disk_that_refuses_costs_the_line_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("no folder")
    ring = Ring(place / "ring", slots=4)
    ring.append("lost")
    place.unlink()
    ring.append("kept")
    assert read_ring(ring.path) == ["kept"]


def test_a_full_disk_costs_the_line_and_nothing_else() -> None:
    ring = Ring(Path("/dev/full"), slots=4)
    ring.append("lost")
    ring.close()


def test_there_is_nothing_to_read_without_a_file(tmp_path: Path) -> None:
    assert read_ring(tmp_path / "ring") == []


def test_kill_9_loses_no_line(tmp_path: Path) -> None:
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(SOURCE)!r}); from pathlib import Path;"
        "from naila.server.ring import Ring; ring = Ring(Path(sys.argv[1]), slots=16);"
        "[ring.append(f'line {number}') for number in range(10)]; os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "ring")], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_ring(tmp_path / "ring") == [f"line {number}" for number in range(10)]


@given(st.binary(max_size=2048))
def test_whatever_a_file_holds_reading_it_does_not_fail(data: bytes) -> None:
    path = Path("/dev/shm") / f"naila-ring-{os.getpid()}"  # noqa: S108 - one small file, written often
    try:
        path.write_bytes(data)
        assert all(isinstance(line, str) for line in read_ring(path, slot_bytes=64))
    finally:
        path.unlink()
