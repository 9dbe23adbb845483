"""`naila run`: the daemon, in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal

from naila.config.settings import Settings, load_settings
from naila.errors import ConfigurationError
from naila.mqtt.topics import INTENT, Topics
from naila.server import logs
from naila.server.flight_record import flight_folder, log_ring
from naila.server.notify import Supervisor

_log = logging.getLogger(__name__)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `run`; sets `run(args, settings) -> exit code`."""
    run = subparsers.add_parser(
        "run",
        help="run the brain",
        description="Run the brain in the foreground until SIGTERM or Ctrl-C; SIGHUP reads the settings again.",
    )
    run.add_argument("--quiet", action="store_true", help="do not say what to try")
    run.set_defaults(run=_run)


def _run(args: argparse.Namespace, settings: Settings) -> int:
    return asyncio.run(_serve(args, settings))


async def _serve(args: argparse.Namespace, settings: Settings) -> int:
    # Here, because every other command would wait for these to be imported.
    from naila.server.lifecycle import serve  # noqa: PLC0415
    from naila.server.wiring import build  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    supervisor = Supervisor()
    stop = asyncio.Event()
    wanted: list[Settings | None] = [settings]

    def end(number: signal.Signals) -> None:
        # A person who presses Ctrl-C twice means it; a service manager has SIGKILL for that.
        if number is signal.SIGINT and wanted[-1] is None:
            _log.warning("interrupted again: leaving at once")
            signal.raise_signal(signal.SIGKILL)
        supervisor.stopping()
        wanted.append(None)
        stop.set()

    def reload() -> None:
        if wanted[-1] is None:
            return
        try:
            settings = load_settings(env_file=args.env_file, yaml_file=args.yaml_file)
            build(settings, supervisor)  # a house that cannot be built is found out while the old one stands
        except ConfigurationError as exc:
            _log.error("SIGHUP: the new settings are wrong, the old ones stay:\n%s", exc)
        else:
            supervisor.reloading()
            wanted.append(settings)
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGHUP, reload)
    while (current := wanted[-1]) is not None:
        stop.clear()
        keep = log_ring(flight_folder(current.memory_path))
        logs.configure(current.log_level, current.log_format, secrets=current.secrets, keep=keep)
        await serve(current, stop=stop, supervisor=supervisor, on_ready=None if args.quiet else _what_to_try)
    return 0


def _what_to_try(settings: Settings) -> None:
    host, port = settings.mqtt_host or "127.0.0.1", settings.mqtt_port
    topics = Topics(settings.mqtt_topic_root)
    broker = f"-h {host} -p {port}"
    print(
        f"""
NAILA is ready. Talk to it as a device named r2, for example:

    naila say "Hello, who are you?" --device r2 --stream        (.venv/bin/naila after scripts/run)

or with Mosquitto's own tools, listening in one terminal and speaking in another:

    mosquitto_sub {broker} -v -t '{topics.device("r2", "#")}'
    mosquitto_pub {broker} -t {topics.device("r2", INTENT)} -m 'Hello, who are you?'

How it is: topic {topics.health}. Ctrl-C ends it.
""",
        flush=True,
    )
