"""What is fuzzed: each target takes any bytes, and returns; whatever else happens is a bug.

A target swallows exactly what its module says that it raises. `tests/fuzz/test_fuzz.py` runs them with Hypothesis and
with the cases that were found, `scripts/fuzz` guided by coverage.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from naila.config.catalogue import load_catalogue
from naila.config.lexicon import load_lexicon
from naila.config.monitoring import load_monitoring
from naila.config.patterns import load_patterns
from naila.config.permissions import load_permissions
from naila.config.personas import load_personas
from naila.config.settings import load_settings
from naila.devices.capabilities import read_profile
from naila.devices.schema import check_parameters, violations
from naila.errors import ConfigurationError, ContractError, ModelError, UnsupportedSchemaError
from naila.events import Capabilities, Inbound
from naila.fleet import DeviceView, FleetView
from naila.inference import wire
from naila.inference.gguf import read_header
from naila.inference.grammar import gbnf
from naila.inference.kv_store import KvStore
from naila.mqtt.codec import Codec
from naila.mqtt.publication import Publication
from naila.mqtt.topics import Topics
from naila.orchestration.guard import StreamGuard
from naila.server.redaction import Redaction
from naila.server.ring import read_ring
from naila.understanding.reader import CommandReader
from naila.understanding.reading import Commands, OpenQuestion
from naila.understanding.stop_words import StopWords

ROOT: Final = Path(__file__).parents[2]
CONFIG: Final = ROOT / "config"
MAX_BYTES: Final = 65_536
LEAVES: Final = (
    *("intent", "cancel", "status", "capabilities", "telemetry", "action/result", "confirm", "stop"),
    *("reply", "reply/stream", "error", "action", "action/pending", "nothing", ""),
)
EXAMPLES: Final = tuple(sorted((ROOT / "examples").glob("*.json")))

Target = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """A target.

    Attributes:
        run: takes the bytes.
        seeds: where the fuzzer begins: sound input.
        max_bytes: longer input is not tried.
        seconds: input that takes longer is a bug.
    """

    run: Target
    seeds: Sequence[bytes]
    max_bytes: int = 4096
    seconds: float = 1.0


@functools.cache
def codec() -> Codec:
    """The daemon's own."""
    return Codec(Topics("naila"), MAX_BYTES, lambda: "made")


@functools.cache
def folder() -> Path:
    """A folder in memory, where there is one, for what is read from files."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    return Path(tempfile.mkdtemp(prefix="naila-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))


def clean_up() -> None:
    """Remove what the targets wrote."""
    if folder.cache_info().currsize:
        shutil.rmtree(folder(), ignore_errors=True)
        folder.cache_clear()


def inbound(data: bytes) -> None:
    """A message of a device: the first byte says which topic, the second how it came."""
    leaf, flags, payload = data[:1], data[1:2], data[2:]
    retain = bool(flags and flags[0] & 1)
    topic = f"naila/devices/r2/{LEAVES[leaf[0] % len(LEAVES)] if leaf else ''}"
    message = Publication(topic=topic, payload=payload, qos=1, retain=retain)
    codec().said(message)
    try:
        event = codec().decode(message)
    except ContractError as exc:
        told = exc.device_id
    else:
        _decoded(event)
        return
    assert told in {None, "r2"}


def _decoded(event: Inbound | None) -> None:
    """What was let in is for this device, and is the same when it is written and read again."""
    if event is None:
        return
    assert event.device_id == "r2"
    again = codec().decode(codec().encode(event))
    assert again == event, (again, event)
    if isinstance(event, Capabilities) and event.document is not None:
        _declared(event.document)


def outbound(data: bytes) -> None:
    """A message of the brain, as a device reads it."""
    leaf, payload = data[:1], data[1:]
    topics = Topics("naila")
    places = [topics.device("r2", leaf) for leaf in LEAVES]
    places += [topics.brain_status, topics.health, topics.metrics, topics.alerts]
    try:
        codec().decode_outbound(Publication(topic=places[leaf[0] % len(places)] if leaf else "", payload=payload))
    except ContractError:
        return


def topics(data: bytes) -> None:
    """A topic, below ours or anywhere."""
    raw = data.decode("utf-8", "replace")
    for topic in (raw, f"naila/devices/{raw}", f"naila/devices/{raw}/intent"):
        try:
            device_id, _ = Topics("naila").parse(topic)
        except ContractError as exc:
            told = exc.device_id
            assert told is None or not set(told) & set("+#/\0\n"), told
        else:
            assert 1 <= len(device_id) <= 64


def _object(data: bytes) -> Mapping[str, Any] | None:
    """Return what the daemon would read, as the codec lets it in."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _declared(document: Mapping[str, Any]) -> None:
    try:
        profile = read_profile("r2", document)
    except ContractError as exc:
        str(exc).encode("utf-8", "backslashreplace")
        return
    for action in profile.actions.values():
        violations(action.parameters, {"distance": 10**400, "x": None, "": [[]]})
        try:
            gbnf(action.parameters)
        except UnsupportedSchemaError:
            continue


