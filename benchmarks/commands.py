"""How well commands are obeyed by the whole daemon: real broker, real model, devices that answer.

    .venv/bin/python benchmarks/commands.py
    .venv/bin/python benchmarks/commands.py --model OTHER.gguf --set SET.yaml --failures
    .venv/bin/python benchmarks/commands.py --model OTHER.gguf --may-act yes
    .venv/bin/python benchmarks/commands.py --examples

The utterances of tests/understanding are said over MQTT, each in a conversation of its own, to devices that declared
what examples/*.json say. Judged is what comes out: which actions were sent (or put before a person), with which
arguments, and what kind of answer came. A wrong action is any that was not wanted.

With `--examples` the devices are examples/rover.py, arm.py and lamp.py themselves, twenty times as fast; each begins
anew after it has moved, so that what is in the way of one sentence is not in the way of the next, and as bright as the
set says. Without, devices do everything at once and never fail, and their readings are those of the set.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "ai-server"), str(ROOT / "tests")]

import json  # noqa: E402

import yaml  # noqa: E402

from naila.errors import ContractError  # noqa: E402
from naila.events import (  # noqa: E402
    Action,
    ActionPending,
    ActionResult,
    Confirmation,
    Intent,
    Reply,
    Telemetry,
)
from naila.fleet import STOP, DeviceView  # noqa: E402
from naila.mqtt.device import Device  # noqa: E402
from naila.mqtt.publication import Publication  # noqa: E402
from naila.understanding.reading import Step  # noqa: E402
from support.brain import Brain  # noqa: E402
from support.mosquitto import Mosquitto  # noqa: E402
from understanding.scoring import (  # noqa: E402
    Expectation,
    Utterance,
    UtteranceSet,
    is_part,
    is_step,
    load_set,
    several,
)

SET = ROOT / "tests" / "understanding" / "utterances.yaml"
SETTLE_S = 0.15
START_S = 1.2  # a device's process, until it has declared itself and measured
PAUSE_S = 0.6  # people are slower than a device's min_interval_ms
SETTING = "as-the-set-says"
TALK = {"talk", "doubtful"}


@dataclass(slots=True)
class Seen:
    """What a text brought about.

    Attributes:
        steps: actions that were sent or put before a person, in order.
        stopped: who was sent a stop.
        reply: the answer, if one came.
        refused: the code of a refusal, if one came.
    """

    steps: list[Step] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    reply: Reply | None = None
    refused: str | None = None


class Examples:
    """The devices of examples/, as processes."""

    def __init__(self, broker: Mosquitto, names: Sequence[str]) -> None:
        self._port = broker.port
        self._processes = {name: self._start(name) for name in names}

    def begin_anew(self, names: set[str]) -> None:
        """Start some of them again, where they were at first."""
        for name in names & self._processes.keys():
            self._end(self._processes[name])
            self._processes[name] = self._start(name)

    def close(self) -> None:
        """End all of them."""
        for process in self._processes.values():
            self._end(process)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        options = ("--port", str(self._port), "--speed-up", "20", "--plain")
        return subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / f"{name}.py"), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait()


class Stage:
    """The devices, and what they were told to do since they were last asked."""

    def __init__(
        self,
        devices: dict[str, Device],
        fleet: tuple[DeviceView, ...],
        examples: Examples | None = None,
        brightness: int = 100,
    ) -> None:
        self._devices = devices
        self._fleet = fleet
        self._examples = examples
        self._brightness = brightness
        self._moved: set[str] = set()
        self._seen = Seen()

    async def begin_anew(self) -> None:
        """Have those that moved begin where they were at first."""
        if self._examples is not None and self._moved:
            await asyncio.to_thread(self._examples.begin_anew, self._moved)
            await asyncio.sleep(START_S)
            await self.light_up()
        self._moved.clear()

    async def light_up(self) -> None:
        """Have the lamp be as bright as the set says, by an action that nobody judges."""
        document = {
            "id": token_hex(8),
            "request_id": SETTING,
            "name": "set_brightness",
            "arguments": {"level": self._brightness},
            "expires_at": "2100-01-01T00:00:00Z",
            "seq": 0,
        }
        self._devices["panel"].send_raw(
            Publication(topic="naila/devices/lamp/action", payload=json.dumps(document).encode(), qos=1)
        )
        await asyncio.sleep(PAUSE_S)

    async def listen(self, device: Device) -> None:
        """Do what a device is told, at once and without fail, unless a process does; never approve anything."""
        while True:
            heard = await device.hear()
            if isinstance(heard, Action) and heard.request_id == SETTING:
                continue
            if isinstance(heard, Action) and heard.name == STOP:
                self._seen.stopped.append(heard.device_id)
            elif isinstance(heard, Action):
                self._seen.steps.append(
                    Step(device_id=heard.device_id, name=heard.name, arguments=dict(heard.arguments))
                )
                self._moved.add(heard.device_id)
            if isinstance(heard, Action) and self._examples is None:
                device.send(ActionResult(device_id=device.device_id, id=heard.id, ok=True))

    async def say(self, text: str, through: str, conversation: str) -> Seen:
        """Say something, and see what comes of it."""
        self._seen = seen = Seen()
        device = self._devices[through]
        intent = Intent(device_id=through, id=token_hex(8), text=text, conversation_id=conversation, max_tokens=24)
        try:
            async for item in device.stream(intent, timeout_s=120):
                if isinstance(item, Reply):
                    seen.reply = item
                if isinstance(item, ActionPending):
                    # What is put before a person was understood; it stays undone here.
                    target = self._target(item)
                    seen.steps.append(Step(device_id=target, name=item.name, arguments=dict(item.arguments)))
                    device.send(Confirmation(device_id=through, id=item.id, approve=False))
        except ContractError as exc:
            seen.refused = exc.code
        await asyncio.sleep(SETTLE_S if self._examples is None else PAUSE_S)
        return seen

    def _target(self, pending: ActionPending) -> str:
        """Return whose action it is; the message itself goes to whoever asked."""
        able = [each.profile.device_id for each in self._fleet if pending.name in each.profile.actions]
        return pending.device_id if pending.device_id in able or not able else able[0]


def verdict(seen: Seen, expected: tuple[Expectation, ...], utterances: UtteranceSet, through: str) -> str:
    """Say whether what came is one of the things expected, else what it is instead."""
    view = utterances.view(through)
    if any(meets(seen, each, utterances, through) for each in expected):
        return "right"
    if seen.steps:
        return "missed" if any(is_part(seen.steps, each, view) for each in expected) else "WRONG ACTION"
    return "stopped" if seen.stopped else "nothing moved"


def meets(seen: Seen, expected: Expectation, utterances: UtteranceSet, through: str) -> bool:
    """Tell whether what came is what was expected."""
    ((what, detail),) = expected.items()
    view = utterances.view(through)
    match what:
        case "steps":
            pairs = zip(seen.steps, detail, strict=False)
            return len(seen.steps) == len(detail) and all(is_step(*pair, view) for pair in pairs)
        case "stop":
            named = {view.profile.device_id for view in utterances.devices}
            wanted = named if detail == "all" else set(several(detail))
            return not seen.steps and set(seen.stopped) & named == wanted
    return not seen.steps and not seen.stopped and is_answer(seen.reply, what)


def is_answer(reply: Reply | None, what: str) -> bool:
    """Tell whether words are of the kind that was expected."""
    if what in TALK or reply is None:
        return what in TALK
    if what == "ask":
        return "?" in reply.text and not reply.actions
    return reply.intent == {"refuse": "command", "state": "state"}[what] and not reply.actions


async def judge(utterance: Utterance, utterances: UtteranceSet, stage: Stage) -> tuple[str, Seen]:
    """Say what was said before and the utterance itself; judge both."""
    conversation = token_hex(6)
    await stage.begin_anew()
    for text, expected in utterance.before:
        seen = await stage.say(text, utterance.through, conversation)
        if verdict(seen, (expected,), utterances, utterance.through) == "WRONG ACTION":
            return "WRONG ACTION", seen
    seen = await stage.say(utterance.say, utterance.through, conversation)
    return verdict(seen, utterance.expect, utterances, utterance.through), seen


@contextlib.asynccontextmanager
async def staged(args: argparse.Namespace, folder: Path) -> AsyncGenerator[Stage]:
    """Start broker, daemon and devices."""
    document = yaml.safe_load(args.set.read_text(encoding="utf-8"))
    broker = Mosquitto(folder).start()
    brain = Brain(
        folder,
        broker.port,
        LLM_MODEL_PATH=str(args.model),
        LLM_MAY_ACT=args.may_act,
        ACTIONS_PER_MINUTE="6000",
        MQTT_KEEPALIVE_S="10",
    ).start()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(broker.stop)
        stack.push_async_callback(asyncio.to_thread, brain.stop)
        devices: dict[str, Device] = {}
        for name, file in {**document["devices"], "panel": None}.items():
            declared = None if file is None else json.loads((args.set.parent / file).read_text(encoding="utf-8"))
            if declared is not None and not args.examples:
                for action in declared["actions"]:
                    action.pop("min_interval_ms", None)
            played = declared if not args.examples else None
            devices[name] = await stack.enter_async_context(
                Device(broker.settings(MQTT_KEEPALIVE_S=10), name, capabilities=played, presence=played is not None)
            )
        await devices["panel"].wait_for_brain("online", timeout_s=120)
        examples = None
        if args.examples:
            examples = Examples(broker, tuple(document["devices"]))
            stack.callback(examples.close)
            await asyncio.sleep(2 * START_S)
        else:
            for name, values in document.get("readings", {}).items():
                devices[name].send(Telemetry(device_id=name, values=values))
        readings = document.get("readings", {})
        stage = Stage(devices, load_set(args.set).devices, examples, readings.get("lamp", {}).get("brightness", 100))
        tasks = [asyncio.create_task(stage.listen(device)) for device in devices.values()]
        await asyncio.sleep(1)
        if args.examples:
            await stage.light_up()
        try:
            yield stage
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def run(args: argparse.Namespace) -> int:
    """Judge the whole set and print it."""
    utterances = load_set(args.set)
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="naila-bench-") as name:
        async with staged(args, Path(name)) as stage:
            for utterance in utterances.utterances:
                found, seen = await judge(utterance, utterances, stage)
                counts.setdefault(utterance.kind, Counter())[found] += 1
                if found == "WRONG ACTION" or (args.failures and found != "right"):
                    said = seen.reply.text if seen.reply else seen.refused
                    print(f"{found}: {utterance.through}: {utterance.say!r}\n    {seen.steps} {seen.stopped} {said!r}")
    verdicts = ("right", "WRONG ACTION", "nothing moved", "stopped", "missed")
    print(f"\n{'':<18}{'n':>6}" + "".join(f"{each:>15}" for each in verdicts))
    total: Counter[str] = sum(counts.values(), Counter())
    for kind, row in [*counts.items(), ("all", total)]:
        print(f"{kind:<18}{row.total():>6}" + "".join(f"{row[each]:>15}" for each in verdicts))
    print(f"\n{100 * total['right'] / total.total():.1f} % exactly right, {total['WRONG ACTION']} wrong actions")
    return 1 if total["WRONG ACTION"] else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, default=SET, help="utterances (default: the repository's)")
    parser.add_argument("--model", type=Path, default=next(ROOT.glob("models/*.gguf"), None), help="GGUF file")
    parser.add_argument("--may-act", choices=("auto", "yes", "no"), default="auto", help="LLM_MAY_ACT (default: auto)")
    parser.add_argument("--examples", action="store_true", help="let the processes of examples/ be the devices")
    parser.add_argument("--failures", action="store_true", help="print what was not right")
    args = parser.parse_args()
    if args.model is None:
        parser.error("there is no model: naila models pull smollm2-135m, or --model FILE")
    args.model = args.model.resolve()
    args.set = args.set.resolve()
    return asyncio.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
