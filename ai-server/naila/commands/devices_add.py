"""`naila devices add` and `remove-credentials`: who may speak to the broker.

They write Mosquitto's password file and nothing else: neither the brain nor the database is needed.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naila.config.settings import Settings
from naila.errors import ConfigurationError
from naila.fleet import ID_RULE, is_id
from naila.mqtt.password_file import PasswordFile, new_password

PASSWORD_FILE: Final = Path("/etc/mosquitto/naila.passwords")
TLS_PORT: Final = 8883
MISUSED: Final = 2

# The users whom config/mosquitto/naila.acl gives more than a device has.
BRAIN: Final = "naila"
PRIVILEGED: Final[Mapping[str, str]] = {
    BRAIN: "the brain's",
    "operator": "a person's panel's",
    "home_assistant": "Home Assistant's",
}

# What the brain's client ids end in, one for each of its connections.
_CONNECTIONS: Final = ("", "-stop", "-home-assistant")

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_CERTIFICATE: Final = re.compile(
    r"^-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----$", re.MULTILINE
)


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `add` and `remove-credentials` to the sub-commands of `devices`."""
    add = actions.add_parser(
        "add",
        help="give a device a password at the broker",
        description="Make a random password for a device, write it to Mosquitto's password file, and print it, once, "
        "as lines for the device's program. The user name is the device's id.",
    )
    add.add_argument("device", metavar="DEVICE", type=_device_id, help="its id")
    add.add_argument("--replace", action="store_true", help="a new password for who has one; the old one ends")
    add.add_argument(
        "--privileged",
        action="store_true",
        help=f"allow a user whom the access rules give more than a device has: {', '.join(PRIVILEGED)}",
    )
    add.add_argument("--ca", type=Path, metavar="FILE", help="CA certificate: the device will speak TLS")
    add.add_argument("--host", help="how the device reaches the broker (default: MQTT_HOST, or this machine's name)")
    add.add_argument("--port", type=_port, help=f"of the broker (default: MQTT_PORT, with --ca {TLS_PORT})")
    add.add_argument(
        "--for", dest="language", choices=sorted(_SNIPPETS), default="arduino", help="lines in which language"
    )
    remove = actions.add_parser(
        "remove-credentials",
        help="take a device's password away",
        description="Remove a device from Mosquitto's password file. What is remembered of it stays.",
    )
    remove.add_argument("device", metavar="DEVICE", help="its id")
    for action, run in ((add, _add), (remove, _remove)):
        action.add_argument(
            "--password-file",
            type=Path,
            default=PASSWORD_FILE,
            metavar="FILE",
            help=f"Mosquitto's password_file (default: {PASSWORD_FILE})",
        )
        action.set_defaults(run=run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a device needs to speak.

    Attributes:
        host: of the broker.
        port: of the broker.
        user: its id.
        password: in plain text, which nothing keeps.
        ca: certificates in PEM; None: no TLS.
    """

    host: str
    port: int
    user: str
    password: str
    ca: str | None = None


def _add(args: argparse.Namespace, settings: Settings) -> int:
    if problem := _reserved(args.device, settings, privileged=args.privileged):
        print(f"naila: {problem}", file=sys.stderr)
        return MISUSED
    ca = None if args.ca is None else _certificates(args.ca)
    file = PasswordFile(args.password_file)
    is_new_file = not file.path.exists()
    password = new_password()
    if not file.add(args.device, password, replace=args.replace):
        print(
            f"naila: {args.device} has a password in {file.path}, which cannot be shown again: "
            "--replace gives it a new one",
            file=sys.stderr,
        )
        return 1
    credentials = Credentials(
        host=args.host or _host(settings),
        port=args.port or (settings.mqtt_port if ca is None else TLS_PORT),
        user=args.device,
        password=password,
        ca=ca,
    )
    language = "env" if _is_brain(args.device, settings) else args.language
    print("\n".join(_SNIPPETS[language](credentials)), flush=True)
    print(
        f"\n{args.device} may speak as soon as Mosquitto has read {file.path} again. The password above is shown only "
        f"this once; the file holds its hash.\n{_reload(file.path if is_new_file else None)}",
        file=sys.stderr,
    )
    return 0


def _remove(args: argparse.Namespace, _: Settings) -> int:
    file = PasswordFile(args.password_file)
    if not file.remove(args.device):
        print(f"naila: {args.device} has no password in {file.path}", file=sys.stderr)
        return 1
    print(
        f"{args.device} has no password any more. As soon as Mosquitto has read the file again, its connection ends.\n"
        f"{_reload(None)}",
        file=sys.stderr,
    )
    return 0


def _reload(new_file: Path | None) -> str:
    owner = f"Let Mosquitto read the new file: sudo chown mosquitto: {new_file}\n" if new_file else ""
    return f"{owner}Tell Mosquitto: sudo systemctl reload mosquitto (or send it SIGHUP)"


def _reserved(device: str, settings: Settings, *, privileged: bool) -> str | None:
    """Say why this must not be a device's name, if so."""
    if device in {f"{settings.client_id}{suffix}" for suffix in _CONNECTIONS}:
        return (
            f"{device!r} is a client id of the brain (MQTT_CLIENT_ID), which a device of that name would throw out "
            "of the broker: take another id"
        )
    whose = "the brain's (MQTT_USERNAME)" if device == settings.mqtt_username else PRIVILEGED.get(device)
    if whose and not privileged:
        return (
            f"{device!r} is no device but {whose} user, to whom the access rules give more: take another id, or say "
            "--privileged if you mean it"
        )
    return None


def _is_brain(user: str, settings: Settings) -> bool:
    return user in {BRAIN, settings.mqtt_username}


def _host(settings: Settings) -> str:
    """The broker as others reach it: `localhost` would be the device itself."""
    host = settings.mqtt_host
    return host if host and host not in _LOOPBACK else socket.gethostname()


def _certificates(path: Path) -> str:
    """Return the certificates in a file, and nothing else that may stand there."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError as exc:
        raise ConfigurationError(f"--ca {path}: cannot be read: {exc.strerror}") from exc
    except UnicodeError as exc:
        raise ConfigurationError(f"--ca {path}: is no certificate in PEM") from exc
    found = [match.group() for match in _CERTIFICATE.finditer(text.replace("\r\n", "\n"))]
    if not found:
        kind = "holds a private key, which no device may have, and" if "PRIVATE KEY" in text else "holds"
        raise ConfigurationError(f"--ca {path}: {kind} no certificate in PEM")
    return "\n".join(found)


def _device_id(text: str) -> str:
    if not is_id(text):
        raise argparse.ArgumentTypeError(
            f"{text[:100]!r} is no device id: it must be 1 to 64 letters, digits, '_' or '-' ({ID_RULE})"
        )
    return text


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1 to 65535")
    return number


def _arduino(given: Credentials) -> list[str]:
    lines = [
        f"const char* BROKER = {json.dumps(given.host)};",
        f"const uint16_t PORT = {given.port};",
        f'const char* DEVICE = "{given.user}";',
        "const char* USER = DEVICE;",
        f'const char* PASSWORD = "{given.password}";',
    ]
    if given.ca:
        lines += [f'const char* CA = R"pem({given.ca}\n)pem";  // espMqttClientSecure: setCACert(CA)']
    return lines


def _micropython(given: Credentials) -> list[str]:
    lines = [
        f'BROKER, PORT, DEVICE_ID = {json.dumps(given.host)}, {given.port}, "{given.user}"',
        f'USER, PASSWORD = DEVICE_ID, "{given.password}"',
    ]
    if given.ca:
        lines += [f'CA = """{given.ca}\n"""  # SSLContext.load_verify_locations(cadata=CA), and CERT_REQUIRED']
    return lines


def _shell(given: Credentials) -> list[str]:
    """Return the lines that the programs in examples/ and mosquitto_pub understand."""
    lines = [f"DEVICE_PASSWORD={given.password}", f"DEVICE_ID={given.user}", f"BROKER={_quoted(given.host)}"]
    lines += [f"PORT={given.port}"]
    if given.ca:
        lines += ["cat > naila-ca.crt <<'END'", given.ca, "END"]
    return lines


def _env(given: Credentials) -> list[str]:
    """Return the lines of the brain's `.env`, which says itself where its broker is."""
    return [f"MQTT_USERNAME={given.user}", f"MQTT_PASSWORD={given.password}"]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_SNIPPETS: Final = {"arduino": _arduino, "env": _env, "micropython": _micropython, "shell": _shell}
