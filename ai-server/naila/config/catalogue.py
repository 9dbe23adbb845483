"""The catalogue of models: what can be fetched, from where, and how a file is known to be whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naila.config.yaml_file import read_yaml
from naila.errors import ConfigurationError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.gguf")
SHA256 = re.compile(r"[0-9a-f]{64}")
REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!]*")
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
FIELDS = frozenset(
    {
        "title",
        "description",
        "file",
        "source",
        "size_bytes",
        "sha256",
        "licence",
        "memory_bytes",
        "context",
        "may_act",
    }
)


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A file inside a wheel on the Python package index.

    Attributes:
        requirement: exactly one version, `name==version`.
        member: the file's path inside the wheel.
    """

    requirement: str
    member: str


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file in a repository of a model hub.

    Attributes:
        repository: `owner/name`.
        revision: branch, tag or commit.
    """

    repository: str
    revision: str = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """A model that can be fetched.

    Attributes:
        name: what a person types.
        title: what a person reads.
        description: what it is good for.
        file: the file's name, at its source and in the models folder.
        source: where it comes from.
        size_bytes: the file's exact size.
        sha256: the file's SHA-256 in hex; None: whatever the hub states.
        licence: the licence's name.
        memory_bytes: main memory that it takes with 4096 tokens of context.
        context: tokens of context that it was trained with.
        may_act: whether it may choose actions, or only talk.
    """

    name: str
    title: str
    description: str
    file: str
    source: PackageSource | HubSource
    size_bytes: int
    sha256: str | None
    licence: str
    memory_bytes: int
    context: int
    may_act: bool


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models that can be fetched, in the order of the file.

    Attributes:
        entries: the models.
        default: the one for a first run.
    """

    entries: tuple[CatalogueEntry, ...]
    default: CatalogueEntry

    def by_name(self, name: str) -> CatalogueEntry | None:
        """Return the entry called `name`, whatever its case."""
        return next((entry for entry in self.entries if entry.name == name.lower()), None)

    def by_file(self, file: str) -> CatalogueEntry | None:
        """Return the entry whose file is called `file`."""
        return next((entry for entry in self.entries if entry.file == file), None)


def load_catalogue(config_dir: Path) -> Catalogue:
    """Read `models.yaml` in `config_dir`.

    Raises:
        ConfigurationError: names the file, the entry and the field that is wrong.
    """
    path = config_dir / "models.yaml"
    return _catalogue(_Node(str(path), read_yaml(path)))


@dataclass(frozen=True, slots=True)
class _Node:
    """A mapping of the document, which knows where it stands."""

    where: str
    value: Any

    def fields(self, allowed: frozenset[str] | None = None) -> Mapping[str, Any]:
        if not isinstance(self.value, dict) or not all(isinstance(key, str) for key in self.value):
            raise ConfigurationError(f"{self.where}: must be a mapping, got {self.value!r}")
        for key in self.value:
            if allowed is not None and key not in allowed:
                raise ConfigurationError(f"{self.where}: {key} is not a field; allowed: {', '.join(sorted(allowed))}")
        return self.value

    def child(self, field: str) -> _Node:
        return _Node(f"{self.where}: {field}", self.fields().get(field))

    def text(self, field: str, form: re.Pattern[str] | None = None) -> str:
        value = self.fields().get(field)
        if not isinstance(value, str) or not value.strip():
            raise ConfigurationError(f"{self.where}: {field} must be text, got {value!r}")
        if form is not None and not form.fullmatch(value):
            raise ConfigurationError(f"{self.where}: {field}={value!r} must match {form.pattern}")
        return value

    def positive(self, field: str) -> int:
        value = self.fields().get(field)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise ConfigurationError(f"{self.where}: {field} must be a whole number above 0, got {value!r}")
        return value

    def flag(self, field: str) -> bool:
        value = self.fields().get(field)
        if not isinstance(value, bool):
            raise ConfigurationError(f"{self.where}: {field} must be true or false, got {value!r}")
        return value


def _catalogue(root: _Node) -> Catalogue:
    root.fields(frozenset({"default", "models"}))
    models = root.child("models")
    entries = tuple(_entry(name, models.child(name)) for name in models.fields())
    files = [entry.file for entry in entries]
    for file in files:
        if files.count(file) > 1:
            raise ConfigurationError(f"{root.where}: two models have the same file {file!r}")
    default = root.text("default")
    chosen = next((entry for entry in entries if entry.name == default), None)
    if chosen is None:
        names = ", ".join(entry.name for entry in entries) or "none"
        raise ConfigurationError(f"{root.where}: default={default!r} is not one of the models: {names}")
    return Catalogue(entries, chosen)


def _entry(name: str, node: _Node) -> CatalogueEntry:
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"{node.where}: a model's name must match {NAME.pattern}")
    node.fields(FIELDS)
    source = _source(node.child("source"))
    sha256 = None if node.fields().get("sha256") is None else node.text("sha256", SHA256)
    if sha256 is None and isinstance(source, PackageSource):
        raise ConfigurationError(f"{node.where}: sha256 is needed: a package states none for the file inside it")
    return CatalogueEntry(
        name=name,
        title=node.text("title"),
        description=node.text("description"),
        file=node.text("file", FILE),
        source=source,
        size_bytes=node.positive("size_bytes"),
        sha256=sha256,
        licence=node.text("licence"),
        memory_bytes=node.positive("memory_bytes"),
        context=node.positive("context"),
        may_act=node.flag("may_act"),
    )


def _source(node: _Node) -> PackageSource | HubSource:
    fields = node.fields()
    if ("package" in fields) == ("hub" in fields):
        raise ConfigurationError(f"{node.where}: must have either package or hub, got {sorted(fields)}")
    if "package" in fields:
        node.fields(frozenset({"package", "member"}))
        return PackageSource(node.text("package", REQUIREMENT), node.text("member"))
    node.fields(frozenset({"hub", "revision"}))
    revision = node.text("revision", REVISION) if "revision" in fields else "main"
    return HubSource(node.text("hub", REPOSITORY), revision)
