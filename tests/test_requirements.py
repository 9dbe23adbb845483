"""What is installed is pinned, with the hashes of what may be installed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]
ENTRY = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)==\S+ \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+(?:    # via .*\n)?"
)


def names(path: Path) -> list[str]:
    return [found["name"].lower() for found in ENTRY.finditer(path.read_text())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_there_is_nothing_but_pins_with_hashes(path: Path) -> None:
    left = ENTRY.sub("", path.read_text())
    lines = [line for line in left.splitlines() if line and not line.startswith("#")]
    assert lines == (["-r requirements.txt"] if "dev" in path.name else [])


def test_nothing_is_pinned_twice() -> None:
    both = [name for path in FILES for name in names(path)]
    assert len(both) == len(set(both))


def test_what_the_project_asks_for_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = [
        *project["dependencies"],
        *project["optional-dependencies"]["broker"],
        *project["optional-dependencies"]["hub"],
    ]
    asked = {re.split(r"[\[<>=~! ]", line)[0].lower() for line in core}
    assert asked <= set(names(FILES[0]))


def test_the_scripts_install_nothing_without_a_hash() -> None:
    setup = (ROOT / "scripts" / "_setup").read_text()
    installs = re.findall(r"pip install(?:\\\n|[^\n])*", setup)
    assert len(installs) == 2
    assert all("--require-hashes" in line or "--no-deps -e ." in line for line in installs)
