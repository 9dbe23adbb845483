"""Where the broker's password comes from, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from naila.config.settings import MAX_PASSWORD_BYTES, PASSWORD_CREDENTIAL, Settings, load_settings
from naila.errors import ConfigurationError

SECRET = "s3same street"  # noqa: S105 - no real one


def load(environ: dict[str, str]) -> Settings:
    return load_settings(env_file=None, environ={"CONFIG_DIR": "/nowhere", "MQTT_USERNAME": "naila", **environ})


def password(environ: dict[str, str]) -> str | None:
    found = load(environ).mqtt_password
    return None if found is None else found.get_secret_value()


@pytest.mark.parametrize("content", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n"])
def test_a_file_holds_it_with_or_without_an_end_of_line(tmp_path: Path, content: str) -> None:
    (file := tmp_path / "password").write_text(content)
    settings = load({"MQTT_PASSWORD_FILE": str(file)})
    assert settings.secrets == (SECRET,)
    assert SECRET not in repr(settings)


def test_the_credential_of_a_service_is_taken_without_being_named(tmp_path: Path) -> None:
    (tmp_path / PASSWORD_CREDENTIAL).write_text(f"{SECRET}\n")
    assert password({"CREDENTIALS_DIRECTORY": str(tmp_path)}) == SECRET
    assert password({"CREDENTIALS_DIRECTORY": str(tmp_path), "MQTT_PASSWORD": "other"}) == "other"
    (named := tmp_path / "named").write_text("third")
    assert password({"CREDENTIALS_DIRECTORY": str(tmp_path), "MQTT_PASSWORD_FILE": str(named)}) == "third"


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_credential_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / PASSWORD_CREDENTIAL).write_text(content)
    assert password({"CREDENTIALS_DIRECTORY": str(tmp_path)}) is None
    assert password({"CREDENTIALS_DIRECTORY": str(tmp_path / "none")}) is None


def test_both_at_once_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="MQTT_PASSWORD and MQTT_PASSWORD_FILE say the same thing"):
        load({"MQTT_PASSWORD": SECRET, "MQTT_PASSWORD_FILE": str(tmp_path)})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"two\nlines\n", "must hold one line"),
        (b"x" * (MAX_PASSWORD_BYTES + 1), f"at most {MAX_PASSWORD_BYTES} bytes"),
    ],
)
def test_a_file_that_cannot_be_one_is_named_and_not_shown(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=says) as caught:
        load({"MQTT_PASSWORD_FILE": str(file)})
    assert f"MQTT_PASSWORD_FILE={str(file)!r}" in str(caught.value)
    assert "lines" not in str(caught.value)


def test_a_file_that_does_not_end_is_not_read_for_ever() -> None:
    with pytest.raises(ConfigurationError, match="MQTT_PASSWORD_FILE='/dev/zero'"):
        load({"MQTT_PASSWORD_FILE": "/dev/zero"})
