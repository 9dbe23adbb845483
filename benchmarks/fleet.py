"""A fleet of robots talks at once: through NAILA over MQTT, and beside it through what else could serve them.

    .venv/bin/python benchmarks/fleet.py --llama-server PATH --llama-bench PATH --json fleet.json --plot fleet.svg
    .venv/bin/python benchmarks/fleet.py --robots 32 --without-llama
    .venv/bin/python benchmarks/fleet.py --restart --model FILE

Everybody gets the same words, model, threads and context. Rounds alternate between the parties, each of which starts
afresh and has the machine to itself, and ratios are taken within a round, so that a machine that does other things too
spoils them least. Times are those at the client: the MQTT client of a robot, or the HTTP client of the server. What is
counted as tokens is what each party reports to have drawn, cut off by the guard or not. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "ai-server"), str(ROOT / "tests")]

import naila.inference  # noqa: E402, F401 - sets how OpenMP waits, before llama.cpp is loaded

# isort: split
import llama_cpp  # noqa: E402
from benchmarks import chart  # noqa: E402
from benchmarks.baselines import LlamaServer, LockedLlama, Terms, llama_bench  # noqa: E402
from benchmarks.brain import Naila  # noqa: E402
from benchmarks.command_line import parsed, talking, terms_of  # noqa: E402
from benchmarks.conversation import Conversation, Party, Tokens, first_messages, talk, words  # noqa: E402
from benchmarks.figures import (  # noqa: E402
    Processors,
    Ratio,
    Round,
    at_least,
    at_most,
    median,
    over,
    paired,
    plain,
    summed_up,
)
from benchmarks.restarts import COLD, WARM, Resumed, resume  # noqa: E402
from benchmarks.tables import print_ratios, print_table  # noqa: E402

from naila import __version__  # noqa: E402
from naila.ports import ChatMessage  # noqa: E402

OMP = {"GOMP_SPINCOUNT": os.environ["GOMP_SPINCOUNT"]}
ALONE = 3  # conversations of a robot that is alone, in each round

Result = dict[str, Any]


async def measure_fleet(args: argparse.Namespace, terms: Terms, tokens: Tokens) -> Result:
    """Measure all parties, round by round."""
    parties: list[Party] = [Naila(terms, args.persona, OMP)]
    if not args.without_llama:
        parties.append(LockedLlama(terms))
    if args.llama_server is not None:
        parties.append(LlamaServer(terms, args.llama_server, OMP))
    rounds: dict[str, list[Round]] = {party.name: [] for party in parties}
    bench: dict[str, list[float]] = {"empty": [], "same": []} if args.llama_bench is not None else {}
    asked = [*first_messages(args.persona), ChatMessage("user", words(0, 1))]
    depths = {"empty": 0, "same": tokens.of_prompt(asked)}
    for number in range(args.rounds):
        first = number % len(parties)
        for party in parties[first:] + parties[:first]:
            rounds[party.name].append(await one_round(party, args, tokens))
            for context, tg in bench.items() if isinstance(party, Naila) else ():
                tg.append(await asyncio.to_thread(bench_once, args, terms, depths[context]))
            print(f"round {number + 1}: {party.name}", file=sys.stderr)
    print_table(rounds, bench)
    ratios = compare(rounds, bench)
    print_ratios(ratios)
    return {
        "rounds": {name: [asdict(r) for r in each] for name, each in rounds.items()},
        "llama_bench_tg_per_s": bench,
        "ratios": [asdict(ratio) for ratio in ratios],
        "panels": [asdict(panel) for panel in panels(rounds)],
    }


async def one_round(party: Party, args: argparse.Namespace, tokens: Tokens) -> Round:
    """Let one robot talk alone, then all of them at once, each to a party that has just started."""
    first = first_messages(args.persona)
    with tempfile.TemporaryDirectory(prefix="naila-bench-") as name:
        async with party.running(Path(name), ALONE) as talker:
            robots = [Conversation(talker, tokens, number, first) for number in range(ALONE)]
            alone = [await robot.turn(args.alone_tokens) for robot in robots]
    with tempfile.TemporaryDirectory(prefix="naila-bench-") as name:
        async with party.running(Path(name), args.robots) as talker:
            robots = [Conversation(talker, tokens, number, first) for number in range(args.robots)]
            processors = Processors()
            turns, wall_s = await talk(robots, args.turns, args.tokens)
            return summed_up(turns, wall_s, alone, processors.since())


def bench_once(args: argparse.Namespace, terms: Terms, depth: int) -> float:
    """Return the speed of one stream without anything around it."""
    return llama_bench(args.llama_bench, terms, args.alone_tokens, depth, OMP)


def compare(rounds: dict[str, list[Round]], bench: Mapping[str, Sequence[float]]) -> list[Ratio]:
    """Set NAILA's figures beside the others'."""
    ours = rounds["NAILA"]
    ratios = [
        at_least("robots' turns answered", 1 - sum(len(r.errors) for r in ours) / sum(r.turns for r in ours), 1),
        at_most("read again in later turns, for each new token", over(ours, lambda r: r.reread_per_new), 0.1),
    ]
    for name, speed, wait in (("Llama + lock", 3.5, 0.05), ("llama-server", 1.0, 0.5)):
        if (theirs := rounds.get(name)) is not None:
            ratios += [
                at_least(f"tokens/s, NAILA / {name}", paired(ours, theirs, lambda r: r.tokens_per_s), speed),
                at_most(
                    f"later turns' first text, NAILA / {name}", paired(ours, theirs, lambda r: r.later_p50_ms), wait
                ),
            ]
    for context, speeds in bench.items():
        alone = median(ours_now.alone_per_s / tg for ours_now, tg in zip(ours, speeds, strict=True))
        ratios.append(at_least(f"one robot's tokens/s, NAILA / llama-bench tg, {context} context", alone, 0.95))
    return [ratio for ratio in ratios if not math.isnan(ratio.value)]


def panels(rounds: dict[str, list[Round]]) -> list[chart.Panel]:
    """Return what is drawn."""
    return [
        chart.Panel("Tokens a second, all robots together", bars(rounds, "tokens_per_s")),
        chart.Panel("First text of a later turn, ms (median)", bars(rounds, "later_p50_ms")),
        chart.Panel("First text of a first turn, ms (median)", bars(rounds, "first_p50_ms")),
        chart.Panel("One robot alone, tokens a second", bars(rounds, "alone_per_s")),
    ]


def bars(rounds: dict[str, list[Round]], figure: str) -> list[tuple[str, float]]:
    """Return the median of a figure for each party that has it."""
    medians = {name: over(each, lambda r: float(getattr(r, figure))) for name, each in rounds.items()}
    return [(name, value) for name, value in medians.items() if not math.isnan(value)]


async def measure_restart(args: argparse.Namespace, terms: Terms, tokens: Tokens) -> Result:
    """Measure a conversation's first turn after a restart, with KV on disk and without, round by round."""
    ways = {
        WARM: Naila(terms, args.persona, OMP),
        COLD: Naila(terms, args.persona, {**OMP, "LLM_KV_DISK_MB": "0"}),
    }
    rounds: dict[str, list[Resumed]] = {name: [] for name in ways}
    for number in range(args.rounds):
        for name, party in ways.items():
            rounds[name].append(await resume(party, tokens, args.turns, args.tokens))
            print(f"round {number + 1}: {name}", file=sys.stderr)
    warm, cold = rounds[WARM], rounds[COLD]
    print(f"\n{'':<44}" + "".join(f"{name:>18}" for name in ways))
    rows = (
        (f"first text of turn {args.turns}, ms", lambda r: r.last_ms),
        ("restart to online, s", lambda r: r.start_s),
        ("… of that, reading the static prefix, s", lambda r: r.prefixes_s),
        (f"first text of turn {args.turns + 1}, after the restart, ms", lambda r: r.resumed_ms),
        ("… its prompt tokens", lambda r: r.prompt_tokens[-1]),
        ("… cached", lambda r: r.cached_tokens[-1]),
    )
    for what, figure in rows:
        print(f"{what:<44}" + "".join(f"{median(map(figure, each)):>18.1f}" for each in rounds.values()))
    pairs = list(zip(warm, cold, strict=True))
    ratios = [
        at_most("restart to first text, saved KV / without", median(a.whole_ms / b.whole_ms for a, b in pairs), 0.1),
        at_most("… less start and loading the file", median(a.reading_ms / b.reading_ms for a, b in pairs), 0.1),
        at_most(
            f"turn {args.turns}, warm / the whole prompt read in",
            median(a.last_ms / b.reading_ms for a, b in pairs),
            0.1,
        ),
    ]
    print_ratios(ratios)
    print(
        "\nWithout saved KV all of the prompt is read: its static prefix before `online`, the rest in the turn.\n"
        "The second ratio counts both, and leaves out starting the process and loading the file, which are the same."
    )
    shown = [(name, median(r.resumed_ms for r in each)) for name, each in rounds.items()]
    return {
        "restarts": {name: [asdict(r) for r in each] for name, each in rounds.items()},
        "ratios": [asdict(ratio) for ratio in ratios],
        "panels": [asdict(chart.Panel(f"First text of turn {args.turns + 1}, after a restart, ms", shown))],
    }


