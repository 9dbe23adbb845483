"""KV on disk: read back whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import tempfile
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naila.inference.kv_store import KvStore, forget_files
from naila.inference.prefix_cache import as_tokens

PRINT = "f" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KvStore]:
    made = KvStore(tmp_path / "kv", PRINT, budget_bytes=10_000)
    yield made
    made.close()


def keep(store: KvStore, session: str | None, tokens: array[int], state: bytes = b"state" * 20) -> None:
    assert store.save(session, tokens, 0, state)
    store.flush()


def reopened(store: KvStore, tmp_path: Path, fingerprint: str = PRINT) -> KvStore:
    store.flush()
    return KvStore(tmp_path / "kv", fingerprint, budget_bytes=10_000)


TOKENS = as_tokens(range(100))


def test_what_was_saved_is_read_back_after_a_restart(store: KvStore, tmp_path: Path) -> None:
    keep(store, "r2/default", TOKENS)
    again = reopened(store, tmp_path)
    saved, common = again.longest(as_tokens([*range(100), 7, 8]), "r2/default")
    assert saved is not None
    assert common == 100
    assert saved.tokens == TOKENS
    state = again.load(saved)
    assert state is not None
    assert bytes(state) == b"state" * 20
    again.close()


def test_another_conversation_is_not_read_but_a_shared_prefix_is(store: KvStore) -> None:
    keep(store, "r2/default", TOKENS)
    keep(store, None, as_tokens(range(40)))
    saved, common = store.longest(as_tokens(range(80)), "other/default")
    assert saved is not None
    assert (saved.session, common) == (None, 40)


def test_a_later_state_of_a_conversation_replaces_the_earlier(store: KvStore, tmp_path: Path) -> None:
    keep(store, "r2/default", as_tokens(range(50)))
    keep(store, "r2/default", TOKENS)
    assert len(list((tmp_path / "kv").iterdir())) == 1
    assert store.longest(TOKENS, "r2/default")[1] == 99


def test_the_least_recently_used_leave_when_the_budget_is_spent(store: KvStore, tmp_path: Path) -> None:
    for number in range(5):
        keep(store, f"r{number}/default", TOKENS, bytes(3000))
        newest = max((tmp_path / "kv").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    keep(store, "last/default", TOKENS, bytes(3000))
    assert store.bytes_used <= 10_000
    assert store.longest(TOKENS, "r0/default") == (None, 0)
    assert store.longest(TOKENS, "last/default")[1] == 99


def test_forgetting_removes_a_conversation_or_a_device(store: KvStore, tmp_path: Path) -> None:
    for session in ("r2/default", "r2/kitchen", "r20/default", "r3/default"):
        keep(store, session, TOKENS)
    store.forget("r2/kitchen")
    assert store.longest(TOKENS, "r2/kitchen") == (None, 0)
    store.forget("r2/")
    assert store.longest(TOKENS, "r2/default") == (None, 0)
    assert len(list((tmp_path / "kv").iterdir())) == 2


def test_only_the_daemons_user_can_read_it(store: KvStore, tmp_path: Path) -> None:
    keep(store, "r2/default", TOKENS)
    assert stat.S_IMODE((tmp_path / "kv").stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "kv").iterdir()] == [0o600]


@pytest.mark.parametrize("position", [0, 10, 200, 600, -1])
def test_a_damaged_file_is_ignored_and_removed(store: KvStore, tmp_path: Path, position: int) -> None:
    keep(store, "r2/default", TOKENS)
    (path,) = (tmp_path / "kv").iterdir()
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)
    again = reopened(store, tmp_path)
    saved, _ = again.longest(as_tokens([*range(100), 7]), "r2/default")
    assert saved is None or saved.tokens != TOKENS or again.load(saved) is None
    again.close()


def test_a_truncated_file_is_removed(store: KvStore, tmp_path: Path) -> None:
    keep(store, "r2/default", TOKENS)
    (path,) = (tmp_path / "kv").iterdir()
    os.truncate(path, path.stat().st_size - 1)
    again = reopened(store, tmp_path)
    assert again.longest(TOKENS, "r2/default") == (None, 0)
    assert not path.exists()
    again.close()


@pytest.mark.parametrize("size", [0, 5, 8, 11, 12, 40, "header", "piece", "token", "tokens", "state"])
def test_a_file_cut_off_anywhere_is_removed(store: KvStore, tmp_path: Path, size: int | str) -> None:
    keep(store, "r2/default", TOKENS)
    (path,) = (tmp_path / "kv").iterdir()
    header_end = 12 + int.from_bytes(path.read_bytes()[8:12], "little")
    into = {"header": 0, "piece": 41, "token": 40, "tokens": 400, "state": 410}
    os.truncate(path, header_end + into[size] if isinstance(size, str) else size)
    again = reopened(store, tmp_path)
    assert again.longest(TOKENS, "r2/default") == (None, 0)
    assert not path.exists()
    again.close()


def with_header(**changes: object) -> bytes:
    """Return a file with a header that says what no store would write."""
    fields = {"fingerprint": PRINT, "session": "a/1", "tokens": 2, "public": 1, "size": 4, "crc32": 1, **changes}
    header = json.dumps({name: value for name, value in fields.items() if value != "missing"}).encode()
    return b"NAILAKV2" + len(header).to_bytes(4, "little") + header + bytes(12)


def opens(data: bytes) -> bool:
    """Tell whether a store takes a file with these bytes for a saved conversation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x" / "any.kv"
        path.parent.mkdir()
        path.write_bytes(data)
        store = KvStore(path.parent, PRINT, budget_bytes=10_000)
        saved, _ = store.longest(as_tokens([0, 0, 0]), "a/1")
        assert path.exists() or saved is None
        if saved is not None:
            store.load(saved)
        store.close()
        forget_files(Path(folder), "a/1")
        return saved is not None


