"""`naila models`: what can be had, what is here, whether it is whole, and fetching it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from naila.config.catalogue import Catalogue, CatalogueEntry, HubSource, load_catalogue
from naila.config.settings import Settings
from naila.errors import ModelError, ModelNotFoundError
from naila.inference.gguf import read_header
from naila.services.model_download import pull
from naila.services.model_files import model_files, size_of, verify
from naila.services.verified import VerifiedFiles

BAR_WIDTH = 30
BAR_EVERY_S = 0.1


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `models` with its sub-commands; each sets `run(args, settings) -> exit code`."""
    models = subparsers.add_parser(
        "models",
        help="list, inspect, check and fetch model files",
        description="List, inspect, check and fetch model files. They live in MODELS_DIR; the catalogue of those that "
        "can be fetched is models.yaml in CONFIG_DIR.",
        epilog="example: naila models pull llama-3.1-8b",
    )
    actions = models.add_subparsers(dest="models_command", metavar="ACTION", required=True)

    listing = actions.add_parser(
        "list", help="what can be fetched and what is here", description="Show the catalogue and every model file here."
    )
    listing.set_defaults(run=_list)

    info = actions.add_parser(
        "info", help="everything about one model", description="Show what the catalogue and the file itself say."
    )
    info.add_argument("model", metavar="NAME_OR_PATH", help="a name from `naila models list`, or a GGUF file")
    info.set_defaults(run=_info)

    check = actions.add_parser(
        "verify",
        help="check model files byte by byte",
        description="Check size and SHA-256 of one model file, or of all that are here, against the catalogue or a "
        "sidecar NAME.gguf.sha256. Exit code 1 if one is damaged or missing.",
    )
    check.add_argument("model", metavar="NAME_OR_PATH", nargs="?", help="only this one")
    check.set_defaults(run=_verify)

    fetch = actions.add_parser(
        "pull",
        help="fetch a model",
        description="Fetch a model into MODELS_DIR, checked. One that is there and whole is left alone; a download "
        "that broke off goes on where it was.",
    )
    fetch.add_argument("model", metavar="NAME", help="a name from `naila models list`")
    fetch.set_defaults(run=_pull)

    for action in (listing, info, check, fetch):
        action.add_argument("--json", action="store_true", help="print JSON, for scripts")


def _list(args: argparse.Namespace, settings: Settings) -> int:
    catalogue = load_catalogue(settings.config_dir)
    try:
        here = model_files(settings.models_dir)
    except ModelError as exc:
        return _failed(exc)
    rows = [_entry_row(entry, settings.models_dir) for entry in catalogue.entries]
    rows += [_file_row(path) for path in here if catalogue.by_file(path.name) is None]
    if args.json:
        _print(json.dumps(rows, indent=2))
        return 0
    table = [("NAME", "SIZE", "MEMORY", "MAY", "LICENCE", "HERE")]
    table += [
        (
            row["name"],
            _bytes(row["size_bytes"]),
            _bytes(row["memory_bytes"]),
            {True: "act", False: "talk", None: "?"}[row["may_act"]],
            row["licence"] or "?",
            row["here"],
        )
        for row in rows
    ]
    _print(_table(table))
    _print(f"\nFetch one with: naila models pull NAME   (into {settings.models_dir})")
    return 0


def _info(args: argparse.Namespace, settings: Settings) -> int:
    try:
        path, entry = _resolve(args.model, load_catalogue(settings.config_dir), settings.models_dir)
        facts: dict[str, Any] = _entry_facts(entry) if entry is not None else {}
        facts["path"] = str(path) if path.is_file() else None
        if path.is_file():
            facts |= {"header": {key: _plain(value) for key, value in asdict(read_header(path)).items()}}
    except ModelError as exc:
        return _failed(exc)
    if args.json:
        _print(json.dumps(facts, indent=2))
        return 0
    header = facts.pop("header", {})
    facts["path"] = facts["path"] or f"not here: naila models pull {entry.name if entry is not None else args.model}"
    rows = [(key.replace("_", " "), _shown(key, value)) for key, value in facts.items()]
    rows += [(f"header: {key}", _shown(key, value)) for key, value in header.items() if key != "path"]
    _print(_table(rows))
    return 0


def _verify(args: argparse.Namespace, settings: Settings) -> int:
    catalogue = load_catalogue(settings.config_dir)
    stamps = VerifiedFiles(settings.memory_path.parent)
    results: list[dict[str, str]] = []
    try:
        if args.model is None:
            chosen = [(path, catalogue.by_file(path.name)) for path in _all_gguf(settings.models_dir)]
        else:
            chosen = [_resolve(args.model, catalogue, settings.models_dir)]
    except ModelError as exc:
        return _failed(exc)
    for path, entry in chosen:
        bar = _Bar(f"checking {path.name}")
        try:
            found = verify(path, entry, stamps=stamps, progress=bar, again=True)
        except ModelError as exc:
            results.append({"path": str(path), "outcome": "bad", "detail": str(exc)})
        else:
            outcome = "unknown" if found.outcome == "unknown" else "ok"
            how = f"SHA-256 as in {found.against}" if outcome == "ok" else "nothing says what it should be"
            results.append({"path": str(path), "outcome": outcome, "detail": f"{path}: {how}"})
        finally:
            bar.close()
    if args.json:
        _print(json.dumps(results, indent=2))
    elif results:
        for row in results:
            _print(f"{row['outcome']:<8} {row['detail']}")
    else:
        _print(f"no model files in {settings.models_dir}")
    return int(any(row["outcome"] == "bad" for row in results))


