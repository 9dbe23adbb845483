"""Settings: the only reader of the environment.

In order of strength: environment variables, `.env`, `config/naila.yaml`, the defaults here. Read once, frozen,
passed down. A wrong value stops the start with the variable, the value and what is allowed.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from naila.config.yaml_file import read_yaml
from naila.errors import ConfigurationError
from naila.fleet import ID_RULE

ALIASES = {"model_path": "llm_model_path"}
PREFIXES = (
    "LLM_",
    "MQTT_",
    "MEMORY_",
    "HEALTH_",
    "METRICS_",
    "LOG_",
    "QUEUE_",
    "MODEL_",
    "MODELS_",
    "ACTIONS_",
    "AUDIT_",
    "HOME_ASSISTANT_",
    "RECORD_",
)
CREDENTIALS = "CREDENTIALS_DIRECTORY"  # systemd's, see systemd.exec(5)
PASSWORD_CREDENTIAL = "mqtt_password"  # noqa: S105 - a name
MAX_PASSWORD_BYTES = 4096
TOPIC_ROOT = re.compile(f"{ID_RULE}(/{ID_RULE})*")


def _blank_is_none(value: object) -> object:
    """`NAME=` in a `.env` file means: not set."""
    return None if isinstance(value, str) and not value.strip() else value


def _auto_is_none(value: object) -> object:
    """`auto` means: worked out from the hardware."""
    if isinstance(value, str) and value.strip().lower() in {"", "auto"}:
        return None
    return value


def _topic_root(value: str) -> str:
    if not TOPIC_ROOT.fullmatch(value):
        raise ValueError("must be one or more levels of letters, digits, '_' and '-', separated by '/'")
    return value


def _yes_or_no(value: object) -> object:
    """YAML reads an unquoted `yes` as true."""
    return ("yes" if value else "no") if isinstance(value, bool) else value


def _on_or_off(value: object) -> object:
    """YAML reads an unquoted `on` as true."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Auto = BeforeValidator(_auto_is_none)
Optional = BeforeValidator(_blank_is_none)
OptionalPath = Annotated[Path | None, Optional]
OptionalText = Annotated[str | None, Optional]


