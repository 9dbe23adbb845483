"""`naila bench`: how fast this machine is with a model, and what follows for the settings and the number of robots."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import naila
from naila.config.settings import Settings
from naila.errors import ModelError, StorageError
from naila.inference.gguf import read_header
from naila.inference.sampling import Sampling
from naila.inference.shape import SHAPES, Shape
from naila.inference.shape_file import shape_header, write_shape
from naila.inference.speed import Figures
from naila.inference.yardstick import Pace, Yardstick
from naila.ports import EnginePlan, ModelHeader
from naila.server.advice import Advice, Talk, advise, carried, rate
from naila.server.model_source import ModelSource
from naila.utils.hardware_detection import Hardware

_PACE: Final = Pace(seconds=2.5, rounds=3)
_QUICK: Final = Pace(seconds=0.6, rounds=2)
_MOST_ROBOTS: Final = 32
_MOST_COUNTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that was found.

    Attributes:
        header: the model.
        plan: how it was run.
        hardware: on what.
        figures: what was measured.
        talk: how robots are assumed to talk.
        advice: what follows.
        robots: how many conversations were measured.
        load_average: of the machine, before measuring.
        seconds: that it took.
    """

    header: ModelHeader
    plan: EnginePlan
    hardware: Hardware
    figures: Figures
    talk: Talk
    advice: Sequence[Advice]
    robots: int
    load_average: float
    seconds: float


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `bench`; sets `run(args, settings) -> exit code`."""
    bench = subparsers.add_parser(
        "bench",
        help="measure this machine and advise settings and the number of robots",
        description="Measure this machine with the model that would be served, with another, or with a file of a "
        "model's shape and random weights: the right speed without a download. Stop the daemon first: both would be "
        "slow. Takes up to a minute, longer with a large model on a slow machine.",
        epilog="example: naila bench --shape llama-3.1-8b --robots 4",
    )
    which = bench.add_mutually_exclusive_group()
    which.add_argument("--model", type=Path, metavar="FILE", help="a GGUF file (default: the one that would be served)")
    which.add_argument("--shape", choices=SHAPES, help="write a file of this shape with random weights")
    bench.add_argument("--vocab", type=Path, metavar="FILE", help="with --shape: a GGUF file to take the vocabulary of")
    bench.add_argument("--keep", action="store_true", help="with --shape: do not delete the file afterwards")
    bench.add_argument("--robots", type=_robots, default=8, metavar="N", help="robots at once (default: 8)")
    bench.add_argument("--quick", action="store_true", help="a few seconds, rougher")
    bench.add_argument("--json", action="store_true", help="print JSON, for scripts")
    bench.set_defaults(run=_bench)


def _robots(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_ROBOTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST_ROBOTS}")
    return int(text)


def _bench(args: argparse.Namespace, settings: Settings) -> int:
    if args.shape is None and (args.vocab is not None or args.keep):
        print("naila bench: --vocab and --keep go with --shape", file=sys.stderr)
        return 2
    source = ModelSource.of(settings)
    with ExitStack() as used:
        folder = used.enter_context(_folder(settings.memory_path.parent))
        if args.shape is not None:
            file = _shape_file(SHAPES[args.shape], source, folder, vocab=args.vocab, keep=args.keep)
            path = used.enter_context(file)
        else:
            path = args.model or source.choose().header.path
        report = _measure(path, source, folder, robots=args.robots, quick=args.quick)
    if args.json:
        print(json.dumps(_document(report), indent=2))
    else:
        _print(report)
    return 0


@contextmanager
def _folder(state: Path) -> Iterator[Path]:
    """Have a folder beside the database for what is written; it goes when nothing is kept in it."""
    folder = state / "bench"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        # A run that was killed could not tidy up.
        for part in folder.glob(".*.part"):
            part.unlink(missing_ok=True)
        for kept in folder.glob("kv-*"):
            shutil.rmtree(kept, ignore_errors=True)
    except OSError as exc:
        raise StorageError(f"{folder} cannot be made: {exc.strerror or exc}; MEMORY_PATH says where it is") from exc
    try:
        yield folder
    finally:
        with suppress(OSError):  # it is not empty
            folder.rmdir()


@contextmanager
def _shape_file(shape: Shape, source: ModelSource, folder: Path, *, vocab: Path | None, keep: bool) -> Iterator[Path]:
    """Have a file of a shape; one that an earlier run kept is used, and stays."""
    path = folder / f"{shape.name}-random.gguf"
    header = shape_header(shape, path, vocab)
    source.plan(header)  # so large a model is refused before it is written
    if _is_whole(header):
        yield path
        return
    _say(f"writing {path}, {header.file_bytes / 1e9:.2f} GB of random weights")
    write_shape(shape, path, vocab=vocab)
    try:
        yield path
    finally:
        if not keep:
            path.unlink(missing_ok=True)


def _is_whole(expected: ModelHeader) -> bool:
    try:
        return read_header(expected.path) == expected
    except ModelError:
        return False


def _measure(path: Path, source: ModelSource, folder: Path, *, robots: int, quick: bool) -> Report:
    header, hardware, load = read_header(path), source.hardware(), os.getloadavg()[0]
    plan, settings, talk = source.plan(header), source.settings, Talk()
    started = time.perf_counter()
    try:
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix="kv-") as kept,
            Yardstick(
                path,
                plan,
                _QUICK if quick else _PACE,
                conversations=robots,
                new_tokens=talk.new_tokens,
                sampling=Sampling(temperature=settings.llm_temperature, top_p=settings.llm_top_p),
                say=_say,
            ) as yardstick,
        ):
            figures = yardstick.measure(thread_counts(hardware.physical_cores, plan), Path(kept))
    except OSError as exc:
        raise StorageError(f"{folder}: {exc.strerror or exc}") from exc
    return Report(
        header=header,
        plan=plan,
        hardware=hardware,
        figures=figures,
        talk=talk,
        advice=advise(figures, plan, header, talk, robots),
        robots=max(figures.together),
        load_average=load,
        seconds=time.perf_counter() - started,
    )


def thread_counts(cores: int, plan: EnginePlan) -> list[int]:
    """Return the numbers of threads to compare: powers of two, all cores, all but one and what is planned."""
    counts = {plan.n_threads, plan.n_threads_batch, cores, max(1, cores - 1)}
    powers = [2**power for power in range(cores.bit_length()) if 2**power not in counts]
    # On a large machine few threads are out of the question.
    return sorted(counts | set(powers[-(_MOST_COUNTS - len(counts)) :]))


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{what} …", end="", file=sys.stderr, flush=True)
    else:
        print(f"{what} …", file=sys.stderr, flush=True)


def _document(report: Report) -> dict[str, object]:
    header, plan = report.header, report.plan
    return {
        "naila": naila.__version__,
        "llama_cpp_python": report.hardware.build.version,
        "machine": {
            "cores": report.hardware.physical_cores,
            "logical_cpus": report.hardware.logical_cpus,
            "memory_bytes": report.hardware.memory_total,
            "board": report.hardware.board,
            "cpu_features": report.hardware.build.cpu_features,
            "acceleration": plan.acceleration,
            "load_average": report.load_average,
        },
        "model": {"path": str(header.path), "name": header.name, "bytes": header.file_bytes},
        "plan": {name: value for name, value in asdict(plan).items() if name != "reasons"},
        "figures": asdict(report.figures),
        "assumed": asdict(report.talk),
        "robots_measured": report.robots,
        "robots_carried": carried(report.figures, report.talk),
        "advice": [asdict(advice) for advice in report.advice],
        "seconds": report.seconds,
    }


def _print(report: Report) -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    header, plan, hardware = report.header, report.plan, report.hardware
    cores = f"{hardware.physical_cores} core{'s' * (hardware.physical_cores != 1)}"
    print(f"{header.path.name}, {header.file_bytes / 1e6:,.0f} MB, on {plan.acceleration}, {cores}")
    if report.load_average > 0.3 * hardware.physical_cores:
        print(f"The machine was busy before (load {report.load_average:.1f}): alone it is faster than this.")
    print()
    for name, value in _rows(report.figures):
        print(f"{name:<32} {value}")
    for cut in report.figures.cut:
        print(f"{'not measured in full':<32} {cut}")
    print(f"\nAssumed: {report.talk.words}.")
    for advice in report.advice:
        mark = "->" if advice.is_change else "  "
        name = f"{advice.about}={advice.value}" if advice.is_change else f"{advice.about}: {advice.value}"
        print(f"{mark} {name:<33} {advice.why}")
    print(f"\nTook {report.seconds:.0f} s.")


def _rows(figures: Figures) -> Iterator[tuple[str, str]]:
    """Yield name and value of each line of the table."""
    yield "load the model", f"{figures.load_s:.1f} s"
    for size, speed in figures.reading.items():
        yield f"read, {size} tokens a step", f"{rate(speed)} tokens/s"
    for each in figures.threads:
        threads = f"{each.threads} thread{'s' * (each.threads != 1)}"
        yield f"alone, {threads}", f"{rate(each.writing)} tokens/s written, {rate(each.reading)} read"
    for count, speed in figures.together.items():
        whose = "1 conversation writes" if count == 1 else f"{count} write together"
        yield whose, f"{rate(speed)} tokens/s" + (f", {rate(speed / count)} each" if count > 1 else "")
    held = figures.prefix_tokens + figures.own_tokens
    yield "first token of a later turn", f"{figures.turn_ms:.0f} ms: {figures.new_tokens} new tokens after {held}"
    if figures.busy_turn_ms is not None:
        yield "  while all others write", f"{figures.busy_turn_ms:.0f} ms"
    if figures.burst_ms is not None:
        yield "  when all ask at once", f"{figures.burst_ms[0]:.0f} ms the median, {figures.burst_ms[1]:.0f} the last"
    if figures.abort_ms is not None:
        yield "cancel in the middle of a read", f"{figures.abort_ms:.0f} ms"
    if (kept := figures.kept) is not None:
        times = f"{kept.save_ms:.0f} ms, read it back {kept.load_ms:.0f} ms"
        yield "keep a conversation on disk", f"{times}: {kept.tokens} tokens, {kept.bytes / 1e6:.1f} MB"
