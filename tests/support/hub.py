"""A model hub on the loopback interface: HEAD and GET of `resolve`, with the faults that a real one has."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

RESOLVE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>[^/]+)")
REFUSALS: dict[str, tuple[int, str | None]] = {
    "gated": (401, "GatedRepo"),
    "private": (401, "RepoNotFound"),
    "refused": (403, None),
}
STORAGE = re.compile(r"/storage/(?P<repository>[^/]+/[^/]+)/(?P<file>[^/]+)")


@dataclass
class HubFile:
    """A file on the hub, and what goes wrong with it."""

    content: bytes
    sha256: str = ""
    access: Literal["open", "gated", "private", "refused"] = "open"
    sends: bytes | None = None
    drop_after: list[int] = field(default_factory=list)
    busy_for: int = 0
    ignores_range: bool = False
    on_storage: bool = False
    states_no_checksum: bool = False

    def __post_init__(self) -> None:
        self.sha256 = self.sha256 or hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Seen:
    """A request that the hub got."""

    method: str
    path: str
    range: str | None
    authorization: str | None


class Hub:
    """The hub: `files` by `owner/name` and file name, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], HubFile] = {}
        self.seen: list[Seen] = []
        self.endpoint = ""
        self.storage = ""

    def put(self, repository: str, name: str, file: HubFile) -> HubFile:
        self.files[repository, name] = file
        return file

    def ranges(self) -> list[str | None]:
        """Return the Range header of each GET of bytes."""
        return [seen.range for seen in self.seen if seen.method == "GET"]


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    with _serving(hub) as hub.endpoint, _serving(hub) as hub.storage:
        yield hub


@contextmanager
def _serving(hub: Hub) -> Iterator[str]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="hub")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the base class names it so
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        range_, authorization = self.headers.get("Range"), self.headers.get("Authorization")
        self.hub.seen.append(Seen(self.command, path, range_, authorization))
        on_storage = STORAGE.fullmatch(path)
        asked = on_storage or RESOLVE.fullmatch(path)
        if asked is None:
            self._refuse(404, "RepoNotFound")
            return
        repository, name = asked["repository"], asked["file"]
        file = self.hub.files.get((repository, name))
        if not any(known == repository for known, _ in self.hub.files):
            self._refuse(401, "RepoNotFound")
        elif file is None:
            self._refuse(404, "EntryNotFound")
        elif file.access != "open":
            self._refuse(*REFUSALS[file.access])
        elif file.busy_for:
            file.busy_for -= 1
            self._refuse(503, None)
        elif file.on_storage and not on_storage:
            self._redirect(file, f"{self.hub.storage}/storage/{repository}/{name}")
        elif self.command == "HEAD":
            self._metadata(file)
        else:
            self._body(file, range_)

    def _refuse(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _linked(self, file: HubFile) -> None:
        self.send_header("X-Repo-Commit", "0" * 40)
        if not file.states_no_checksum:
            self.send_header("X-Linked-Etag", f'"{file.sha256}"')
            self.send_header("X-Linked-Size", str(len(file.content)))

    def _redirect(self, file: HubFile, location: str) -> None:
        self.send_response(302)
        self._linked(file)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _metadata(self, file: HubFile) -> None:
        self.send_response(200)
        self._linked(file)
        self.send_header("ETag", '"of-the-pointer"')
        self.send_header("Content-Length", str(len(file.content)))
        self.end_headers()

    def _body(self, file: HubFile, range_: str | None) -> None:
        whole = file.content if file.sends is None else file.sends
        start = int(range_.removeprefix("bytes=").removesuffix("-")) if range_ and not file.ignores_range else 0
        body = whole[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if file.drop_after:
            self.wfile.write(body[: file.drop_after.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)
