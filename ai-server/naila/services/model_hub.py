"""The model hub: the only importer of huggingface_hub, which comes with the extra `hub`.

The library says where a file is, how large it is and what its SHA-256 is, and brings credentials and proxies; the
bytes are read here, so that a broken download goes on where it broke and nothing is believed that was not hashed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import get_hf_file_metadata, hf_hub_url

# The library re-exports these without saying so; HTTPError is httpx's or httpx2's, whichever this version uses.
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from naila.config.catalogue import HubSource
from naila.errors import DownloadError
from naila.services.model_files import Progress

TIMEOUT_S = 30.0
ATTEMPTS = 5
SHA256 = re.compile(r"[0-9a-f]{64}")
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the hub.

    Attributes:
        url: where it can be read.
        size: bytes.
        sha256: SHA-256 in hex, as the hub states it.
    """

    url: str
    size: int
    sha256: str


class _BrokenOffError(Exception):
    """The connection failed in a way that trying again may help."""


def look_up(source: HubSource, file: str, *, endpoint: str | None = None, pause_s: float = 1.0) -> RemoteFile:
    """Ask the hub about a file.

    Raises:
        DownloadError: it has no such file, refuses us, states no SHA-256, or cannot be reached.
    """
    url = hf_hub_url(source.repository, file, revision=source.revision, endpoint=endpoint)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _errors_of(source, file):
                metadata = get_hf_file_metadata(url, timeout=TIMEOUT_S, endpoint=endpoint)
        except _BrokenOffError as exc:
            if attempt == ATTEMPTS:
                raise DownloadError(f"{url} cannot be reached: {exc}") from exc
            time.sleep(pause_s * attempt)
        else:
            break
    if metadata.size is None or not SHA256.fullmatch(metadata.etag or ""):
        raise DownloadError(f"{url}: the hub states no size and SHA-256, so the file could not be checked")
    return RemoteFile(url, metadata.size, str(metadata.etag))


def read_into(part: Path, remote: RemoteFile, source: HubSource, *, progress: Progress, pause_s: float = 1.0) -> None:
    """Append to `part` what it lacks of the remote file, going on where an earlier attempt broke off.

    Raises:
        DownloadError: the hub refuses, or the connection breaks ATTEMPTS times without a byte between.
    """
    failures = 0
    while (before := _size(part)) < remote.size:
        progress(before, remote.size)
        try:
            with _errors_of(source, part.name), part.open("ab") as file:
                _read_once(file, remote, progress)
        except _BrokenOffError as exc:
            failures = 1 if _size(part) > before else failures + 1
            if failures == ATTEMPTS:
                done = f"{_size(part)} of {remote.size} bytes are here"
                raise DownloadError(f"{remote.url} broke off: {exc}. {done}; run it again to go on from there") from exc
            time.sleep(pause_s * failures)


def _read_once(file: BinaryIO, remote: RemoteFile, progress: Progress) -> None:
    start = file.tell()
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream("GET", remote.url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as response:
        hf_raise_for_status(response)
        content_range = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        resumed = response.status_code == 206 and content_range is not None and int(content_range[1]) == start
        if start and not resumed:
            file.seek(0)
            file.truncate()
        for chunk in response.iter_bytes():
            if file.tell() + len(chunk) > remote.size:
                file.truncate(0)
                raise DownloadError(f"{remote.url} sends more than the {remote.size} bytes that it announced")
            file.write(chunk)
            progress(file.tell(), remote.size)
    if file.tell() < remote.size:
        raise _BrokenOffError(f"it ended after {file.tell()} bytes")


@contextmanager
def _errors_of(source: HubSource, file: str) -> Iterator[None]:
    """Turn the library's errors into ours: those that trying again may help, and those that it does not."""
    try:
        yield
    except GatedRepoError as exc:
        raise DownloadError(
            f"{source.repository} is gated: accept its licence on the hub's page of that repository, then {LOGIN}"
        ) from exc
    except (RepositoryNotFoundError, RevisionNotFoundError) as exc:
        raise DownloadError(
            f"the hub has no repository {source.repository} (revision {source.revision}), or it is private; "
            f"if it is yours, {LOGIN}"
        ) from exc
    except EntryNotFoundError as exc:
        raise DownloadError(f"the hub's repository {source.repository} has no file {file}") from exc
    except OfflineModeIsEnabled as exc:
        raise DownloadError("HF_HUB_OFFLINE is set, so nothing is fetched from the hub") from exc
    except HfHubHTTPError as exc:
        status = exc.response.status_code
        if status in {401, 403}:
            raise DownloadError(f"the hub refuses {source.repository} to us ({status}): {LOGIN}") from exc
        if status >= 500 or status in {408, 416, 429}:
            raise _BrokenOffError(f"the hub answers {status}") from exc
        raise DownloadError(f"the hub answers {status} for {source.repository}: {exc}") from exc
    except HTTPError as exc:
        raise _BrokenOffError(str(exc) or type(exc).__name__) from exc


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
