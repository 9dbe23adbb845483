"""`naila say` and `naila chat`: talking to the brain over MQTT, as any device does."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import Coroutine
from dataclasses import asdict

from naila.config.settings import Settings
from naila.errors import ContractError, NailaError
from naila.events import DEFAULT_CONVERSATION, Intent, Reply, StreamItem
from naila.mqtt.device import Device


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands `say` and `chat`; each sets `run(args, settings) -> exit code`."""
    say = subparsers.add_parser(
        "say",
        help="say one thing and print the answer",
        description="Say one thing to the running brain, over the broker, and print its answer.",
        epilog='example: naila say "Hello, who are you?" --device r2 --stream',
    )
    say.add_argument("text", metavar="TEXT", help="what to say; - reads it from standard input")
    say.add_argument("--stream", action="store_true", help="print the answer while it is written")
    say.add_argument("--json", action="store_true", help="print the whole reply as JSON")
    say.set_defaults(run=lambda args, settings: _run(_say(args, settings)))
    chat = subparsers.add_parser(
        "chat", help="talk, line by line", description="Talk to the running brain, line by line. Ctrl-D ends it."
    )
    chat.set_defaults(run=lambda args, settings: _run(_chat(args, settings)))
    for command in (say, chat):
        command.add_argument("--device", default="cli", metavar="ID", help="which device speaks (default: cli)")
        command.add_argument("--conversation", default=DEFAULT_CONVERSATION, metavar="ID", help="which conversation")
        command.add_argument("--persona", metavar="NAME", help="who should answer")
        command.add_argument("--timeout", type=float, default=120, metavar="S", help="how long to wait (default: 120)")


def _run(work: Coroutine[None, None, int]) -> int:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        return 130
    except TimeoutError as exc:
        print(f"naila: {exc}; is the brain running? `naila doctor` looks", file=sys.stderr)
        return 1
    except NailaError as exc:
        code = f"{exc.code}: " if isinstance(exc, ContractError) else ""
        print(f"naila: {code}{exc}", file=sys.stderr)
        return 1


async def _say(args: argparse.Namespace, settings: Settings) -> int:
    text = sys.stdin.read() if args.text == "-" else args.text
    async with Device(settings, args.device) as device:
        reply = await _ask(device, _intent(args, text, stream=args.stream), timeout_s=args.timeout, show=not args.json)
    if args.json:
        print(json.dumps(asdict(reply), ensure_ascii=False, indent=2))
    return 0


async def _chat(args: argparse.Namespace, settings: Settings) -> int:
    async with Device(settings, args.device) as device:
        print(f"You speak as device {args.device}; Ctrl-D ends.")
        while (line := await asyncio.to_thread(_read_line)) is not None:
            if line.strip():
                try:
                    await _ask(device, _intent(args, line, stream=True), timeout_s=args.timeout, show=True)
                except ContractError as exc:
                    print(f"({exc.code}: {exc})")
    return 0


def _read_line() -> str | None:
    try:
        return input("you> ")
    except EOFError:
        print()
        return None


def _intent(args: argparse.Namespace, text: str, *, stream: bool) -> Intent:
    return Intent(
        device_id=args.device,
        id=secrets.token_hex(8),
        text=text,
        conversation_id=args.conversation,
        persona=args.persona,
        stream=stream,
    )


async def _ask(device: Device, intent: Intent, *, timeout_s: float, show: bool) -> Reply:
    """Ask and, where wanted, print the answer as it comes."""
    streamed = False
    async with contextlib.aclosing(device.stream(intent, timeout_s=timeout_s, repeat_s=10)) as answers:
        async for item in answers:
            if isinstance(item, StreamItem):
                streamed = streamed or bool(item.text)
                if show:
                    print(item.text, end="", flush=True)
            else:
                if show:
                    print("" if streamed else item.text)
                    if item.degraded:
                        print("(degraded: no language model)", file=sys.stderr)
                return item
    raise TimeoutError("no reply came")