class Settings(BaseModel):
    """Everything that can be set. A field's variable is its name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    llm_model_path: OptionalPath = Field(
        None, description="GGUF file to serve (alias MODEL_PATH). Empty: the largest in MODELS_DIR that fits."
    )
    llm_mode: Literal["inprocess", "api"] = Field("inprocess", description="Where the model runs: inprocess.")
    llm_context_size: int = Field(4096, ge=256, le=1_048_576, description="Context in tokens of one conversation.")
    llm_kv_cells: Annotated[int | None, Auto] = Field(
        None,
        ge=256,
        le=16_777_216,
        description="Tokens that the KV cache holds, all conversations together. auto: eight contexts, where they fit.",
    )
    llm_max_tokens: int = Field(512, ge=1, le=131_072, description="Most tokens in one answer.")
    llm_temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature, 0 is greedy.")
    llm_top_p: float = Field(0.9, gt=0, le=1, description="Nucleus sampling.")
    llm_threads: Annotated[int | None, Auto] = Field(
        None, ge=1, le=1024, description="Threads that decode. auto: physical cores this process may use."
    )
    llm_gpu_layers: Annotated[int | None, Auto] = Field(
        None, ge=-1, le=10_000, description="Layers on the GPU. auto, 0 for CPU only, -1 for all."
    )
    llm_gpu_memory_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Share of the GPU's memory that the model may take, such as 0.15 beside a simulation.",
    )
    llm_batch_size: int = Field(512, ge=1, le=16_384, description="Most prompt tokens read in one step.")
    llm_seed: Annotated[int | None, Optional] = Field(
        None, ge=0, le=2**32 - 2, description="Makes sampling repeatable. Empty: a new seed for each answer."
    )
    llm_timeout_s: float = Field(120, gt=0, le=86_400, description="An answer that takes longer is cut there.")
    llm_slow_threshold_s: float = Field(10, gt=0, le=86_400, description="An answer that takes longer raises an alert.")
    llm_kv_disk_mb: int = Field(
        1024,
        ge=0,
        le=1_048_576,
        description="Disk for the KV of conversations, beside the database, in MB; 0: none.",
    )
    llm_kv_type: Literal["f16", "q8_0"] = Field(
        "f16", description="How the KV cache is stored: f16, or q8_0 in half the memory, a little slower."
    )
    llm_flash_attention: Literal["auto", "on", "off"] = Field(
        "auto", description="Flash attention: auto lets llama.cpp decide; q8_0 needs it."
    )
    llm_repack: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Rearrange weights for the processor while loading: auto, unless they are read faster as they are.",
    )
    llm_speculation: Literal["auto", "off"] = Field(
        "auto", description="Guess tokens ahead from the prompt where that pays: auto measures, off never does."
    )
    llm_draft_model: OptionalPath = Field(
        None,
        description="A small GGUF model with the same vocabulary that guesses tokens for the large one, unless "
        "LLM_SPECULATION is off.",
    )
    llm_worker: Literal["process", "thread"] = Field(
        "process", description="Where the engine lives: in a child process that may die alone, or in the daemon."
    )
    llm_may_act: Annotated[Literal["auto", "yes", "no"], BeforeValidator(_yes_or_no)] = Field(
        "auto",
        description="Whether the model may choose among the actions that devices declared: yes, no, or auto, by the "
        "catalogue and for other files by size: from 1.4 billion parameters on.",
    )
    models_dir: Path = Field(Path("models"), description="Where model files are looked for and downloaded to.")

    mqtt_host: OptionalText = Field(None, description="The broker. Empty: an embedded one on the loopback interface.")
    mqtt_port: int = Field(1883, ge=1, le=65_535, description="The broker's port; the embedded one listens here too.")
    mqtt_username: OptionalText = Field(None, description="User at the broker.")
    mqtt_password: Annotated[SecretStr | None, Optional] = Field(None, description="Password at the broker.")
    mqtt_password_file: OptionalPath = Field(None, description="File that holds it, instead of MQTT_PASSWORD.")
    mqtt_tls_ca: OptionalPath = Field(None, description="CA certificates file; turns TLS on.")
    mqtt_tls_cert: OptionalPath = Field(None, description="Client certificate file.")
    mqtt_tls_key: OptionalPath = Field(None, description="Client key file.")
    mqtt_client_id: OptionalText = Field(
        None, max_length=128, description="Client id, which names the session. Empty: naila-<host name>."
    )
    mqtt_topic_root: Annotated[str, AfterValidator(_topic_root)] = Field("naila", description="First topic level(s).")
    mqtt_keepalive_s: int = Field(10, ge=1, le=3600, description="A dead broker is noticed within twice this.")
    mqtt_protocol: Literal["5", "3.1.1"] = Field("5", description="5 (falls back to 3.1.1 when refused) or 3.1.1.")
    mqtt_max_payload_bytes: int = Field(65_536, ge=1024, le=268_435_455, description="Larger messages are refused.")

    queue_max_per_device: int = Field(16, ge=1, le=10_000, description="Waiting requests a device; then `busy`.")
    queue_max: int = Field(
        1000, ge=1, le=100_000, description="Requests in all that wait, for their turn or for the broker; then `busy`."
    )
    queue_max_running: int = Field(128, ge=1, le=10_000, description="Requests answered at once; devices take turns.")

    memory_path: Path = Field(Path("state/naila.db"), description="The SQLite database.")
    memory_max_turns: int = Field(50, ge=0, le=10_000, description="Most turns of a conversation put before the model.")
    memory_keep_days: int = Field(90, ge=1, le=36_500, description="Days that turns are kept; what was learned stays.")
    memory_keep_replies: int = Field(
        1000, ge=1, le=1_000_000, description="Replies of each device kept for requests that are repeated."
    )
    memory_keep_replies_days: float = Field(
        7, gt=0, le=3650, description="Days that replies are kept; then a request's id is free again."
    )

    actions_per_request: int = Field(8, ge=1, le=100, description="Most actions of one request.")
    actions_per_minute: int = Field(60, ge=1, le=6000, description="Most actions to one device within any minute.")
    confirm_timeout_s: float = Field(
        60, gt=0, le=3600, description="How long an action that needs a person's approval waits for it."
    )
    audit_max_mb: int = Field(10, ge=1, le=1000, description="Size of an audit file, in MB, before it is put aside.")
    audit_keep: int = Field(5, ge=0, le=1000, description="How many audit files are kept aside.")

    home_assistant: Annotated[Literal["on", "off"], BeforeValidator(_on_or_off)] = Field(
        "on", description="Whether the brain and the devices appear in Home Assistant; off removes them there."
    )
    home_assistant_prefix: Annotated[str, AfterValidator(_topic_root)] = Field(
        "homeassistant", description="Home Assistant's discovery prefix."
    )

    health_interval_s: float = Field(30, gt=0, le=86_400, description="How often health is published.")
    metrics_interval_s: float = Field(60, gt=0, le=86_400, description="How often metrics are published.")
    shutdown_timeout_s: float = Field(
        3, ge=0, le=600, description="How long running answers may finish on shutdown; the rest is answered after it."
    )

    persona: str = Field("naila", pattern=f"^{ID_RULE}$", description="Who answers: a file in personas/.")
    config_dir: Path = Field(Path("config"), description="Where naila.yaml, personas/ and patterns are.")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = Field(
        "INFO", description="How much is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="One line for people, or one JSON object a line.")
    record_words: Annotated[Literal["yes", "no"], BeforeValidator(_yes_or_no)] = Field(
        "no", description="Whether the flight record, and so a report, holds what was said."
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.llm_max_tokens >= self.llm_context_size:
            raise ValueError(
                f"LLM_MAX_TOKENS={self.llm_max_tokens} leaves no room for a prompt in "
                f"LLM_CONTEXT_SIZE={self.llm_context_size}: it must be smaller"
            )
        if self.llm_kv_type != "f16" and self.llm_flash_attention == "off":
            raise ValueError("LLM_KV_TYPE=q8_0 needs flash attention: set LLM_FLASH_ATTENTION to auto or on")
        if (self.mqtt_tls_cert is None) != (self.mqtt_tls_key is None):
            raise ValueError("MQTT_TLS_CERT and MQTT_TLS_KEY go together: set both or neither")
        if self.mqtt_tls_cert is not None and self.mqtt_tls_ca is None:
            raise ValueError("MQTT_TLS_CERT needs MQTT_TLS_CA: without it the connection is not encrypted")
        if self.mqtt_password is not None and self.mqtt_username is None:
            raise ValueError("MQTT_PASSWORD needs MQTT_USERNAME")
        return self

    @property
    def client_id(self) -> str:
        """The MQTT client id in use, stable across restarts because the broker's session hangs on it."""
        return self.mqtt_client_id or f"naila-{socket.gethostname()}"

    @property
    def embedded_broker(self) -> bool:
        """Whether the daemon brings its own broker."""
        return self.mqtt_host is None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must stand in no log and no report."""
        values = (getattr(self, field) for field in type(self).model_fields)
        return tuple(value.get_secret_value() for value in values if isinstance(value, SecretStr))


def load_settings(
    *,
    env_file: Path | None = Path(".env"),
    yaml_file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings once.

    Args:
        env_file: the `.env` file; a missing one is no error.
        yaml_file: the YAML file; default `naila.yaml` in CONFIG_DIR. A missing one is no error.
        environ: the environment.
        overrides: values by variable name that win over everything (command-line options, tests).

    Raises:
        ConfigurationError: names each wrong variable, its value and what is allowed.
    """
    layered = {**_from_dotenv(env_file), **_from_environment(environ), **_fields(overrides or {})}
    config_dir = layered.get("config_dir") or Settings.model_fields["config_dir"].default
    values = {**_from_yaml(yaml_file or Path(config_dir) / "naila.yaml"), **layered}
    try:
        return Settings.model_validate(_with_password(values, environ))
    except ValidationError as exc:
        raise ConfigurationError("\n".join(_explain(error) for error in exc.errors())) from exc


