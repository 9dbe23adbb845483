"""Alerts tell a person what to do: each in its words, and in the table of docs/operations.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
TABLE = OPERATIONS[OPERATIONS.index("## Alerts") :].partition("\n## ")[0]


def codes() -> Iterator[str]:
    """Yield the code of every alert of the server, as its source has it."""
    for path in sorted((ROOT / "ai-server" / "naila" / "server").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Alert":
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                        yield str(keyword.value.value)


@pytest.mark.parametrize("code", sorted(set(codes())))
def test_the_table_says_what_to_do(code: str) -> None:
    row = re.search(rf"^\| `{code}` \|.*\| (.+) \|$", TABLE, re.MULTILINE)
    assert row, f"{code} is not in the table of alerts"
    assert row[1].strip()