def capabilities(data: bytes) -> None:
    """What a device declares, through the codec, as it comes."""
    inbound(bytes([LEAVES.index("capabilities"), 0]) + data)


def schema(data: bytes) -> None:
    """The parameters of an action, and arguments for them."""
    first, _, second = data.partition(b"\0")
    declared, arguments = _object(first), _object(second)
    if declared is None:
        return
    try:
        checked = check_parameters(dict(declared), "parameters")
    except ContractError:
        return
    violations(checked, arguments or {})


def settings(data: bytes) -> None:
    """A `.env`, a `naila.yaml` and an environment, all three of the same words."""
    env, yaml = folder() / "env", folder() / "naila.yaml"
    env.write_bytes(data)
    yaml.write_bytes(data)
    pairs = (line.partition("=") for line in data.decode("utf-8", "replace").splitlines())
    environ = {name.strip(): value for name, _, value in pairs}
    nowhere = folder() / "none"
    none: dict[str, str] = {}
    for env_file, yaml_file, variables in ((env, nowhere, none), (None, yaml, none), (None, nowhere, environ)):
        try:
            load_settings(env_file=env_file, yaml_file=yaml_file, environ=variables)
        except ConfigurationError as exc:
            str(exc).encode("utf-8", "backslashreplace")


def _loads(name: str, load: Callable[[Path], object]) -> Target:
    def run(data: bytes) -> None:
        path = folder() / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        try:
            load(path)
        except ConfigurationError as exc:
            str(exc).encode("utf-8", "backslashreplace")

    return run


def gguf(data: bytes) -> None:
    """The header of a model file."""
    path = folder() / "model.gguf"
    path.write_bytes(data)
    try:
        read_header(path)
    except ModelError as exc:
        str(exc).encode("utf-8", "backslashreplace")


def kv_files(data: bytes) -> None:
    """A file of a saved conversation: what is damaged is removed, and never served as another."""
    kept = folder() / "kv"
    kept.mkdir(exist_ok=True)
    path = kept / "0123456789abcdef.kv"
    path.write_bytes(data)
    store = KvStore(kept, "fingerprint", budget_bytes=10**6)
    try:
        saved, _ = store.longest(array("i", [1, 2, 3]), "r2/default")
        if saved is not None:
            store.load(saved)
    finally:
        store.close()
        path.unlink(missing_ok=True)


def engine_line(data: bytes) -> None:
    """What an engine process says that may have been taken over by the model file that it read."""
    try:
        message = wire.parse(data)
        for read in (wire.read_end, wire.read_log):
            _tried(read, message)
        _tried(wire.read_figures, message.get("figures"))
    except ValueError:
        return


def _tried(read: Callable[[Any], object], value: object) -> None:
    try:
        read(value)
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # worker_host takes any exception for a process that is out of order


@functools.cache
def reader() -> CommandReader:
    """The daemon's own."""
    return CommandReader(load_lexicon(CONFIG / "lexicon.yaml"))


@functools.cache
def view() -> FleetView:
    """The examples' robots, as somebody who speaks through the rover sees them."""
    profiles = [read_profile(path.stem, json.loads(path.read_text())) for path in EXAMPLES]
    return FleetView("rover", tuple(DeviceView(profile=each, online=True, readings={}) for each in profiles))


QUESTIONS: Final = (
    None,
    OpenQuestion(kind="argument", device_id="rover", action="drive", argument="distance"),
    OpenQuestion(kind="device", action="stop", choices=("rover", "arm")),
)


def understanding(data: bytes) -> None:
    """What somebody says: whatever is read out of it, it is declared."""
    text = data.decode("utf-8", "replace")
    for question in QUESTIONS:
        reading = reader().read(text, view(), question=question, about="arm")
        if isinstance(reading, Commands):
            for step in reading.steps:
                device = view().device(step.device_id)
                assert device is not None, step
                assert step.name in device.profile.actions or step.name == "stop", step


@functools.cache
def _stop_words() -> StopWords:
    return StopWords(["stop", "halt", "emergency stop", "arrêt", "para"])


def stop_words(data: bytes) -> None:
    """Whether somebody says stop, and secrets in what is logged of it."""
    text = data.decode("utf-8", "replace")
    _stop_words().matches(text)
    assert "sesame street" not in Redaction(["sesame street"])(text)


def guard(data: bytes) -> None:
    """What a model writes: how it is cut into pieces makes no difference."""
    parts = data.decode("utf-8", "replace").split("~")
    texts = []
    for pieces in (parts, ["".join(parts)]):
        watch = StreamGuard()
        said = "".join([*(watch.feed(piece) for piece in pieces), watch.finish()])
        assert said == watch.text
        texts.append(said)
    assert texts[0] == texts[1], texts


