"""`naila audit`: who had what moved, and what became of it."""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Mapping

from naila.config.settings import Settings
from naila.devices.audit import audit_folder, read_audit
from naila.errors import StorageError
from naila.events import JsonValue


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `audit`; it sets `run(args, settings) -> exit code`."""
    audit = subparsers.add_parser(
        "audit",
        help="show what was moved, by whom, and what was refused",
        description="Read the audit log, which lies in audit/ beside MEMORY_PATH; the newest entry comes last.",
    )
    audit.add_argument("--device", metavar="DEVICE", help="only what this device was to do, or was asked through it")
    audit.add_argument("--last", type=_count, default=50, metavar="N", help="only the last N entries (default: 50)")
    audit.add_argument("--json", action="store_true", help="print JSON, one object a line, for scripts")
    audit.set_defaults(run=_run)


def _run(args: argparse.Namespace, settings: Settings) -> int:
    folder = audit_folder(settings.memory_path)
    try:
        entries = deque(
            (
                entry
                for entry in read_audit(folder)
                if args.device is None or args.device in (entry.get("device_id"), entry.get("speaker"))
            ),
            maxlen=args.last,
        )
    except OSError as exc:
        raise StorageError(f"{folder}: the audit log cannot be read: {exc.strerror}") from exc
    for entry in entries:
        print(json.dumps(entry, ensure_ascii=False) if args.json else _line(entry))
    if not entries and not args.json:
        print("nothing was moved yet" if args.device is None else f"nothing is written down about {args.device}")
    return 0


def _line(entry: Mapping[str, JsonValue]) -> str:
    what = _text(entry.get("name")) or "a result"
    if entry.get("arguments"):
        what += f" {json.dumps(entry['arguments'], ensure_ascii=False)}"
    who = _text(entry.get("speaker"))
    if entry.get("user_id"):
        who = f"{_text(entry['user_id'])} at {who}"
    asked = f", asked by {who} ({_text(entry.get('by'))})" if who else ""
    result = f" -> {json.dumps(entry['result'], ensure_ascii=False)}" if "result" in entry else ""
    reason = " ".join(_text(entry[key]) for key in ("code", "reason") if entry.get(key))
    event, device = _text(entry.get("event")), _text(entry.get("device_id"))
    return f"{_text(entry.get('time'))}  {event:<10} {device}: {what}{result}{asked}{f': {reason}' if reason else ''}"


def _text(value: JsonValue) -> str:
    return "" if value is None else "".join(char if char.isprintable() else " " for char in str(value))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return number
