"""What the daemon adds to a turn and to its start, beside inference. Real broker, real daemon, real model.

    .venv/bin/python benchmarks/overhead.py --model models/SmolLM2-135M-Instruct.Q4_1.gguf

A turn's overhead is the round trip that a device sees less the time in which the engine worked for it, as the daemon's
log tells; so turns with the model are measured at LOG_LEVEL=DEBUG, which costs a little. Turns run one after another.
On a machine that does other things too, the fastest of several rounds tells most: nothing makes a program faster than
it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "ai-server"), str(ROOT / "tests")]

from naila.events import Intent, Reply  # noqa: E402
from naila.mqtt.device import Device  # noqa: E402
from support.brain import Brain  # noqa: E402
from support.mosquitto import Mosquitto  # noqa: E402

LOADED = re.compile(r"loaded \S+ in ([0-9.]+) s")
ENGINE = re.compile(r"the engine took ([0-9.]+) ms")
DEVICE = "bench"
CLOCK = "What time is it?"
GREETING = "Hello!"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: what was measured.
        p50: half of the samples were faster, in the best round.
        p95: nineteen of twenty were faster, in the best round.
        median_p50: the median of all rounds' p50.
        unit: of the figures.
        samples: in all rounds.
    """

    what: str
    p50: float
    p95: float
    median_p50: float
    unit: str
    samples: int


def row(what: str, rounds: Sequence[Sequence[float]], unit: str = "ms") -> Row:
    """Sum rounds of samples up; the best round is the one with the least p50."""
    best = min(rounds, key=statistics.median)
    medians = statistics.median(statistics.median(samples) for samples in rounds)
    return Row(what, statistics.median(best), _p95(best), medians, unit, sum(map(len, rounds)))


def _p95(samples: Iterable[float]) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


async def turns(device: Device, text: str, count: int, *, fresh: bool = False) -> list[tuple[float, Reply]]:
    """Take turns, and return the round trip of each in ms with its reply.

    They go through twenty conversations, which grow; fresh: each begins one.
    """
    taken = []
    for number in range(count):
        intent = Intent(
            device_id=DEVICE,
            id=secrets.token_hex(8),
            text=text,
            conversation_id=secrets.token_hex(4) if fresh else f"c{number % 20}",
            max_tokens=1,
        )
        began = time.perf_counter()
        reply = await device.ask(intent, timeout_s=60)
        taken.append(((time.perf_counter() - began) * 1000, reply))
    return taken


async def measure_clock_turns(broker: Mosquitto, rounds: int, count: int) -> list[Row]:
    """Measure turns that need no model."""
    outside: list[list[float]] = []
    inside: list[list[float]] = []
    async with Device(broker.settings(), DEVICE) as device:
        await device.wait_for_brain("online")
        await turns(device, CLOCK, 20)
        for _ in range(rounds):
            answered = await turns(device, CLOCK, count)
            outside.append([took for took, _ in answered])
            inside.append([reply.timing.total_ms for _, reply in answered])
    return [row("clock turn, as the device sees it", outside), row("clock turn, inside the daemon", inside)]


async def measure_model_turns(broker: Mosquitto, brain: Brain, rounds: int, count: int) -> list[Row]:
    """Measure turns that the model answers with one token, less what the engine took for it."""
    first = await _beside_the_engine(broker, brain, rounds, count, fresh=True)
    later = await _beside_the_engine(broker, brain, rounds, count, fresh=False)
    return [
        row("first turn with the model, less the engine", first),
        row("later turn with the model, less the engine", later),
    ]


async def _beside_the_engine(
    broker: Mosquitto, brain: Brain, rounds: int, count: int, *, fresh: bool
) -> list[list[float]]:
    beside: list[list[float]] = []
    async with Device(broker.settings(), DEVICE) as device:
        await device.wait_for_brain("online")
        await turns(device, GREETING, 5)
        for _ in range(rounds):
            logged = len(brain.log())
            answered = await turns(device, GREETING, count, fresh=fresh)
            engine = [float(took) for took in ENGINE.findall(brain.log()[logged:])]
            pairs = zip(answered, engine, strict=True)
            beside.append([took - engine_ms for (took, _), engine_ms in pairs])
    return beside


async def measure_start(broker: Mosquitto, brain: Brain, count: int) -> list[Row]:
    """Measure from the start of the process to `online`, and how much of it was loading the model."""
    whole: list[float] = []
    beyond: list[float] = []
    for _ in range(count):
        async with Device(broker.settings(), "watch") as device:
            logged = len(brain.log()) if brain.log_path.exists() else 0
            began = time.perf_counter()
            brain.start()
            await device.wait_for_brain("online", timeout_s=120)
            took = time.perf_counter() - began
            found = LOADED.search(brain.log()[logged:])
            if found is None:
                raise RuntimeError("the daemon did not say how long loading took")
            whole.append(took)
            beyond.append(took - float(found[1]))
            await asyncio.to_thread(brain.stop)
            await device.wait_for_brain("offline")
    return [row("start to online", [whole], "s"), row("start to online, less loading the model", [beyond], "s")]


async def measure(args: argparse.Namespace) -> list[Row]:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="naila-bench-") as name:
        folder = Path(name)
        broker = Mosquitto(folder).start()
        brain = Brain(folder, broker.port, LLM_MODEL_PATH=str(args.model.resolve()), LLM_THREADS=str(args.threads))
        try:
            rows = await measure_start(broker, brain, args.starts)
            brain.start()
            rows += await measure_clock_turns(broker, args.rounds, args.turns)
            brain.stop()
            brain.start(LOG_LEVEL="DEBUG")
            return rows + await measure_model_turns(broker, brain, args.rounds, args.model_turns)
        finally:
            brain.stop()
            broker.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=next(ROOT.glob("models/*.gguf"), None), help="GGUF file (default: one of models/)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of turns (default: 5)")
    parser.add_argument("--turns", type=int, default=200, help="clock turns in a round (default: 200)")
    parser.add_argument("--model-turns", type=int, default=40, help="model turns in a round (default: 40)")
    parser.add_argument("--starts", type=int, default=5, help="starts of the daemon (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads that decode (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if args.model is None:
        parser.error("there is no model: naila models pull smollm2-135m, or --model FILE")
    rows = asyncio.run(measure(args))
    if args.json:
        print(json.dumps([asdict(line) for line in rows], indent=2))
        return
    print(f"{'':<42}{'p50':>9}{'p95':>9}{'p50, median':>14}{'samples':>9}")
    print(f"{'':<42}{'best round':>18}{'of rounds':>14}")
    for line in rows:
        print(
            f"{line.what:<42}{line.p50:>6.2f} {line.unit:<2}{line.p95:>6.2f} {line.unit:<2}"
            f"{line.median_p50:>11.2f} {line.unit:<2}{line.samples:>8}"
        )


if __name__ == "__main__":
    main()
