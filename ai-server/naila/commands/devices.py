"""`naila devices`: which devices are known, what each of them declared, and who may speak."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Sequence

from naila.commands import devices_add
from naila.config.settings import Settings
from naila.devices.capabilities import read_profile, value_schema
from naila.devices.schema_words import allowed_words, value_words
from naila.errors import ContractError
from naila.events import JsonValue
from naila.fleet import ActionSpec, DeviceProfile, Sighting
from naila.memory.database import Database
from naila.memory.device_store import KeptDevice, SqliteDeviceStore


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `devices` with its sub-commands; each sets `run(args, settings) -> exit code`."""
    devices = subparsers.add_parser(
        "devices",
        help="show the devices that are known, give them passwords",
        description="What devices declared, from MEMORY_PATH, and their passwords at the broker.",
    )
    actions = devices.add_subparsers(dest="devices_command", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the devices that are known")
    show = actions.add_parser("show", help="what a device can do and measures")
    show.add_argument("device", metavar="DEVICE")
    for action, work in ((listing, _list), (show, _show)):
        action.add_argument("--json", action="store_true", help="print JSON, for scripts")
        action.set_defaults(run=_runner, work=work)
    devices_add.register(actions)


def _runner(args: argparse.Namespace, settings: Settings) -> int:
    async def work() -> int:
        async with Database(settings.memory_path, move_corrupt=False) as database:
            devices = await SqliteDeviceStore(database).devices()
        code: int = args.work(args, devices)
        return code

    return asyncio.run(work())


def _list(args: argparse.Namespace, devices: Sequence[KeptDevice]) -> int:
    if args.json:
        print(json.dumps([_summary(device) for device in devices], indent=2))
        return 0
    rows = [("ID", "NAME", "ROOM", "PRESENCE", "LAST HEARD", "ACTIONS"), *(_row(device) for device in devices)]
    if not devices:
        print("no device is known yet")
        return 0
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]))
    return 0


def _show(args: argparse.Namespace, devices: Sequence[KeptDevice]) -> int:
    device = next((each for each in devices if each.device_id == args.device), None)
    if device is None:
        known = ", ".join(each.device_id for each in devices) or "none"
        print(f"{args.device} is not known; known: {known}")
        return 1
    if args.json:
        print(json.dumps({**_summary(device), "capabilities": device.document}, indent=2))
        return 0
    print("\n".join(_lines(device)))
    return 0


def _lines(device: KeptDevice) -> Iterator[str]:
    profile = _profile(device)
    presence = f"{_presence(device.sighting)}, last heard {_heard(device.sighting)}"
    if profile is None:
        yield f"{device.device_id}: {presence}"
        yield "what it declared is not understood any more" if device.document else "it declared nothing"
        return
    place = f" in the room {profile.room}" if profile.room else ""
    yield f"{profile.name} ({device.device_id}){place}: {presence}"
    if profile.description:
        yield profile.description
    if profile.actions:
        yield "\nactions"
        for action in profile.actions.values():
            yield from _action_lines(action)
    if profile.telemetry:
        yield "\ntelemetry"
        for name, field in profile.telemetry.items():
            limits = {"minimum": field.minimum, "maximum": field.maximum}
            given: dict[str, JsonValue] = {keyword: limit for keyword, limit in limits.items() if limit is not None}
            normal = f"normal: {allowed_words({'type': 'number', 'unit': field.unit, **given})}" if given else ""
            yield _entry(name, (f"in {field.unit}" if field.unit and not given else "", normal, field.description))
    if profile.parameters:
        yield "\nparameters"
        for name, parameter in profile.parameters.items():
            rule = "writable" if parameter.writable else "read only"
            yield _entry(name, (allowed_words(value_schema(parameter)), rule, parameter.description))


def _action_lines(action: ActionSpec) -> Iterator[str]:
    confirm = "asks a person first" if action.confirm else ""
    group = f"excludes others of {action.group}" if action.group else ""
    pause = f"at most every {value_words(action.min_interval_ms / 1000, 's')}" if action.min_interval_ms else ""
    yield _entry(action.name, (action.description, confirm, group, pause))
    properties, required = action.parameters.get("properties"), action.parameters.get("required")
    needed = required if isinstance(required, list) else []
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        optional = "" if name in needed else "optional"
        described = schema.get("description", "") if isinstance(schema, dict) else ""
        yield f"  {_entry(name, (allowed_words(schema), optional, str(described)))}"
    alternatives = action.parameters.get("anyOf", action.parameters.get("oneOf"))
    if isinstance(alternatives, list):
        yield f"    {allowed_words(action.parameters)}" if not _names(alternatives) else f"    {_names(alternatives)}"


def _names(alternatives: Sequence[JsonValue]) -> str:
    """Return the parameters that `set_parameter` sets; empty for any other action."""
    names = []
    for each in alternatives:
        properties = each.get("properties") if isinstance(each, dict) else None
        name = properties.get("name") if isinstance(properties, dict) else None
        if isinstance(name, dict) and "const" in name:
            names.append(value_words(name["const"]))
    return ", ".join(names)


def _entry(name: str, parts: Sequence[str]) -> str:
    return f"  {name:<20} {'; '.join(part.rstrip('.') for part in parts if part)}".rstrip()


def _summary(device: KeptDevice) -> dict[str, JsonValue]:
    profile, sighting = _profile(device), device.sighting
    return {
        "device_id": device.device_id,
        "name": profile.name if profile else None,
        "room": profile.room if profile else None,
        "online": sighting.online if sighting else None,
        "last_heard_at": sighting.heard_at.isoformat() if sighting else None,
        "actions": list(profile.actions) if profile else [],
    }


def _row(device: KeptDevice) -> tuple[str, ...]:
    profile = _profile(device)
    return (
        device.device_id,
        profile.name if profile else "-",
        (profile.room if profile else None) or "-",
        _presence(device.sighting),
        _heard(device.sighting),
        ", ".join(profile.actions if profile else ()) or "-",
    )


def _profile(device: KeptDevice) -> DeviceProfile | None:
    try:
        return None if device.document is None else read_profile(device.device_id, device.document)
    except ContractError:
        return None


def _presence(sighting: Sighting | None) -> str:
    if sighting is None or sighting.online is None:
        return "unknown"
    return "online" if sighting.online else "offline"


def _heard(sighting: Sighting | None) -> str:
    return sighting.heard_at.astimezone().strftime("%Y-%m-%d %H:%M") if sighting else "never"
