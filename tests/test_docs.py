"""What the documents say, held against what the code does."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from annotated_types import Ge, Gt, Le, MaxLen
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from naila.config.settings import Settings, load_settings, variable
from naila.errors import ErrorCode
from naila.events import Intent
from naila.mqtt.codec import Codec
from naila.mqtt.publication import Publication
from naila.mqtt.topics import BRAIN_LEAVES, DEVICE_LEAVES, INTENT, Topics

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "systemd" / "README.md"])
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
EXAMPLE = ROOT / ".env.example"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def row(name: str, field: FieldInfo) -> str:
    """The line of docs/settings.md for a setting."""
    return f"| `{variable(name)}` | {shown_default(name, field)} | {allowed(name, field)} | {field.description} |"


def shown_default(name: str, field: FieldInfo) -> str:
    if field.default is None:
        return "auto" if is_auto(name) else "empty"
    return f"`{field.default}`"


def is_auto(name: str) -> bool:
    return name in {"llm_threads", "llm_gpu_layers", "llm_kv_cells"}


def allowed(name: str, field: FieldInfo) -> str:
    kinds = flat(field.annotation)
    choices = [str(choice) for kind in kinds for choice in typing.get_args(kind) if typing.get_origin(kind)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    limits: dict[str, Any] = {}
    for rule in field.metadata:
        match rule:
            case Ge(ge):
                limits["from"] = ge
            case Gt(gt):
                limits["above"] = gt
            case Le(le):
                limits["to"] = le
            case MaxLen(most):
                return f"text of at most {most} characters"
    if not limits:
        return "a path" if Path in kinds else "text, never shown" if SecretStr in kinds else "text"
    unit = "a whole number" if int in kinds else "a number"
    words = " ".join(f"{word} {limit}" for word, limit in limits.items())
    return f"{unit} {words}" + (", `auto`" if is_auto(name) else "")


def flat(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without None."""
    if typing.get_origin(annotation) is typing.Literal:
        return [annotation]
    inner = [kind for part in typing.get_args(annotation) for kind in flat(part)]
    return [kind for kind in inner or [annotation] if kind is not type(None)]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_stands_in_the_table_as_it_is(name: str) -> None:
    assert row(name, Settings.model_fields[name]) in SETTINGS.splitlines()


def test_the_table_has_no_other_setting() -> None:
    assert set(re.findall(r"^\| `([A-Z_0-9]+)` \|", SETTINGS, re.MULTILINE)) == set(
        map(variable, Settings.model_fields)
    )


def test_the_example_names_every_setting_with_its_default() -> None:
    stated = dict(re.findall(r"^#([A-Z_0-9]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE))
    defaults = {
        variable(name): "" if field.default is None else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert {name: "" if is_auto(name.lower()) else value for name, value in stated.items()} == defaults


def test_the_example_is_valid_as_it_is_and_with_every_line_switched_on(tmp_path: Path) -> None:
    defaults = load_settings(env_file=None, environ={}, yaml_file=tmp_path / "none.yaml")
    switched_on = tmp_path / "env"
    switched_on.write_text(re.sub(r"^#(?=[A-Z])", "", EXAMPLE.read_text(), flags=re.MULTILINE))
    for file in (EXAMPLE, switched_on):
        assert load_settings(env_file=file, environ={}, yaml_file=tmp_path / "none.yaml") == defaults


def test_naila_yaml_is_valid_as_it_is_and_with_every_line_switched_on(tmp_path: Path) -> None:
    text = (ROOT / "config" / "naila.yaml").read_text()
    assert yaml.safe_load(text) is None
    switched_on = tmp_path / "naila.yaml"
    switched_on.write_text(re.sub(r"^#(?=[a-z_]+:)", "", text, flags=re.MULTILINE))
    settings = load_settings(env_file=None, environ={}, yaml_file=switched_on)
    assert set(yaml.safe_load(switched_on.read_text())) == settings.model_fields_set


@pytest.mark.parametrize(
    "topic",
    [
        *(f"naila/devices/{{device_id}}/{leaf}" for leaf in sorted(DEVICE_LEAVES + BRAIN_LEAVES)),
        *(getattr(Topics("naila"), name) for name in ("brain_status", "health", "metrics", "alerts")),
    ],
)
def test_every_topic_is_described(topic: str) -> None:
    assert f"`{topic}`" in PROTOCOL


@pytest.mark.parametrize("code", typing.get_args(ErrorCode))
def test_every_error_code_is_described(code: str) -> None:
    assert f"`{code}`" in PROTOCOL


def examples(kind: str) -> list[str]:
    return [body for language, body in FENCE.findall(PROTOCOL) if language == kind]


def test_there_are_examples() -> None:
    assert len(examples("json")) >= 4


@pytest.mark.parametrize("body", examples("json"))
def test_every_json_example_parses_and_every_intent_is_accepted(body: str) -> None:
    codec = Codec(Topics("naila"), 65_536)
    for line in body.splitlines():
        document = json.loads(line)
        if "text" in document and "intent" not in document and "seq" not in document:
            event = codec.decode(Publication(topic=Topics("naila").device("r2", INTENT), payload=line.encode()))
            assert isinstance(event, Intent)


@pytest.mark.parametrize("leaf", ["reply", "reply/stream", "error"])
def test_every_example_of_what_the_brain_says_is_of_the_contract(leaf: str) -> None:
    codec = Codec(Topics("naila"), 65_536)
    found = re.findall(rf"^naila/devices/r2/{leaf} (\{{.*\}})$", PROTOCOL, re.MULTILINE)
    assert found
    for payload in found:
        codec.decode_outbound(Publication(topic=f"naila/devices/r2/{leaf}", payload=payload.encode()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_local_link_leads_somewhere(document: Path) -> None:
    text = FENCE.sub("", document.read_text())
    for target in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{document.name}: {target}"
        if anchor:
            assert anchor in map(slug, HEADING.findall(path.read_text())), f"{document.name}: {target}"


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_decisions_are_numbered_without_gaps_and_short() -> None:
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        text = file.read_text()
        assert len(text.splitlines()) <= 40, file.name
        assert all(f"\n## {part}\n" in text for part in ("Context", "Decision", "Consequences")), file.name
