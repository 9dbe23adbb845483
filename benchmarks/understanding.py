"""How well people's sentences are read, by kind of sentence: without a model, and without a broker.

    .venv/bin/python benchmarks/understanding.py
    .venv/bin/python benchmarks/understanding.py --failures SET.yaml
    .venv/bin/python benchmarks/understanding.py --write

A set of your own looks like tests/understanding/utterances.yaml. `--write` puts the table into docs/understanding.md.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "ai-server"), str(ROOT / "tests")]

from naila.config.lexicon import load_lexicon  # noqa: E402
from naila.fleet import FleetView  # noqa: E402
from naila.understanding.reader import CommandReader  # noqa: E402
from naila.understanding.reading import OpenQuestion, Reading, Step  # noqa: E402
from understanding.scoring import Reader, Score, UtteranceSet, failures, load_set, score, table  # noqa: E402

NAMES = (
    "utterances",
    "other_people",
    "other_devices",
    "more_people",
    "more_devices",
    "fresh_people",
    "later_people",
    "traps",
    "probes",
)
SETS = tuple(ROOT / "tests" / "understanding" / f"{name}.yaml" for name in NAMES)
DOCUMENT = ROOT / "docs" / "understanding.md"
TABLE = re.compile(r"(<!-- table: reader -->\n).*?(<!-- end -->)", re.DOTALL)


class TimedReader:
    """Reads as another one does, and keeps how long each text took, in seconds."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self.took_s: list[float] = []

    def __call__(
        self,
        text: str,
        view: FleetView,
        *,
        question: OpenQuestion | None = None,
        about: str | None = None,
        last: Sequence[Step] = (),
    ) -> Reading:
        """Read one text."""
        started = time.perf_counter()
        reading = self._read(text, view, question=question, about=about, last=last)
        self.took_s.append(time.perf_counter() - started)
        return reading


def judge_reader(utterances: UtteranceSet) -> tuple[Score, TimedReader]:
    """Judge the reader alone, in this process. A way through daemon and model would be another function beside it."""
    reader = CommandReader(load_lexicon())
    reader.warm_up()
    timed = TimedReader(reader.read)
    return score(utterances, timed), timed


def summary(result: Score, reader: TimedReader) -> str:
    """Return the figures over all kinds in words."""
    took_ms = sorted(1000 * took for took in reader.took_s)
    return (
        f"{len(result.judged)} utterances, {100 * result.share_right():.1f} % exactly right, "
        f"{len(result.with_verdict('wrong action'))} wrong actions; "
        f"{statistics.median(took_ms):.1f} ms a text, at most {took_ms[-1]:.0f} ms."
    )


def write(reports: Sequence[str]) -> None:
    """Put the reports where the document keeps them."""
    both = "\n\n".join(reports)
    text, places = TABLE.subn(lambda found: f"{found[1]}\n{both}\n\n{found[2]}", DOCUMENT.read_text(encoding="utf-8"))
    if places != 1:
        message = f"{DOCUMENT} has {places} places for the table, not one"
        raise SystemExit(message)
    DOCUMENT.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge sets and print the reports; 1 where something moved that nobody wanted moved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", type=Path, default=SETS, metavar="SET", help="sets of utterances (YAML)")
    parser.add_argument("--failures", action="store_true", help="print each sentence that was not read right")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/understanding.md")
    options = parser.parse_args(arguments)
    reports: list[str] = []
    wrong = 0
    for path in options.sets:
        result, reader = judge_reader(load_set(path))
        reports.append(f"`{path.name}`: {summary(result, reader)}\n\n{table(result)}")
        print(reports[-1] + (f"\n\n{failures(result)}" if options.failures else "") + "\n")
        wrong += len(result.with_verdict("wrong action"))
    if options.write:
        write(reports)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
