"""`naila config`: what is set, and whether it is right."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pydantic import SecretStr

from naila.config.catalogue import load_catalogue
from naila.config.patterns import load_patterns
from naila.config.personas import choose_persona, load_personas
from naila.config.settings import Settings, variable


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
    # The settings themselves were checked on the way here; every loader raises ConfigurationError.
    load_patterns(settings.config_dir / "patterns.yaml")
    choose_persona(load_personas(settings.config_dir / "personas"), settings.persona)
    load_catalogue(settings.config_dir)
    print("settings, personas, patterns and the model catalogue are all right")
    return 0


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return "(set, not shown)"
    return str(value) if isinstance(value, Path) else value