def variable(field: str) -> str:
    """Return the environment variable of a settings field."""
    return field.upper()


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what is a setting, by field name; the canonical name wins over its alias."""
    known = {name.lower(): value for name, value in values.items()}
    for alias, field in ALIASES.items():
        if alias in known:
            known.setdefault(field, known.pop(alias))
    return {name: value for name, value in known.items() if name in Settings.model_fields}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    return _fields({name: value for name, value in environ.items() if name.isupper()})


def _from_dotenv(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    try:
        found = dotenv_values(path, interpolate=False)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path}: cannot be read: {exc}") from exc
    values = {name: value for name, value in found.items() if value is not None}
    for name in values:
        field = name.lower()
        if field not in Settings.model_fields and field not in ALIASES and name.startswith(PREFIXES):
            raise ConfigurationError(f"{path}: {name} is not a setting{_did_you_mean(field)}")
    return _fields(values)


def _from_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    document = read_yaml(path) or {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: must be a mapping of settings, got {type(document).__name__}")
    for name in document:
        field = str(name).lower()
        if field not in Settings.model_fields and field not in ALIASES:
            raise ConfigurationError(f"{path}: {name} is not a setting{_did_you_mean(field)}")
    return _fields({str(name): value for name, value in document.items()})


def _with_password(values: Mapping[str, Any], environ: Mapping[str, str]) -> Mapping[str, Any]:
    """Add the broker's password where a file holds it: the one that is set, else the credential that systemd loaded."""
    file, password = (_blank_is_none(values.get(name)) for name in ("mqtt_password_file", "mqtt_password"))
    if file is not None and password is not None:
        raise ConfigurationError("MQTT_PASSWORD and MQTT_PASSWORD_FILE say the same thing: set one of them")
    credentials = environ.get(CREDENTIALS)
    if file is not None:
        path = Path(str(file))
    elif password is None and credentials and (Path(credentials) / PASSWORD_CREDENTIAL).is_file():
        path = Path(credentials) / PASSWORD_CREDENTIAL
    else:
        return values
    return {**values, "mqtt_password": _one_line(path, "MQTT_PASSWORD_FILE" if file is not None else f"${CREDENTIALS}")}