def circumstances(args: argparse.Namespace, tokens: Tokens) -> Result:
    """Return what the figures depend on."""
    settings = ("persona", "robots", "turns", "tokens", "alone_tokens", "threads", "context", "rounds", "restart")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_name(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load_before": os.getloadavg(),
            "system": f"{platform.system()} {platform.machine()}",
            "llama.cpp": llama_cpp.llama_print_system_info().decode().strip(" |"),
        },
        "versions": {
            "naila": __version__,
            "llama-cpp-python": llama_cpp.__version__,
            "python": platform.python_version(),
            "llama-server": version(args.llama_server),
        },
        "model": args.model.name,
        "chat_format": tokens.format.name,
        "prefix_tokens": tokens.of_prompt(first_messages(args.persona)),
        **OMP,
        "settings": {name: getattr(args, name) for name in settings},
    }


def cpu_name() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def version(binary: Path | None) -> str | None:
    """Return what a program of llama.cpp says about itself."""
    if binary is None:
        return None
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    return (done.stderr + done.stdout).strip().splitlines()[0]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = talking(__doc__, rounds=3, timeout_s=1800)
    add = parser.add_argument
    add("--turns", type=int, help="of each conversation (default: 5; with --restart 10, and one after it)")
    add("--alone-tokens", type=int, default=64, help="of a reply to a robot that is alone, and of llama-bench (64)")
    add("--without-llama", action="store_true", help="leave llama-cpp-python's Llama out: it is slow")
    add("--llama-server", type=Path, help="llama.cpp's server, to be measured too")
    add("--llama-bench", type=Path, help="llama.cpp's benchmark, for the speed of one stream")
    add("--restart", action="store_true", help="measure the turn after a restart instead")
    add("--json", type=Path, help="file for all figures")
    add("--plot", type=Path, help="SVG file for a chart")
    args = parsed(parser)
    args.turns = args.turns or (10 if args.restart else 5)
    return args


def main() -> None:
    """Measure, print, write and draw."""
    args = arguments()
    tokens = Tokens(args.model)
    terms = terms_of(args, tokens)
    about = circumstances(args, tokens)
    print(json.dumps(about, indent=2))
    measure = measure_restart if args.restart else measure_fleet
    result = asyncio.run(measure(args, terms, tokens))
    if args.json is not None:
        args.json.write_text(json.dumps(plain({**about, **result}), indent=2) + "\n")
    if args.plot is not None:
        what = (
            f"{args.robots} robots, {args.turns} turns each, at once"
            if not args.restart
            else "A conversation across a restart"
        )
        footer = f"{args.model.stem}, {args.threads} thread(s), {about['machine']['cpu']}, {about['date'][:10]}"
        args.plot.write_text(chart.draw(what, [chart.Panel(**panel) for panel in result["panels"]], footer))


if __name__ == "__main__":
    main()
