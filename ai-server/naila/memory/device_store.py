"""Devices and what waits for a person's approval, in the database."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from naila.errors import StorageError
from naila.events import JsonValue
from naila.fleet import Pending, Sighting
from naila.kept import from_json, proposal_fields, proposal_from, to_json
from naila.memory.database import Database

_log = logging.getLogger(__name__)

MAX_SIGHTINGS: Final = 4096
SETTLED_KEPT: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDevice:
    """What is known on disk of one device.

    Attributes:
        device_id: which device.
        document: its capabilities; None where it declared nothing.
        sighting: when it was last heard; None where that was never kept.
    """

    device_id: str
    document: Mapping[str, JsonValue] | None
    sighting: Sighting | None


class SqliteDeviceStore:
    """`naila.ports.DeviceStore` and `naila.ports.SightingStore` in SQLite.

    Args:
        database: an open database.
        now: the time.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database: Final = database
        self._now: Final = now

    async def load_devices(self) -> Mapping[str, Mapping[str, JsonValue]]:
        """Return the capabilities documents as they were kept, by device id, the oldest declaration first.

        Raises:
            StorageError: the database cannot be read.
        """
        rows = await self._database.read(
            lambda connection: connection.execute(
                "SELECT device_id, document FROM devices ORDER BY declared_at, device_id"
            ).fetchall()
        )
        documents = {str(device): _document(str(device), text) for device, text in rows}
        return {device: document for device, document in documents.items() if document is not None}

    async def keep_device(self, device_id: str, document: Mapping[str, JsonValue] | None) -> None:
        """Keep a device's capabilities document; None forgets it.

        Raises:
            StorageError: the database cannot be written.
        """
        if document is None:
            await self._database.run(
                lambda connection: connection.execute("DELETE FROM devices WHERE device_id = ?", (device_id,))
            )
            return
        row = (device_id, _dump(document), self._now().astimezone(UTC).isoformat())
        await self._database.run(
            lambda connection: connection.execute(
                "INSERT INTO devices (device_id, document, declared_at) VALUES (?, ?, ?) ON CONFLICT (device_id) "
                "DO UPDATE SET document = excluded.document, declared_at = excluded.declared_at",
                row,
            )
        )

    async def keep_sightings(self, sightings: Sequence[Sighting]) -> None:
        """Keep when some devices were last heard; of more than `MAX_SIGHTINGS` the oldest go.

        Raises:
            StorageError: the database cannot be written.
        """
        if not sightings:
            return
        rows = [(each.device_id, each.online, each.heard_at.astimezone(UTC).isoformat()) for each in sightings]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO sightings (device_id, online, heard_at) VALUES (?, ?, ?) ON CONFLICT (device_id) "
                "DO UPDATE SET online = excluded.online, heard_at = excluded.heard_at",
                rows,
            )
            connection.execute(
                "DELETE FROM sightings WHERE device_id IN "
                "(SELECT device_id FROM sightings ORDER BY heard_at DESC LIMIT -1 OFFSET ?)",
                (MAX_SIGHTINGS,),
            )

        await self._database.run(work)

    async def devices(self) -> tuple[KeptDevice, ...]:
        """Return all that is known of every device that declared something or was heard, by id.

        Raises:
            StorageError: the database cannot be read.
        """
        rows = await self._database.read(
            lambda connection: connection.execute("""
                SELECT device_id, document, online, heard_at
                FROM (SELECT device_id FROM devices UNION SELECT device_id FROM sightings)
                LEFT JOIN devices USING (device_id) LEFT JOIN sightings USING (device_id)
                ORDER BY device_id
            """).fetchall()
        )
        return tuple(
            KeptDevice(
                device_id=device,
                document=None if text is None else _document(device, text),
                sighting=None if heard_at is None else _sighting(device, online, heard_at),
            )
            for device, text, online, heard_at in rows
        )

    async def load_pending(self) -> Sequence[Pending]:
        """Return the actions that wait for a person, oldest first; expired ones are still among them.

        Raises:
            StorageError: the database cannot be read.
        """
        rows = await self._database.read(
            lambda connection: connection.execute(
                "SELECT id, pending FROM pending_actions WHERE pending IS NOT NULL ORDER BY number"
            ).fetchall()
        )
        found = (_pending(str(pending_id), text) for pending_id, text in rows)
        return tuple(pending for pending in found if pending is not None)

    async def keep_pending(self, pending: Pending) -> None:
        """Keep an action that waits for a person; durable on return. One of a known id changes nothing.

        Raises:
            StorageError: the database cannot be written, or the action has no JSON.
        """
        proposal = proposal_fields(pending.proposal)
        text = _dump({"proposal": proposal, "question": pending.question, "expires_at": pending.expires_at})
        oldest = (self._now() - SETTLED_KEPT).astimezone(UTC).isoformat()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM pending_actions WHERE julianday(expires_at) < julianday(?)",
                (oldest,),
            )
            connection.execute(
                "INSERT INTO pending_actions (id, pending, expires_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (pending.id, text, pending.expires_at),
            )

        await self._database.run(work, durable=True)

    async def settle_pending(self, pending_id: str) -> bool:
        """Use a pending action up, once and for ever; false where it was used up before. Durable on return.

        Raises:
            StorageError: the database cannot be written.
        """
        # The row stays without its words, so that its id is never taken up again.
        settled = await self._database.run(
            lambda connection: (
                connection.execute(
                    "UPDATE pending_actions SET pending = NULL WHERE id = ? AND pending IS NOT NULL", (pending_id,)
                ).rowcount
            ),
            durable=True,
        )
        return settled == 1


def _dump(value: object) -> str:
    try:
        return to_json(value, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise StorageError(f"what should be kept is no JSON: {exc}") from exc


def _document(device_id: str, text: str) -> Mapping[str, JsonValue] | None:
    try:
        document = json.loads(text)
    except ValueError as exc:
        _log.warning("what is kept of %s cannot be read: %s", device_id, exc)
        return None
    return document if isinstance(document, dict) else None


def _sighting(device_id: str, online: int | None, heard_at: str) -> Sighting:
    return Sighting(
        device_id=device_id,
        online=None if online is None else bool(online),
        heard_at=datetime.fromisoformat(heard_at),
    )


def _pending(pending_id: str, text: str) -> Pending | None:
    """Read a pending action; one that this NAILA does not understand wholly is none."""
    try:
        values = from_json(text)
        return Pending(
            id=pending_id,
            proposal=proposal_from(values["proposal"], whole=True),
            question=values["question"],
            expires_at=values["expires_at"],
        )
    except (ValueError, TypeError, KeyError) as exc:
        _log.warning("the pending action %s cannot be read: %s", pending_id, exc)
        return None
