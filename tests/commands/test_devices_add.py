"""`naila devices add` and `remove-credentials`."""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.cli import main
from naila.commands.devices_add import PRIVILEGED
from naila.errors import StorageError
from naila.mqtt.password_file import PasswordFile, new_password, password_hash
from support.guarded import CONFIG

PASSWORD = re.compile(r"\b[A-Za-z0-9]{32}\b")
ENTRY = re.compile(r"rover:\$7\$101\$[A-Za-z0-9+/]{16}\$[A-Za-z0-9+/]{86}==\n")


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MQTT_CLIENT_ID", "brain")
    monkeypatch.setenv("MQTT_HOST", "10.0.0.1")
    monkeypatch.setenv("MQTT_USERNAME", "mind")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "passwords"


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    subprocess.run([CONFIG / "make-certificates", folder, "10.0.0.1"], check=True, capture_output=True)
    return folder / "ca.crt"


def naila(*arguments: object, file: Path) -> int:
    return main(["devices", *map(str, arguments), "--password-file", str(file)])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_device_gets_a_password_that_is_shown_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert naila("add", "rover", file=file) == 0
    out, err = capsys.readouterr()
    [password] = PASSWORD.findall(out + err)
    assert ENTRY.fullmatch(file.read_text())
    assert mode(file) == 0o600
    assert password not in file.read_text()
    assert out.splitlines() == [
        'const char* BROKER = "10.0.0.1";',
        "const uint16_t PORT = 1883;",
        'const char* DEVICE = "rover";',
        "const char* USER = DEVICE;",
        f'const char* PASSWORD = "{password}";',
    ]
    assert "sudo systemctl reload mosquitto" in err
    assert f"sudo chown mosquitto: {file}" in err


def test_the_hash_is_the_one_that_mosquitto_passwd_makes(file: Path) -> None:
    file.touch()
    subprocess.run(["mosquitto_passwd", "-b", file, "rover", "Grüße $7:"], check=True)
    theirs = file.read_text().strip().removeprefix("rover:")
    _, kind, iterations, salt, _ = theirs.split("$")
    assert kind == "7"
    assert password_hash("Grüße $7:", base64.b64decode(salt), int(iterations)) == theirs


def test_no_two_passwords_or_salts_are_the_same(file: Path) -> None:
    assert len({new_password() for _ in range(1000)}) == 1000
    passwords = PasswordFile(file)
    for user in ("a", "b"):
        passwords.add(user, "the same")
    first, second = (line.split(":")[1] for line in file.read_text().splitlines())
    assert first != second


def test_what_else_is_in_the_file_stays(file: Path) -> None:
    others = b"# people\nada:$7$101$AAAAAAAAAAAAAAAA$xyz==\n\nsomething odd \xff\nrover2:x\n rover3:x\nlast:x"
    file.write_bytes(others)
    assert naila("add", "rover", file=file) == 0
    text = file.read_bytes()
    assert text.startswith(others + b"\nrover:$7$")
    assert naila("remove-credentials", "rover", file=file) == 0
    assert file.read_bytes() == others + b"\n"


def test_a_device_that_has_a_password_keeps_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    naila("add", "rover", file=file)
    before = file.read_bytes()
    capsys.readouterr()
    assert naila("add", "rover", file=file) == 1
    out, err = capsys.readouterr()
    assert file.read_bytes() == before
    assert out == ""
    assert "--replace" in err


def test_replace_gives_a_new_one(file: Path) -> None:
    naila("add", "rover", file=file)
    before = file.read_text()
    assert naila("add", "rover", "--replace", file=file) == 0
    assert file.read_text() != before
    assert ENTRY.fullmatch(file.read_text())


def test_replace_ends_every_line_of_the_device(file: Path) -> None:
    file.write_text("rover:a\nlamp:b\n rover :c\n")
    assert naila("add", "rover", "--replace", file=file) == 0
    lamp, rover = file.read_text().splitlines()
    assert lamp == "lamp:b"
    assert ENTRY.fullmatch(rover + "\n")


