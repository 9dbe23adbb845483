"""The language of commands is read once, and what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from naila.config.lexicon import LEXICON_FILE, load_lexicon
from naila.errors import ConfigurationError


def test_the_lexicon_is_complete() -> None:
    lexicon = load_lexicon()
    assert "drive" in {word for group in lexicon.synonyms for word in group}
    assert lexicon.senses.keys() >= lexicon.nearby.keys() | {
        other for near in lexicon.nearby.values() for other in near
    }


def test_no_word_is_a_yaml_boolean_by_accident() -> None:
    lexicon = load_lexicon()
    assert "on" in lexicon.senses["on"]
    assert "no" in lexicon.negations
    assert "yes" in lexicon.openers


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("\nsuffixes: {cm: centimeter", "\nsuffixes: {cm: smoot", "smoot"),
        ("\nrewrites:", "\nrewrites:\n  - ['(', 'x']\nunknown_key: 1\nold:", "rewrites"),
        ("\nextremes:", "\nextremes_gone:", "extremes"),
        ("{full: 1, maximum: 1", "{full: 7, maximum: 1", "extremes.full"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    text = LEXICON_FILE.read_text(encoding="utf-8")
    assert old in text
    changed = tmp_path / "lexicon.yaml"
    changed.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=named):
        load_lexicon(changed)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml"):
        load_lexicon(tmp_path / "nothing.yaml")
