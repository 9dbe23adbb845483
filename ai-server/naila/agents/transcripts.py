"""Transcripts that still grow: the model reads what was said so far, so that little is left to read at the end."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from naila.events import Intent

MAX_READERS: Final = 32


class Reader(Protocol):
    """Whoever reads: the orchestrator."""

    async def read_in(self, intent: Intent) -> None:
        """Read in what the turn of a growing transcript will begin with. Does not raise."""
        ...


class Transcripts:
    """Has one transcript of each device read in at a time, then the newest that came meanwhile.

    Those in between are skipped, since the newest begins with them. At most `MAX_READERS` devices are read in at once;
    at that bound a further device's transcript is dropped: its next one comes soon, and nothing depends on it.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._newest: dict[str, Intent] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}

    def grow(self, intent: Intent, group: asyncio.TaskGroup) -> None:
        """Take the newest transcript of a device."""
        device_id = intent.device_id
        if device_id not in self._readers:
            if len(self._readers) >= MAX_READERS:
                return
            self._readers[device_id] = group.create_task(self._read(device_id), name=f"transcript of {device_id}")
        self._newest[device_id] = intent

    def end(self, device_id: str) -> None:
        """Give up a device's transcript: it is complete."""
        self._newest.pop(device_id, None)
        if task := self._readers.pop(device_id, None):
            task.cancel()

    def close(self) -> None:
        """Give up all of them."""
        for device_id in list(self._readers):
            self.end(device_id)

    async def _read(self, device_id: str) -> None:
        try:
            while (intent := self._newest.pop(device_id, None)) is not None:
                await self._reader.read_in(intent)
        finally:
            if self._readers.get(device_id) is asyncio.current_task():
                del self._readers[device_id]
