"""SECURITY.md points at tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text()
SHOWN_BY = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))


@pytest.mark.parametrize(("file", "test"), SHOWN_BY)
def test_what_shows_it_is_there(file: str, test: str) -> None:
    path = ROOT / file
    assert path.is_file()
    assert not test or re.search(rf"^(async )?def {test}\(", path.read_text(), re.MULTILINE)


def test_every_threat_of_the_tables_is_shown_by_something() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| what", "| who |"))]
    unshown = [row for row in rows if "`tests/" not in row]
    assert len(rows) > 20
    assert [row.split("|")[1].strip() for row in unshown] == ["root, or who holds the disk"]
