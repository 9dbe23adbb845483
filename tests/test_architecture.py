"""The rules of the house, read from the source: who may import whom, where each library, topic and variable lives."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "ai-server"
PACKAGE = SOURCE / "naila"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

FOUNDATION = {"errors", "events", "fleet", "kept", "ports", "turn_ids"}
# Each part of the house and the parts that it may know, besides itself. `services` and `inference` are one adapter.
MAY_KNOW = {
    **dict.fromkeys(FOUNDATION, FOUNDATION),
    "config": FOUNDATION,
    "mqtt": FOUNDATION | {"config"},
    "memory": FOUNDATION | {"config"},
    "devices": FOUNDATION | {"config"},
    "utils": FOUNDATION | {"config"},
    "services": FOUNDATION | {"config", "inference"},
    "inference": FOUNDATION | {"config"},
    "understanding": FOUNDATION | {"config"},
    "orchestration": FOUNDATION | {"config", "understanding"},
    "agents": FOUNDATION | {"config", "orchestration", "understanding"},
}
WIRES = {"server", "commands", "cli", "__main__"}

# A library and the only modules, or packages, that know it.
HOMES = {
    "paho": {"naila.mqtt.client"},
    "amqtt": {"naila.mqtt.broker"},
    "llama_cpp": {"naila.inference"},
    "numpy": {"naila.inference.sampling"},
    "jinja2": {"naila.inference.chat_format"},
    "langgraph": {"naila.orchestration.graph", "naila.orchestration.wish", "naila.memory.checkpoints"},
    "langchain_core": {"naila.memory.checkpoints"},  # the type of LangGraph's configurations
    "psutil": {"naila.utils.hardware_detection"},
    "sqlite3": {"naila.memory"},
    "yaml": {"naila.config"},
    "dotenv": {"naila.config"},
    "pydantic": {"naila.config"},
    "huggingface_hub": {"naila.services"},
    "httpx": {"naila.services"},
    "jsonschema": {"naila.devices.schema"},
    "referencing": {"naila.devices.schema"},
    "pint": {"naila.understanding.conversions"},
    "text_to_num": {"naila.understanding.numbers"},
    "rapidfuzz": {"naila.understanding"},
    "aiosqlite": {"naila.memory.checkpoints"},
    "tqdm": {"naila.services"},
}
TOPIC_HOME = "naila.mqtt.topics"
# notify speaks systemd's protocol, whose variables are no settings.
ENVIRONMENT_HOMES = {"naila.config.settings", "naila.server.notify"}
MAX_LINES = 530
EMPTY_WORDS = ("Manager", "Handler", "Helper", "Provider")


def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield the full names of what a module imports, wherever in it the import stands."""
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in names)


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def lives_in(module: str, homes: set[str]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


def strings(module: str) -> Iterator[str]:
    """Yield the strings of a module that are not documentation."""
    tree = parse(module)
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_there_is_a_house() -> None:
    assert len(MODULES) > 50
    assert {part(module) for module in MODULES} - {""} <= MAY_KNOW.keys() | WIRES


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) in MAY_KNOW])
def test_a_module_knows_only_who_it_may(module: str) -> None:
    mine = part(module)
    known = {part(name) for name in imports(module) if name.split(".")[0] == "naila"}
    # The package itself holds nothing but the version.
    assert known - MAY_KNOW[mine] - {mine, ""} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) in FOUNDATION])
def test_the_foundation_needs_nothing_but_the_standard_library(module: str) -> None:
    roots = {name.split(".")[0] for name in imports(module)}
    assert roots - set(sys.stdlib_module_names) - {"naila"} == set()


@pytest.mark.parametrize("module", MODULES)
def test_every_library_has_one_home(module: str) -> None:
    for name in imports(module):
        root = name.split(".")[0]
        if root in HOMES:
            assert lives_in(module, HOMES[root]), f"{module} imports {name}"
        else:
            assert root == "naila" or root in sys.stdlib_module_names, f"{name} has no home"


@pytest.mark.parametrize("module", [module for module in MODULES if module != TOPIC_HOME])
def test_topics_stand_in_one_module(module: str) -> None:
    topic = re.compile(
        r"\bnaila/|(?<!sys/)\bdevices/|/intent\b|/reply\b|\breply/stream\b|\bai/(status|health|metrics|alerts)\b"
    )
    assert [text for text in strings(module) if topic.search(text)] == []


@pytest.mark.parametrize("module", [module for module in MODULES if module not in ENVIRONMENT_HOMES])
def test_the_environment_is_read_in_one_module(module: str) -> None:
    tree = parse(module)
    written = {
        id(node.value)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.Attribute) and node.attr == "setdefault")
    }
    for node in ast.walk(tree):
        if id(node) in written:
            continue  # told to a library
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in {"environ", "environb", "getenv", "putenv"}, f"{module}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {alias.name for alias in node.names} & {"environ", "getenv"}, f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", MODULES)
def test_a_class_is_named_for_a_thing(module: str) -> None:
    names = [node.name for node in ast.walk(parse(module)) if isinstance(node, ast.ClassDef)]
    assert [name for name in names if name.endswith(EMPTY_WORDS)] == []


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(parse(module))
