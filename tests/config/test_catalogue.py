from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from naila.config.catalogue import HubSource, PackageSource, load_catalogue
from naila.errors import ConfigurationError

CONFIG_DIR = Path(__file__).parents[2] / "config"


def a_document() -> dict[str, Any]:
    return {
        "default": "tiny",
        "models": {
            "tiny": {
                "title": "Tiny",
                "description": "For tests.",
                "file": "tiny.gguf",
                "source": {"package": "tiny==1.0", "member": "tiny/tiny.gguf"},
                "size_bytes": 10,
                "sha256": "ab" * 32,
                "licence": "MIT",
                "memory_bytes": 20,
                "context": 2048,
                "may_act": False,
            }
        },
    }


def write(folder: Path, document: object) -> Path:
    (folder / "models.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder


def test_the_shipped_catalogue_names_every_model_of_the_issue() -> None:
    catalogue = load_catalogue(CONFIG_DIR)
    assert [entry.name for entry in catalogue.entries] == [
        "smollm2-135m",
        "llama-3.1-8b",
        "llama-3.2-3b",
        "phi-3-mini-4k",
        "tinyllama-1.1b",
        "mistral-7b-v0.2",
    ]
    assert catalogue.default.name == "smollm2-135m"
    assert isinstance(catalogue.default.source, PackageSource)
    assert not catalogue.default.may_act
    real = catalogue.by_name("Llama-3.1-8B")
    assert real is not None
    assert real.may_act
    assert isinstance(real.source, HubSource)
    assert catalogue.by_file(real.file) is real
    assert catalogue.by_name("gpt-5") is None
    assert catalogue.by_file("other.gguf") is None
    for entry in catalogue.entries:
        assert entry.size_bytes < entry.memory_bytes < 2 * entry.size_bytes + 500_000_000


def test_a_hub_file_may_leave_its_sha256_to_the_hub(tmp_path: Path) -> None:
    document = a_document()
    document["models"]["tiny"].update(source={"hub": "maker/tiny-GGUF", "revision": "v1"}, sha256=None)
    entry = load_catalogue(write(tmp_path, document)).default
    assert entry.sha256 is None
    assert entry.source == HubSource("maker/tiny-GGUF", "v1")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("title", "", "title must be text"),
        ("title", 7, "title must be text, got 7"),
        ("file", "../tiny.gguf", "file='../tiny.gguf' must match"),
        ("file", "tiny.bin", "must match"),
        ("file", ".tiny.gguf", "must match"),
        ("size_bytes", 0, "size_bytes must be a whole number above 0, got 0"),
        ("size_bytes", True, "size_bytes"),
        ("size_bytes", "10", "size_bytes"),
        ("memory_bytes", 1.5, "memory_bytes"),
        ("context", None, "context"),
        ("sha256", "AB" * 32, "sha256="),
        ("sha256", None, "sha256 is needed"),
        ("may_act", "yes please", "may_act must be true or false"),
        ("licence", None, "licence must be text"),
        ("colour", "blue", "colour is not a field; allowed: context"),
        ("source", "hub", "source: must be a mapping"),
        ("source", {}, "either package or hub"),
        ("source", {"hub": "a/b", "package": "c==1", "member": "d"}, "either package or hub"),
        ("source", {"hub": "no-owner"}, "hub='no-owner' must match"),
        ("source", {"hub": "a/b", "revision": "-x"}, "revision='-x' must match"),
        ("source", {"hub": "a/b", "member": "c"}, "member is not a field"),
        ("source", {"package": "tiny>=1", "member": "d"}, "package='tiny>=1' must match"),
        ("source", {"package": "--index-url=x==1", "member": "d"}, "must match"),
        ("source", {"package": "tiny==1"}, "member must be text"),
    ],
)
def test_a_wrong_field_is_named_with_its_entry(tmp_path: Path, field: str, value: object, says: str) -> None:
    document = a_document()
    document["models"]["tiny"][field] = value
    with pytest.raises(ConfigurationError) as caught:
        load_catalogue(write(tmp_path, document))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'models.yaml'}: models: tiny")
    assert says in message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"default": "huge"}, "default='huge' is not one of the models: tiny"),
        ({"default": None}, "default must be text"),
        ({"models": []}, "models: must be a mapping"),
        ({"models": {"Tiny Model": {}}}, "a model's name must match"),
        ({"models": {1: {}}}, "must be a mapping"),
        ({"more": 1}, "more is not a field"),
    ],
)
def test_a_wrong_document_is_told(tmp_path: Path, change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_catalogue(write(tmp_path, {**a_document(), **change}))
    assert says in str(caught.value)


def test_two_models_cannot_share_a_file(tmp_path: Path) -> None:
    document = a_document()
    document["models"]["other"] = document["models"]["tiny"]
    with pytest.raises(ConfigurationError, match=r"two models have the same file 'tiny\.gguf'"):
        load_catalogue(write(tmp_path, document))


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\xff", b"just text", b""])
def test_a_file_that_is_no_catalogue_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "models.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"models\.yaml"):
        load_catalogue(tmp_path)


def test_a_missing_catalogue_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_catalogue(tmp_path)
