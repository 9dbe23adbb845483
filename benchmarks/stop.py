"""How long the emergency stop takes, from its publish to the `action` at the device, while everything else is busy.

    .venv/bin/python benchmarks/stop.py
    .venv/bin/python benchmarks/stop.py --stops 500 --threads 2 --json stop.json

The real daemon with a real model behind a real Mosquitto. Robots have it write long stories without end, another device
floods it with 1,000 messages a second from a process of its own, and in the second half the engine's process is stopped
by SIGSTOP. The stop comes by its topic or as a word, one every few hundredths of a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from secrets import token_hex

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "ai-server"), str(ROOT / "tests")]

import psutil  # noqa: E402
from benchmarks.baselines import Terms  # noqa: E402
from benchmarks.brain import Naila  # noqa: E402

from naila.events import Action, EmergencyStop, Inbound, Intent  # noqa: E402
from naila.mqtt.device import Device  # noqa: E402
from support.mosquitto import Mosquitto  # noqa: E402

GOAL_MS = 50.0
PAUSE_S = 0.03
FLOODER = ROOT / "tests" / "support" / "flood.py"


async def stops(device: Device, count: int, *, spoken: bool) -> list[float]:
    """Stop a device so often; return the milliseconds that each took."""
    taken = []
    for _ in range(count):
        event: Inbound = EmergencyStop(device_id=device.device_id)
        if spoken:
            event = Intent(device_id=device.device_id, id=token_hex(8), text="Stop!")
        began = time.perf_counter()
        device.send(event)
        async with asyncio.timeout(10):
            while True:
                heard = await device.hear()
                if not isinstance(heard, Action) or heard.name != "stop":
                    continue
                # A word is answered by its turn, too, which stops once more.
                if not isinstance(event, Intent) or heard.request_id == event.id:
                    break
        taken.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(PAUSE_S)
        if spoken:
            await asyncio.sleep(PAUSE_S)
    return taken


async def chatter(device: Device) -> None:
    """Have stories written without end."""
    while True:
        story = Intent(
            device_id=device.device_id,
            id=token_hex(8),
            text="Tell me a very long story about a robot at the sea.",
            stream=True,
            max_tokens=400,
        )
        with contextlib.suppress(Exception):
            await device.ask(story, timeout_s=600)


@contextlib.contextmanager
def flood(port: int) -> Iterator[None]:
    """Let another device publish 1,000 messages a second."""
    process = subprocess.Popen([sys.executable, str(FLOODER), str(port), "200", "1", "intent"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def blocked_engine(brain_pid: int) -> Iterator[None]:
    """Stop the engine's process."""
    children = psutil.Process(brain_pid).children()
    engine = next(child.pid for child in children if "naila.inference.worker" in " ".join(child.cmdline()))
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine, signal.SIGCONT)


@contextlib.asynccontextmanager
async def chatting(broker: Mosquitto, robots: int) -> AsyncGenerator[None]:
    """Keep the model busy with so many robots."""
    async with contextlib.AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(Device(broker.settings(), f"talker-{n}")) for n in range(robots)]
        tasks = [asyncio.create_task(chatter(device)) for device in devices]
        try:
            await asyncio.sleep(1)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def measure(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure each way to stop in each kind of trouble."""
    terms = Terms(model=args.model, threads=args.threads, context=2048, timeout_s=600, built_in_format=False)
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="naila-bench-") as name:
        async with Naila(terms, "naila").running(Path(name), 1) as talker:
            broker = talker.broker
            async with Device(broker.settings(), "mover") as mover:
                for spoken in (False, True):
                    way = "a word" if spoken else "its topic"
                    figures[f"{way}, idle"] = summed_up(await stops(mover, args.stops, spoken=spoken))
                    async with chatting(broker, args.robots):
                        figures[f"{way}, engine busy"] = summed_up(await stops(mover, args.stops, spoken=spoken))
                        with flood(broker.port):
                            await asyncio.sleep(1)
                            busy = await stops(mover, args.stops, spoken=spoken)
                            figures[f"{way}, engine busy, flood"] = summed_up(busy)
                            with blocked_engine(talker.brain.pid):
                                blocked = await stops(mover, min(args.stops, 60), spoken=spoken)
                            figures[f"{way}, engine stopped, flood"] = summed_up(blocked)
                    await asyncio.sleep(3)
    return figures


def summed_up(taken: list[float]) -> dict[str, float]:
    """Return percentiles, ms."""
    ordered = sorted(taken)
    return {
        "count": len(ordered),
        "p50_ms": round(statistics.median(ordered), 2),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 2),
        "worst_ms": round(ordered[-1], 2),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", type=Path, default=next(ROOT.glob("models/*.gguf"), None), help="GGUF file")
    add("--stops", type=int, default=200, help="of each kind (default: 200)")
    add("--robots", type=int, default=4, help="that have stories written (default: 4)")
    add("--threads", type=int, default=1, help="that decode (default: 1)")
    add("--json", type=Path, help="file for all figures")
    args = parser.parse_args()
    if args.model is None:
        parser.error("there is no model: naila models pull smollm2-135m, or --model FILE")
    args.model = args.model.resolve()
    figures = asyncio.run(measure(args))
    print(f"{'from publish to action':<34}{'stops':>8}{'p50 ms':>10}{'p99 ms':>10}{'worst ms':>10}")
    for name, each in figures.items():
        print(f"{name:<34}" + "".join(f"{value:>{8 if key == 'count' else 10}}" for key, value in each.items()))
    worst = max(each["p99_ms"] for each in figures.values())
    print(f"\nworst p99 {worst} ms, goal {GOAL_MS:g} ms: {'met' if worst <= GOAL_MS else 'NOT MET'}")
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if worst <= GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main())
