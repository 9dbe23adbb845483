"""`naila config`: what is set, and whether it is right."""

from __future__ import annotations

import argparse
import asyncio
import json

from naila.config.settings import Settings, variable
from naila.server.notify import Supervisor


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `config` with its sub-commands; each sets `run(args, settings) -> exit code`."""
    config = subparsers.add_parser(
        "config",
        help="show or check the settings",
        description="Settings come from the environment, .env and naila.yaml in CONFIG_DIR, in that order of strength.",
    )
    actions = config.add_subparsers(dest="config_command", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="every setting, its value and what it does")
    show.add_argument("--json", action="store_true", help="print JSON, for scripts")
    show.set_defaults(run=_show)
    check = actions.add_parser("check", help="check settings and data files; exit code 78 if something is wrong")
    check.set_defaults(run=_check)


def _show(args: argparse.Namespace, settings: Settings) -> int:
    values = {variable(field): _plain(getattr(settings, field)) for field in Settings.model_fields}
    if args.json:
        print(json.dumps(values, indent=2))
        return 0
    for field, definition in Settings.model_fields.items():
        value = values[variable(field)]
        mark = " " if getattr(settings, field) == definition.default else "*"
        print(f"{mark} {variable(field):<26} {'' if value is None else value!s:<22} {definition.description}")
    print("\n* differs from the default. Set it in the environment, in .env, or in config/naila.yaml.")
    return 0


def _check(_args: argparse.Namespace, settings: Settings) -> int:
    from naila.server.wiring import build  # noqa: PLC0415 - slow to import, and no other command here needs it

    # The settings themselves were checked on the way here; what cannot be built raises ConfigurationError.
    async def check() -> None:
        build(settings, Supervisor({}))

    asyncio.run(check())  # some parts are made in a loop only
    print("settings, personas, patterns, lexicon, permissions and the model catalogue are all right")
    return 0


def _plain(value: object) -> object:
    """Return what JSON can hold; of anything else its own text, which for a secret is stars."""
    return value if value is None or isinstance(value, str | int | float) else str(value)
