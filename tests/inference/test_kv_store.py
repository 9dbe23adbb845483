"""KV on disk: read back whole or not at all."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from naila.inference.kv_store import KvStore
from naila.inference.prefix_cache import as_tokens

PRINT = "f" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KvStore]:
    made = KvStore(tmp_path / "kv", PRINT, budget_bytes=10_000)
    yield made
    made.close()


def keep(store: KvStore, session: str | None, tokens: array[int], state: bytes = b"state" * 20) -> None:
    assert store.save(session, tokens, state)
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
    assert again.load(saved) == b"state" * 20
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