def ring(data: bytes) -> None:
    """A flight record after a power cut."""
    path = folder() / "ring"
    path.write_bytes(data)
    read_ring(path, slot_bytes=64)


def _messages() -> Iterator[bytes]:
    said = {
        "intent": {"id": "q1", "text": "drive 2 m", "stream": True, "entities": {"x": 1}, "expires_in_ms": 5},
        "cancel": {"id": "q1"},
        "status": {"status": "online", "battery": 5},
        "telemetry": {"battery_percent": 51.5, "mode": "idle"},
        "action/result": {"id": "a1", "status": "done", "message": "ok", "data": {"m": 2}},
        "confirm": {"id": "p1", "approve": True},
        "stop": {"request_id": "q1"},
    }
    for leaf, body in said.items():
        yield bytes([LEAVES.index(leaf), 0]) + json.dumps(body).encode()
    yield bytes([LEAVES.index("intent"), 0]) + b"What time is it?"
    for path in EXAMPLES:
        yield bytes([LEAVES.index("capabilities"), 1]) + json.dumps(json.loads(path.read_text())).encode()


def _config(*names: str) -> list[bytes]:
    return [(CONFIG / name).read_bytes() for name in names]


_DOCUMENTS: Final = [json.dumps(json.loads(path.read_text())).encode() for path in EXAMPLES]
_GGUF: Final = (
    b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"
    b"\x14\0\0\0\0\0\0\0general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama"
    b"\x11\0\0\0\0\0\0\0llama.block_count\x04\0\0\0\x01\0\0\0"
    b"\x01\0\0\0\0\0\0\0w\x01\0\0\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" + bytes(128)
)
_YAML_SECONDS: Final = 5.0  # PyYAML reads a few hundred kilobytes a second

TARGETS: Final[Mapping[str, Fuzzed]] = {
    "inbound": Fuzzed(inbound, list(_messages()), 16_384),
    "outbound": Fuzzed(outbound, [bytes([8]) + b'{"id":"q","text":"x","intent":"chat","source":"llm"}'], 8192),
    "topics": Fuzzed(topics, [b"r2", b"naila/devices/r2/intent", b"naila/fleet/stop"], 512),
    "capabilities": Fuzzed(capabilities, _DOCUMENTS, 16_384, 2.0),
    "schema": Fuzzed(
        schema, [b'{"type":"object","properties":{"x":{"type":"number","maximum":2}}}\0{"x":1}'], 4096, 2.0
    ),
    "settings": Fuzzed(
        settings, [*_config("naila.yaml"), b"MQTT_PORT=1\nLLM_SEED=\nmqtt_port: 5"], 4096, _YAML_SECONDS
    ),
    "patterns": Fuzzed(_loads("patterns.yaml", load_patterns), _config("patterns.yaml"), 65_536, _YAML_SECONDS),
    "permissions": Fuzzed(
        _loads("permissions.yaml", load_permissions), _config("permissions.yaml"), 8192, _YAML_SECONDS
    ),
    "monitoring": Fuzzed(_loads("monitoring.yaml", load_monitoring), _config("monitoring.yaml"), 8192, _YAML_SECONDS),
    "lexicon": Fuzzed(_loads("lexicon.yaml", load_lexicon), _config("lexicon.yaml"), 65_536, 10.0),
    "catalogue": Fuzzed(
        _loads("models.yaml", lambda path: load_catalogue(path.parent)), _config("models.yaml"), 16_384, _YAML_SECONDS
    ),
    "personas": Fuzzed(
        _loads("personas/x.yaml", lambda path: load_personas(path.parent)),
        _config("personas/naila.yaml"),
        16_384,
        _YAML_SECONDS,
    ),
    "gguf": Fuzzed(gguf, [_GGUF], 8192),
    "kv_files": Fuzzed(kv_files, [], 4096, 2.0),
    "engine_line": Fuzzed(
        engine_line,
        [
            b'{"of":0,"error":{"kind":"EngineFailedError","message":"x","code":1}}',
            b'{"figures":{"steps":5},"stalled_for":0}',
            b'{"log":"x","level":30,"logger":"naila.x"}',
        ],
    ),
    "understanding": Fuzzed(
        understanding,
        [b"drive forward 2 m and then turn left 90 degrees", b"how full is the battery?", b"stop", b"the arm, two"],
        1024,
        2.0,
    ),
    "stop_words": Fuzzed(stop_words, [b"Stop!", b"stooop please", b"password=sesame street"], 4096),
    "guard": Fuzzed(guard, [b"Hello.~ Hello.~ I drive now.~<|im~_end|>"], 4096),
    "ring": Fuzzed(ring, [b"0000000000000000- " + b"x" * 45 + b"\n"], 1024),
}