def _pull(args: argparse.Namespace, settings: Settings) -> int:
    catalogue = load_catalogue(settings.config_dir)
    entry = catalogue.by_name(args.model)
    if entry is None:
        return _failed(_unknown(args.model, catalogue))
    bar = _Bar(entry.file)
    bar.say(f"{entry.title}: {_bytes(entry.size_bytes)} from {_origin(entry)}, licence: {entry.licence}")
    try:
        path = pull(entry, settings.models_dir, bar)
    except ModelError as exc:
        bar.close()
        return _failed(exc)
    except KeyboardInterrupt:
        bar.close()
        bar.say("stopped; what is here so far is kept, run it again to go on")
        return 130
    bar.close()
    _print(json.dumps({"name": entry.name, "path": str(path)}) if args.json else str(path))
    return 0


def _resolve(model: str, catalogue: Catalogue, models_dir: Path) -> tuple[Path, CatalogueEntry | None]:
    """Find what a person means: a catalogue name, a file in the models folder, or a path."""
    entry = catalogue.by_name(model)
    if entry is not None:
        return models_dir / entry.file, entry
    for path in (Path(model), models_dir / model):
        if path.is_file():
            return path, catalogue.by_file(path.name)
    raise _unknown(model, catalogue)


def _unknown(model: str, catalogue: Catalogue) -> ModelNotFoundError:
    names = ", ".join(entry.name for entry in catalogue.entries)
    return ModelNotFoundError(f"{model} is neither a model of the catalogue ({names}) nor a file")


def _all_gguf(models_dir: Path) -> list[Path]:
    """Return every file that claims to be a GGUF: one that is not must be told, not skipped."""
    if not models_dir.is_dir():
        return []
    return sorted(path for path in models_dir.iterdir() if path.suffix.lower() == ".gguf" and path.is_file())


def _entry_row(entry: CatalogueEntry, models_dir: Path) -> dict[str, Any]:
    path = models_dir / entry.file
    size = path.stat().st_size if path.is_file() else None
    begun = any(models_dir.glob(f"{entry.file}.*part"))
    here = "partly" if begun else "-"
    if size is not None:
        here = "yes" if size == entry.size_bytes else "another size"
    return {
        "name": entry.name,
        "title": entry.title,
        "file": entry.file,
        "size_bytes": entry.size_bytes,
        "memory_bytes": entry.memory_bytes,
        "may_act": entry.may_act,
        "licence": entry.licence,
        "here": here,
    }


def _file_row(path: Path) -> dict[str, Any]:
    return {
        "name": path.name,
        "title": None,
        "file": path.name,
        "size_bytes": size_of(path),
        "memory_bytes": None,
        "may_act": None,
        "licence": None,
        "here": "yes",
    }


def _entry_facts(entry: CatalogueEntry) -> dict[str, Any]:
    return {**asdict(entry), "source": _origin(entry)}


def _origin(entry: CatalogueEntry) -> str:
    if isinstance(entry.source, HubSource):
        return f"the Hugging Face hub ({entry.source.repository})"
    return f"the package index ({entry.source.requirement})"


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _shown(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key.endswith("bytes"):
        return f"{_bytes(value)} ({value})"
    return "?" if value is None else str(value)


def _bytes(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _failed(exc: ModelError) -> int:
    sys.stderr.write(f"naila models: {exc}\n")
    return 1


class _Bar:
    """A progress bar on the standard error stream: drawn on a terminal, silent elsewhere."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._drawn_at: float | None = None
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        too_soon = self._drawn_at is not None and now - self._drawn_at < BAR_EVERY_S
        if not sys.stderr.isatty() or (too_soon and done < total):
            return
        self._drawn_at, self._shown = now, True
        share = done / total if total else 1.0
        filled = "#" * round(share * BAR_WIDTH)
        sys.stderr.write(
            f"\r{self._title}  [{filled:<{BAR_WIDTH}}] {share:4.0%}  {_bytes(done)} of {_bytes(total)}\x1b[K"
        )
        sys.stderr.flush()

    def say(self, text: str) -> None:
        """Write a line."""
        sys.stderr.write(f"{text}\n")

    def close(self) -> None:
        """End the line that the bar stands on."""
        if self._shown:
            sys.stderr.write("\n")
            self._shown = False
