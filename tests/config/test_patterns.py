from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from naila.config.patterns import OTHER_REPLIES, load_patterns
from naila.errors import ConfigurationError

REAL = Path(__file__).parents[2] / "config" / "patterns.yaml"
Change = Callable[[dict[str, Any]], object]


def changed(tmp_path: Path, change: Change) -> Path:
    document = yaml.safe_load(REAL.read_text(encoding="utf-8"))
    change(document)
    path = tmp_path / "patterns.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_the_shipped_file_is_valid() -> None:
    book = load_patterns(REAL)
    assert book.replies.keys() >= OTHER_REPLIES


def test_every_key_without_a_model_has_replies_to_choose_from() -> None:
    book = load_patterns(REAL)
    assert all(text.strip() for texts in book.replies.values() for text in texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("openers"), "openers: Field required"),
        (lambda d: d.update(surprise=1), "surprise: Extra inputs"),
        (lambda d: d["intents"][0]["patterns"].append("(a"), "intents.greeting: '.*' is not a regular expression"),
        (lambda d: d["intents"][0]["patterns"].append("%nosuch%"), "there is no macro %nosuch%"),
        (lambda d: d["intents"].append({"name": "sing", "patterns": ["la"]}), "replies.sing: missing"),
        (lambda d: d["intents"].append({"name": "sing"}), "needs either patterns or an entity"),
        (lambda d: d["intents"].append({"name": "joke", "entity": "pun"}), "there is no entity 'pun'"),
        (lambda d: d["entities"].update(pun=["^pun$"]), "entities.pun: each pattern needs a group"),
        (lambda d: d["replies"].update(greeting=["Hi {name}"]), r"replies.greeting: \{name\} is not known here"),
        (lambda d: d["replies"].update(greeting=["Hi {"]), "replies.greeting"),
        (lambda d: d["replies"].update(greeting=[]), "replies.greeting"),
        (lambda d: d["places"].update(atlantis="Ocean/Atlantis"), "places.atlantis: 'Ocean/Atlantis'"),
        (lambda d: d["feasts"].update(never="13-01"), "feasts.never"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_patterns(changed(tmp_path, change))


@pytest.mark.parametrize("content", ["{", "\xff\xfe", "- 1", ""])
def test_a_file_that_is_no_document_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "patterns.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"patterns\.yaml"):
        load_patterns(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_patterns(tmp_path / "patterns.yaml")
