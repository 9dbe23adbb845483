"""What it costs that the engine is a process of its own: LLM_WORKER=process beside LLM_WORKER=thread, round by round.

    .venv/bin/python benchmarks/pipe.py --model models/SmolLM2-135M-Instruct.Q4_1.gguf --threads 2

Robots talk at once, as in fleet.py, to a daemon that has just started; who begins alternates. Ratios are taken within a
round and their median is printed. Processor time a token tells more than seconds on a machine that does other things.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "ai-server"), str(ROOT / "tests")]

import naila.inference  # noqa: E402, F401 - sets how OpenMP waits, before llama.cpp is loaded

# isort: split
from benchmarks.baselines import Terms  # noqa: E402
from benchmarks.brain import Naila  # noqa: E402
from benchmarks.command_line import parsed, talking, terms_of  # noqa: E402
from benchmarks.conversation import Conversation, Tokens, first_messages, talk  # noqa: E402
from benchmarks.figures import Processors, Round, at_least, at_most, median, paired, summed_up  # noqa: E402
from benchmarks.tables import print_ratios, print_table  # noqa: E402

OMP = {"GOMP_SPINCOUNT": os.environ["GOMP_SPINCOUNT"]}
WORKERS = ("process", "thread")


async def measure(args: argparse.Namespace, terms: Terms, tokens: Tokens) -> None:
    """Measure both, and print."""
    parties = [Naila(terms, args.persona, {**OMP, "LLM_WORKER": worker}, name=worker) for worker in WORKERS]
    rounds: dict[str, list[Round]] = {worker: [] for worker in WORKERS}
    for number in range(args.rounds):
        for party in parties if number % 2 == 0 else reversed(parties):
            rounds[party.name].append(await one_round(party, args, tokens))
            print(f"round {number + 1}: {party.name}", file=sys.stderr)
    print_table(rounds, {})
    ours, theirs = (rounds[worker] for worker in WORKERS)
    answered = 1 - sum(len(each.errors) for each in ours + theirs) / sum(each.turns for each in ours + theirs)
    print_ratios(
        [
            at_least("robots' turns answered", answered, 1),
            at_least("tokens/s, process / thread", paired(ours, theirs, lambda r: r.tokens_per_s), 0.98),
            at_most("processor time a token, process / thread", paired(ours, theirs, _cpu_a_token), 1.02),
        ]
    )
    within = sorted(a.tokens_per_s / b.tokens_per_s for a, b in zip(ours, theirs, strict=True))
    print(
        f"tokens/s, process / thread, by round: {' '.join(f'{ratio:.3f}' for ratio in within)}, "
        f"median {median(within):.3f}"
    )


async def one_round(party: Naila, args: argparse.Namespace, tokens: Tokens) -> Round:
    """Let all robots talk at once to a party that has just started."""
    with tempfile.TemporaryDirectory(prefix="naila-bench-") as name:
        async with party.running(Path(name), args.robots) as talker:
            first = first_messages(args.persona)
            robots = [Conversation(talker, tokens, number, first) for number in range(args.robots)]
            processors = Processors()
            turns, wall_s = await talk(robots, args.turns, args.tokens)
            return summed_up(turns, wall_s, (), processors.since())


def _cpu_a_token(each: Round) -> float:
    return sum(each.cpu_s.values()) / each.tokens


def main() -> None:
    """Read the command line and measure."""
    parser = talking(__doc__, rounds=5, timeout_s=600)
    parser.add_argument("--turns", type=int, default=5, help="of each conversation (default: 5)")
    args = parsed(parser)
    tokens = Tokens(args.model)
    asyncio.run(measure(args, terms_of(args, tokens), tokens))


if __name__ == "__main__":
    main()