def _one_line(path: Path, where: str) -> str:
    """Return the only line of a small file, without its end."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_PASSWORD_BYTES + 1).decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where}={str(path)!r}: is not UTF-8 text") from None  # what it holds is secret
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{where}={str(path)!r}: cannot be read: {getattr(exc, 'strerror', exc)}") from exc
    line = text.removesuffix("\n").removesuffix("\r")
    if len(text.encode()) > MAX_PASSWORD_BYTES or "\n" in line:
        raise ConfigurationError(f"{where}={str(path)!r}: must hold one line of at most {MAX_PASSWORD_BYTES} bytes")
    return line


def _did_you_mean(field: str) -> str:
    close = difflib.get_close_matches(field, [*Settings.model_fields, *ALIASES], n=1)
    return f"; did you mean {variable(close[0])}?" if close else ""


def _explain(error: Any) -> str:
    """One line for one wrong value: the variable, the value, what is allowed."""
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    field = str(error["loc"][0])
    shown = "(secret)" if SecretStr in _types(field) else repr(error["input"])
    return f"{variable(field)}={shown}: {str(error['msg']).removeprefix('Value error, ')}"


def _types(field: str) -> tuple[Any, ...]:
    annotation = Settings.model_fields[field].annotation if field in Settings.model_fields else None
    return (annotation, *getattr(annotation, "__args__", ()))