@pytest.mark.parametrize("device", ["", "ro/ver", "ro+ver", "#", "ro ver", "ro:ver", "rover\n", "röver", "x" * 65])
def test_what_is_no_id_is_refused_by_name_and_rule(file: Path, capsys: pytest.CaptureFixture[str], device: str) -> None:
    with pytest.raises(SystemExit) as ended:
        naila("add", device, file=file)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert f"{device!r} is no device id: it must be 1 to 64 letters, digits, '_' or '-'" in err
    assert not file.exists()


@pytest.mark.parametrize("device", ["brain", "brain-stop", "brain-home-assistant"])
@pytest.mark.parametrize("more", [(), ("--privileged",)])
def test_a_client_id_of_the_brain_is_no_device(
    file: Path, capsys: pytest.CaptureFixture[str], device: str, more: tuple[str, ...]
) -> None:
    assert naila("add", device, *more, file=file) == 2
    assert f"'{device}' is a client id of the brain (MQTT_CLIENT_ID)" in capsys.readouterr().err
    assert not file.exists()


@pytest.mark.parametrize("user", [*PRIVILEGED, "mind"])
def test_who_may_more_than_a_device_is_added_only_when_meant(
    file: Path, capsys: pytest.CaptureFixture[str], user: str
) -> None:
    assert naila("add", user, file=file) == 2
    assert f"'{user}' is no device but" in capsys.readouterr().err
    assert not file.exists()
    assert naila("add", user, "--privileged", file=file) == 0
    assert file.read_text().startswith(f"{user}:$7$")


def test_the_access_rules_give_more_only_to_those_users() -> None:
    rules = (CONFIG / "naila.acl").read_text()
    assert set(re.findall(r"^user (\S+)$", rules, re.MULTILINE)) == set(PRIVILEGED)


