"""What benchmarks in which robots talk at once are told on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.baselines import Terms
from benchmarks.conversation import Tokens

ROOT = Path(__file__).parents[1]


def talking(description: str | None, *, rounds: int, timeout_s: float) -> argparse.ArgumentParser:
    """Return a parser that knows what all of them are told, with these defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--model", type=Path, default=next(ROOT.glob("models/*.gguf"), None), help="GGUF file (default: one of models/)"
    )
    add("--persona", default="guide", help="of benchmarks/personas or config/personas (default: guide)")
    add("--robots", type=int, default=8, help="that talk at once (default: 8)")
    add("--tokens", type=int, default=48, help="most tokens of a reply (default: 48)")
    add("--rounds", type=int, default=rounds, help=f"in which all parties take part (default: {rounds})")
    add("--threads", type=int, default=1, help="for each party (default: 1)")
    add("--context", type=int, default=2048, help="tokens of one conversation, for each party (default: 2048)")
    add("--timeout", type=float, default=timeout_s, help=f"seconds for one answer (default: {timeout_s:g})")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line; without a model, end with how to get one."""
    args = parser.parse_args()
    if args.model is None:
        parser.error("there is no model: naila models pull smollm2-135m, or --model FILE")
    args.model = args.model.resolve()
    return args


def terms_of(args: argparse.Namespace, tokens: Tokens) -> Terms:
    """Return what is the same for every party."""
    return Terms(
        model=args.model,
        threads=args.threads,
        context=args.context,
        timeout_s=args.timeout,
        built_in_format=not tokens.has_template,
    )
