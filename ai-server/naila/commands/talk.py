"""`naila say` and `naila chat`: talking to the brain over MQTT, as any device does."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Final

from naila.config.settings import Settings
from naila.errors import ContractError, NailaError
from naila.events import DEFAULT_CONVERSATION, ActionPending, Confirmation, Intent, Reply, StreamItem
from naila.mqtt.device import Device

_CONNECT_TIMEOUT_S: Final = 5.0  # a person waits
_AWAY_AFTER_S: Final = 1.0  # the retained status comes at once, and a brain that restarts is back soon
_REPEAT_S: Final = 10.0


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
    async with _talking(args, settings) as conversation:
        reply = await conversation.ask(
            _intent(args, text, stream=args.stream), timeout_s=args.timeout, show=not args.json
        )
    if args.json:
        print(json.dumps(asdict(reply), ensure_ascii=False, indent=2))
    return 0


async def _chat(args: argparse.Namespace, settings: Settings) -> int:
    async with _talking(args, settings) as conversation:
        await conversation.begin()
        print(f"You speak as device {args.device}; Ctrl-D ends.")
        while (line := await _read_line()) is not None:
            if line.strip():
                try:
                    await conversation.ask(_intent(args, line, stream=True), timeout_s=args.timeout, show=True)
                except ContractError as exc:
                    print(f"({exc.code}: {exc})")
    return 0


async def _read_line(prompt: str = "you> ") -> str | None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return await asyncio.to_thread(_line, prompt)
    # A thread that waits for the keyboard cannot be woken: Ctrl-C must be able to leave it behind.
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[str | None] = loop.create_future()

    def read() -> None:
        line = _line(prompt)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, line)

    def tell(line: str | None) -> None:
        if not typed.done():
            typed.set_result(line)

    threading.Thread(target=read, name="keyboard", daemon=True).start()
    return await typed


def _line(prompt: str) -> str | None:
    try:
        return input(prompt)
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


@asynccontextmanager
async def _talking(args: argparse.Namespace, settings: Settings) -> AsyncGenerator[_Conversation]:
    """Be a device, and keep an eye on whether anybody is there to answer."""
    async with Device(settings, args.device, connect_timeout_s=_CONNECT_TIMEOUT_S) as device:
        conversation = _Conversation(device)
        watching = asyncio.create_task(conversation.watch(), name="watch the brain")
        try:
            yield conversation
        finally:
            watching.cancel()


class _Conversation:
    """Asks, shows the answers, and says on standard error, once each time, that the brain is away."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._asked: Intent | None = None
        self._looked = asyncio.Event()

    async def begin(self) -> None:
        """Return when it is known, and has been said, whether the brain is there."""
        await self._looked.wait()

    async def watch(self) -> None:
        """Say when the brain is away; ask again as soon as it is back."""
        while True:
            try:
                await self._device.wait_for_brain("starting", "online", "degraded", "stopping", timeout_s=_AWAY_AFTER_S)
            except TimeoutError:
                print("the brain is offline; waiting for it — Ctrl-C ends this", file=sys.stderr, flush=True)
                self._looked.set()
                await self._device.wait_for_brain("online", "degraded", timeout_s=None)
                if self._asked is not None:
                    self._device.send(self._asked)
            self._looked.set()
            await self._device.wait_for_brain("offline", timeout_s=None)

    async def ask(self, intent: Intent, *, timeout_s: float, show: bool) -> Reply:
        """Ask and, where wanted, print the answer as it comes."""
        self._asked = intent
        try:
            return await self._ask(intent, timeout_s, show=show)
        except TimeoutError:
            away = ", and the brain is offline" if self._device.brain_status in {None, "offline"} else ""
            raise TimeoutError(f"no reply came within {timeout_s:g} s{away}") from None
        finally:
            self._asked = None

    async def _ask(self, intent: Intent, timeout_s: float, *, show: bool) -> Reply:
        streamed = False
        async with contextlib.aclosing(self._device.stream(intent, timeout_s=timeout_s, repeat_s=_REPEAT_S)) as answers:
            async for item in answers:
                if isinstance(item, StreamItem):
                    streamed = streamed or bool(item.text)
                    if show:
                        print(item.text, end="", flush=True)
                elif isinstance(item, ActionPending):
                    await self._approve(item)
                else:
                    if show:
                        print("" if streamed else item.text)
                        if item.degraded:
                            print("(degraded: no language model)", file=sys.stderr)
                    return item
        raise TimeoutError

    async def _approve(self, pending: ActionPending) -> None:
        """Ask the person at the keyboard; without one, somebody else has to say yes, or it expires."""
        print(pending.question, file=sys.stderr, flush=True)
        if not sys.stdin.isatty():
            return
        answer = await _read_line("yes or no> ")
        approve = answer is not None and answer.strip().lower() in {"y", "yes"}
        self._device.send(Confirmation(device_id=self._device.device_id, id=pending.id, approve=approve))
