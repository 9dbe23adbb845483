"""A YAML file is read as YAML says, and a hostile one is refused with a message."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from naila.config.yaml_file import read_yaml
from naila.errors import ConfigurationError

ALIASES = "a: &a [1, 2, 3]\n" + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 50)}]\n" for a, b in ("ab", "bc", "cd"))
PLAIN = """
a: &x {on: 'on', n: 1_000, t: yes, d: 2020-01-02, s: ~}
b: [*x, 0o7, .5, ü, "\\u00e4"]
c: |
  two
  lines
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 20_000, "nested too deeply"),
        ("- " * 20_000 + "a", "nested too deeply"),
        ("a: [", "not valid YAML"),
        ("&a [*a]", "endless"),
        (ALIASES, "too large"),
        ("!!python/object:os.system x", "not valid YAML"),
        ("2020-99-99", "not valid YAML"),
    ],
    ids=["flow", "block", "cut", "itself", "aliases", "object", "date"],
)
def test_a_hostile_file_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=why):
        read_yaml(path)


def test_a_document_is_what_plain_python_makes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(PLAIN, encoding="utf-8")

    assert read_yaml(path) == yaml.safe_load(PLAIN)
    path.write_text("", encoding="utf-8")
    assert read_yaml(path) is None