def test_the_brain_gets_lines_for_its_settings(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    naila("add", "naila", "--privileged", file=file)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "MQTT_USERNAME=naila"
    assert PASSWORD.fullmatch(second.removeprefix("MQTT_PASSWORD="))


@pytest.mark.parametrize("language", ["arduino", "micropython", "shell"])
def test_with_a_ca_the_device_speaks_tls(
    file: Path, capsys: pytest.CaptureFixture[str], ca: Path, language: str
) -> None:
    assert naila("add", "rover", "--ca", ca, "--for", language, "--host", "brain.local", file=file) == 0
    out = capsys.readouterr().out
    assert "8883" in out
    assert "brain.local" in out
    assert ca.read_text().strip() in out


def test_lines_for_micropython_are_python(file: Path, capsys: pytest.CaptureFixture[str], ca: Path) -> None:
    naila("add", "rover", "--ca", ca, "--for", "micropython", file=file)
    found: dict[str, object] = {}
    exec(capsys.readouterr().out, found)  # noqa: S102 - our own lines
    assert (found["BROKER"], found["PORT"], found["DEVICE_ID"], found["USER"]) == ("10.0.0.1", 8883, "rover", "rover")
    assert found["CA"] == ca.read_text()


def test_lines_for_a_shell_are_shell(file: Path, capsys: pytest.CaptureFixture[str], ca: Path, tmp_path: Path) -> None:
    naila("add", "rover", "--ca", ca, "--for", "shell", "--host", "it's; $(touch pwned)", file=file)
    script = capsys.readouterr().out + 'echo "$DEVICE_ID@$BROKER:$PORT"'
    done = subprocess.run(["sh", "-eu", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "rover@it's; $(touch pwned):8883\n"
    assert (tmp_path / "naila-ca.crt").read_text() == ca.read_text()
    assert not (tmp_path / "pwned").exists()


def test_the_key_of_the_ca_is_never_given_away(file: Path, capsys: pytest.CaptureFixture[str], ca: Path) -> None:
    assert naila("add", "rover", "--ca", ca.with_suffix(".key"), file=file) == 78
    assert "holds a private key, which no device may have" in capsys.readouterr().err
    both = file.with_name("both.pem")
    both.write_text(ca.with_suffix(".key").read_text() + ca.read_text())
    assert naila("add", "rover", "--ca", both, file=file) == 0
    assert "PRIVATE KEY" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b'-----BEGIN CERTIFICATE-----\n)pem"; evil();\n'])
def test_a_ca_that_is_none_is_refused_before_anything_is_written(
    file: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    wrong = file.with_name("wrong.crt")
    if content is not None:
        wrong.write_bytes(content)
    assert naila("add", "rover", "--ca", wrong, file=file) == 78
    assert f"--ca {wrong}: " in capsys.readouterr().err
    assert not file.exists()


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1"])
def test_a_port_that_is_none_is_refused(file: Path, port: str) -> None:
    with pytest.raises(SystemExit):
        naila("add", "rover", f"--port={port}", file=file)
    assert not file.exists()


def test_a_broker_on_this_machine_is_named_as_others_name_it(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_HOST", "127.0.0.1")
    naila("add", "rover", file=file)
    assert "127.0.0.1" not in capsys.readouterr().out


def test_a_device_without_a_password_cannot_lose_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("rover2:x\n")
    assert naila("remove-credentials", "rover", file=file) == 1
    assert "rover has no password in" in capsys.readouterr().err
    assert file.read_text() == "rover2:x\n"


@pytest.mark.parametrize(("before", "after"), [(0o640, 0o640), (0o600, 0o600), (0o644, 0o640), (0o666, 0o640)])
def test_a_file_that_is_there_keeps_its_rights_less_those_of_others(file: Path, before: int, after: int) -> None:
    file.touch()
    file.chmod(before)
    naila("add", "rover", file=file)
    assert mode(file) == after


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_is_the_brokers_stays_the_brokers(file: Path) -> None:
    file.touch()
    os.chown(file, 12_345, 23_456)
    naila("add", "rover", file=file)
    assert (file.stat().st_uid, file.stat().st_gid) == (12_345, 23_456)


def test_a_link_to_the_file_stays_a_link(file: Path) -> None:
    target = file.with_name("real")
    target.touch()
    file.symlink_to(target)
    naila("add", "rover", file=file)
    assert file.is_symlink()
    assert ENTRY.fullmatch(target.read_text())


def test_what_cannot_be_written_leaves_the_old_file(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("lamp:x\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert naila("add", "rover", file=file) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "No space left on device" in err
    assert file.read_text() == "lamp:x\n"
    assert [path.name for path in file.parent.iterdir()] == ["passwords"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert naila("add", "rover", file=tmp_path / "none" / "passwords") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "none/passwords: the password file cannot be used: No such file or directory" in err


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Is a directory"):
        PasswordFile(tmp_path).add("rover", "x")


def test_nobodys_line_is_lost_when_many_write_at_once(file: Path) -> None:
    users = [f"robot-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda user: PasswordFile(file).add(user, "x"), users))
    assert sorted(line.split(":")[0] for line in file.read_text().splitlines()) == sorted(users)


@given(st.text(max_size=70))
def test_only_ids_get_lines(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    file = tmp_path_factory.getbasetemp() / "hypothetical"
    file.unlink(missing_ok=True)
    try:
        code = main(["devices", "add", "--password-file", str(file), "--", name])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    if re.fullmatch("[A-Za-z0-9_-]{1,64}", name) and name not in {
        "brain",
        "brain-stop",
        "brain-home-assistant",
        "mind",
        *PRIVILEGED,
    }:
        assert code == 0
        assert file.read_text().startswith(f"{name}:$7$")
    else:
        assert code == 2
        assert not file.exists()
