"""`naila inbox`: the requests that are not done, and what an operator may do about one."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from naila.config.settings import Settings
from naila.errors import StorageError
from naila.memory.database import Database
from naila.memory.inbox import InboxLine, SqliteInbox

_BRAIN_S: Final = 2.0
_SHOWN_CHARS: Final = 60
_ORDERS: Final[dict[str, str]] = {
    "drop": "give a request up; its device is told",
    "retry": "send an answer again that the broker does not have",
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `inbox` with its sub-commands; each sets `run(args, settings) -> exit code`."""
    inbox = subparsers.add_parser(
        "inbox",
        help="requests that are not done",
        description="Look into the inbox, in MEMORY_PATH: requests that were accepted, and whose answers the broker "
        "does not have yet. It may be used while the daemon runs.",
    )
    actions = inbox.add_subparsers(dest="inbox_command", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what is there, oldest first")
    listing.add_argument("--json", action="store_true", help="print JSON, for scripts")
    listing.set_defaults(run=_runner, work=_list)
    for name, text in _ORDERS.items():
        order = actions.add_parser(name, help=text)
        order.add_argument("id", metavar="ID", help="the request's id")
        order.add_argument("--device", metavar="DEVICE", help="whose, where several devices have this id")
        order.set_defaults(run=_runner, work=_order)


def _runner(args: argparse.Namespace, settings: Settings) -> int:
    async def work() -> int:
        async with Database(settings.memory_path, move_corrupt=False) as database:
            code: int = await args.work(args, SqliteInbox(database))
            return code

    return asyncio.run(work())


async def _list(args: argparse.Namespace, inbox: SqliteInbox) -> int:
    lines, now = await inbox.lines(), datetime.now(UTC)
    if args.json:
        rows = [{**asdict(line), "received_at": line.received_at.isoformat()} for line in lines]
        print(json.dumps(rows, indent=2))
        return 0
    for line in lines:
        text = line.text if len(line.text) <= _SHOWN_CHARS else f"{line.text[: _SHOWN_CHARS - 1]}…"
        age_s = max(0.0, (now - line.received_at).total_seconds())
        print(f"{line.id:<24} {line.device_id:<20} {_age(age_s):>7}  {line.state:<9} {text!r}")
    if not lines:
        print("the inbox is empty")
    return 0


async def _order(args: argparse.Namespace, inbox: SqliteInbox) -> int:
    line = _only(args.id, args.device, await inbox.lines())
    number = await inbox.order(line.device_id, line.id, args.inbox_command)
    waited = 0.0
    while waited < _BRAIN_S and any(each == number for each, *_ in await inbox.orders()):
        await asyncio.sleep(0.1)
        waited += 0.1
    if waited < _BRAIN_S:
        print(f"{args.inbox_command}: {line.id} of {line.device_id}")
        return 0
    await inbox.carried_out(number)
    if args.inbox_command == "drop":
        await inbox.done([(line.device_id, line.id)])
        print(f"dropped {line.id} of {line.device_id}; no daemon runs, so its device was not told")
        return 0
    print("no daemon runs: at its next start it sends what the broker does not have")
    return 0


def _only(request_id: str, device_id: str | None, lines: Sequence[InboxLine]) -> InboxLine:
    found = [line for line in lines if line.id == request_id and device_id in {None, line.device_id}]
    if not found:
        raise StorageError(f"the inbox has no request {request_id!r}: see `naila inbox list`")
    if len(found) > 1:
        whose = ", ".join(line.device_id for line in found)
        raise StorageError(f"{request_id!r} is of {whose}: say which with --device")
    return found[0]


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
