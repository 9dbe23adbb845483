"""`naila memory`: what is remembered of a device, and forgetting it."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Final

from naila.config.settings import Settings
from naila.inference.kv_store import forget_files
from naila.memory.conversation_memory import SqliteConversationMemory
from naila.memory.database import Database
from naila.server.flight_record import flight_folder, forget_turns

_BRAIN_S: Final = 2.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `memory` with its sub-commands; each sets `run(args, settings) -> exit code`."""
    memory = subparsers.add_parser(
        "memory", help="show or forget what is remembered", description="Look into the memory, MEMORY_PATH."
    )
    actions = memory.add_subparsers(dest="memory_command", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the devices that something is remembered of")
    show = actions.add_parser("show", help="turns and facts of a device")
    show.add_argument("device", metavar="DEVICE")
    show.add_argument("--last", type=int, metavar="N", help="only the last N turns")
    forget = actions.add_parser("forget", help="forget a device, or one of its conversations, for good")
    forget.add_argument("device", metavar="DEVICE")
    forget.add_argument("--conversation", metavar="ID", help="only this conversation; facts stay")
    for action, work in ((listing, _list), (show, _show), (forget, _forget)):
        action.add_argument("--json", action="store_true", help="print JSON, for scripts")
        action.set_defaults(run=_runner, work=work)


def _runner(args: argparse.Namespace, settings: Settings) -> int:
    async def work() -> int:
        async with Database(settings.memory_path, move_corrupt=False) as database:
            memory = SqliteConversationMemory(database, max_turns=settings.memory_max_turns)
            code: int = await args.work(args, memory, settings.memory_path.parent / "kv")
            return code

    return asyncio.run(work())


async def _list(args: argparse.Namespace, memory: SqliteConversationMemory, _kv: Path) -> int:
    devices = await memory.devices()
    if args.json:
        print(json.dumps([asdict(device) for device in devices], default=_plain, indent=2))
        return 0
    for device in devices:
        last = device.last_said_at.astimezone().strftime("%Y-%m-%d %H:%M") if device.last_said_at else "never"
        print(f"{device.device_id:<24} {device.turns} turns, {device.facts} facts, last {last}")
    if not devices:
        print("nothing is remembered yet")
    return 0


async def _show(args: argparse.Namespace, memory: SqliteConversationMemory, _kv: Path) -> int:
    found = await memory.show(args.device, last=args.last)
    if args.json:
        print(json.dumps(asdict(found), default=_plain, indent=2))
        return 0
    for personal in found.facts:
        print(f"{personal.user_id or 'somebody'}: {personal.fact.key} = {personal.fact.value}")
    for turn in found.turns:
        print(f"\n{turn.said_at.astimezone():%Y-%m-%d %H:%M} [{turn.conversation_id}, {turn.intent}]")
        print(f"  {turn.user_id or 'user'}: {turn.user_text}\n  {args.device}: {turn.reply_text}")
    if not found.turns and not found.facts:
        print(f"nothing is remembered of {args.device}")
    return 0


async def _forget(args: argparse.Namespace, memory: SqliteConversationMemory, kv: Path) -> int:
    gone = await memory.forget(args.device, args.conversation)
    await _drop_kv(memory, kv)
    await asyncio.to_thread(forget_turns, flight_folder(kv))  # which lies beside it
    if args.json:
        print(json.dumps(asdict(gone)))
    else:
        print(f"forgotten of {args.device}: {gone.turns} turns, {gone.facts} facts, {gone.replies} stored replies")
    return 0


async def _drop_kv(memory: SqliteConversationMemory, kv: Path) -> None:
    """Wait for a running brain to drop the KV of what was forgotten; where none runs, remove it from disk here."""
    waited = 0.0
    while (left := await memory.forgotten()) and waited < _BRAIN_S:
        await asyncio.sleep(0.1)
        waited += 0.1
    for number, session in left:
        await asyncio.to_thread(forget_files, kv, session)
        await memory.traces_gone(number)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
