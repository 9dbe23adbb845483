"""The command line: `naila run · say · chat · doctor · bench · config · models · memory · inbox · devices · audit`.

Exit codes: 0 done, 1 failed, 2 misused (argparse), 78 wrong configuration (EX_CONFIG of sysexits.h: a service manager
must not try again), 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import naila
from naila.commands import audit, bench, config, devices, doctor, inbox, memory, models, run, talk
from naila.config.settings import load_settings
from naila.errors import ConfigurationError, NailaError

EX_CONFIG = 78


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = _parser().parse_args(argv)
    try:
        settings = load_settings(env_file=args.env_file, yaml_file=args.yaml_file)
        code: int = args.run(args, settings)
    except ConfigurationError as exc:
        print(f"naila: wrong configuration:\n{exc}", file=sys.stderr)
        return EX_CONFIG
    except NailaError as exc:
        print(f"naila: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `naila … | head` is no error; the interpreter must not try to flush into the closed pipe.
        sys.stderr.close()
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="naila",
        description="NAILA, the local brain of a fleet of robots.",
        epilog="`naila COMMAND --help` explains a command. Settings: `naila config show`.",
    )
    parser.add_argument("--version", action="version", version=f"naila {naila.__version__}")
    parser.add_argument(
        "--env-file", type=Path, default=Path(".env"), metavar="FILE", help="settings file (default: .env)"
    )
    parser.add_argument(
        "--yaml-file", type=Path, metavar="FILE", help="settings file (default: naila.yaml in CONFIG_DIR)"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (run, talk, doctor, bench, config, models, memory, inbox, audit, devices):
        command.register(commands)
    return parser