def test_a_header_with_the_right_types_is_taken() -> None:
    assert opens(with_header())


@pytest.mark.parametrize(
    "changes",
    [
        {"session": 5},
        {"session": ["a/1"]},
        {"tokens": "2"},
        {"tokens": 2.0},
        {"tokens": True},
        {"tokens": -1, "size": 16},
        {"public": 3},
        {"public": -1},
        {"public": "missing"},
        {"size": -4, "tokens": 4},
        {"crc32": None},
        {"crc32": "missing"},
        {"size": "missing"},
        {"fingerprint": 1},
        {"more": 1},
    ],
)
def test_a_header_with_anything_else_is_refused(changes: dict[str, object]) -> None:
    assert not opens(with_header(**changes))


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_no_bytes_keep_a_store_from_opening(data: bytes) -> None:
    assert not opens(data)


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_no_header_keeps_a_store_from_opening(header: bytes) -> None:
    assert not opens(b"NAILAKV2" + len(header).to_bytes(4, "little") + header)


def test_no_nesting_keeps_a_store_from_opening() -> None:
    assert not opens(b"NAILAKV2" + (65_000).to_bytes(4, "little") + b"[" * 65_000)


def test_a_file_given_to_another_conversation_is_not_read(store: KvStore, tmp_path: Path) -> None:
    keep(store, "r2/default", TOKENS)
    (path,) = (tmp_path / "kv").iterdir()
    path.write_bytes(path.read_bytes().replace(b"r2/default", b"r3/default"))
    again = reopened(store, tmp_path)
    saved, _ = again.longest(TOKENS, "r3/default")
    assert saved is not None
    assert again.load(saved) is None
    again.close()


class SlowStore(KvStore):
    """Writes nothing until it may."""

    may_write = threading.Event()

    def _write(self, session: str | None, tokens: array[int], public: int, state: bytes | memoryview) -> None:
        assert self.may_write.wait(30)
        super()._write(session, tokens, public, state)


def test_a_burst_is_taken_until_the_writer_has_too_many_bytes_to_write(tmp_path: Path) -> None:
    SlowStore.may_write.clear()
    store = SlowStore(tmp_path / "slow", PRINT, budget_bytes=2**40)
    for number in range(40):
        assert store.has_room(100)
        assert store.save(f"r{number}/1", TOKENS, 0, bytes(100))
    assert not store.has_room(2**28)
    for number in range(40, 64):
        assert store.save(f"r{number}/1", TOKENS, 0, bytes(100))
    assert not store.has_room(100)
    assert not store.save("late/1", TOKENS, 0, bytes(100))
    SlowStore.may_write.set()
    store.flush()
    assert store.has_room(2**30)  # whatever its size, one fits
    assert len(list((tmp_path / "slow").iterdir())) == 64
    store.close()


def test_a_write_that_fails_leaves_nothing_behind(
    store: KvStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        keep(store, "r2/default", TOKENS)
    assert list((tmp_path / "kv").iterdir()) == []
    keep(store, "r2/default", TOKENS)
    assert store.longest(TOKENS, "r2/default")[1] == 99


def test_the_file_of_another_model_is_removed(store: KvStore, tmp_path: Path) -> None:
    keep(store, "r2/default", TOKENS)
    again = reopened(store, tmp_path, fingerprint="0" * 64)
    assert again.longest(TOKENS, "r2/default") == (None, 0)
    assert list((tmp_path / "kv").iterdir()) == []
    again.close()


def test_an_unfinished_write_is_removed(store: KvStore, tmp_path: Path) -> None:
    (tmp_path / "kv" / "abc.part").write_bytes(b"half")
    again = reopened(store, tmp_path)
    assert list((tmp_path / "kv").iterdir()) == []
    again.close()
