"""Reads a YAML file, whatever it holds: a wrong one is a message, never a crash; a running daemon reads them too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml
from yaml.composer import Composer

from naila.errors import ConfigurationError

MAX_BYTES: Final = 1_000_000
MAX_NODES: Final = 100_000


class _Quick(Composer):
    """Composes in Python what libyaml parses: ten times as fast as Python alone, and what is nested is still counted.

    libyaml's own composer would overflow the stack.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        yaml.CSafeLoader.__init__(self, text)  # type: ignore[arg-type]  # it is one: see _LOADER


_LOADER: Final[Any] = type("_Loader", (_Quick, yaml.CSafeLoader), {}) if yaml.__with_libyaml__ else yaml.SafeLoader


def read_yaml(path: Path) -> Any:
    """Return the file's document.

    Raises:
        ConfigurationError: it cannot be read, is no YAML, or is larger than any file of ours.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path}: cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{path}: has more than {MAX_BYTES} bytes")
    try:
        loader = _LOADER(data.decode("utf-8"))
        try:
            root = loader.get_single_node()
            _measure(path, root)
            return loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except ConfigurationError:
        raise
    except RecursionError:
        raise ConfigurationError(f"{path}: not valid YAML: nested too deeply") from None
    except Exception as exc:
        # PyYAML lets through what its constructors raise: ValueError for the 99th of a month, TypeError, …
        raise ConfigurationError(f"{path}: not valid YAML: {exc}") from exc


def _measure(path: Path, root: yaml.Node | None) -> None:
    """Refuse a document that is small only as long as its aliases are not followed."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        sizes[id(node)] = MAX_NODES  # what holds itself is endless
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = list(node.value)
        elif isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if root is not None and size(root) > MAX_NODES:
        raise ConfigurationError(f"{path}: not valid YAML: its aliases make it endless, or too large")
