"""Which broker, as whom, and in words what is wrong when it cannot be reached."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from typing import Literal

from naila.config.settings import Settings
from naila.errors import ConfigurationError
from naila.mqtt.publication import Publication

Version = Literal["5", "3.1.1"]

SESSION_EXPIRY_S = 86_400

_REFUSALS = {
    133: "it does not accept the client id: correct MQTT_CLIENT_ID",
    134: "wrong user name or password: correct MQTT_USERNAME and MQTT_PASSWORD",
    135: "not authorised: correct MQTT_USERNAME and MQTT_PASSWORD, or allow this client at the broker",
    136: "it is not ready",
    137: "it is busy",
    138: "this client is banned there",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """How a client connects.

    Attributes:
        host: name or address.
        port: TCP port.
        client_id: names the session at the broker; two clients with one id throw each other out.
        username: user at the broker.
        password: never shown.
        tls: encryption, if wanted.
        keepalive_s: a dead broker is noticed within twice this.
        protocol: 5 (falls back to 3.1.1) or 3.1.1.
        session_expiry_s: how long the broker keeps the session; 0 starts afresh each time.
        will: what the broker publishes when the client is lost.
    """

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    keepalive_s: int = 10
    protocol: Version = "5"
    session_expiry_s: int = 0
    will: Publication | None = None

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        client_id: str | None = None,
        session_expiry_s: int = SESSION_EXPIRY_S,
        will: Publication | None = None,
    ) -> BrokerAddress:
        """Return the broker that the settings name.

        Raises:
            ConfigurationError: the TLS files cannot be used.
        """
        return cls(
            host=settings.mqtt_host or "127.0.0.1",
            port=settings.mqtt_port,
            client_id=client_id or settings.client_id,
            username=settings.mqtt_username,
            password=settings.mqtt_password.get_secret_value() if settings.mqtt_password else None,
            tls=_tls(settings),
            keepalive_s=settings.mqtt_keepalive_s,
            protocol="3.1.1" if settings.embedded_broker else settings.mqtt_protocol,  # all that amqtt speaks
            session_expiry_s=session_expiry_s,
            will=will,
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def explain_refusal(self, reason: int | None, text: str) -> str:
        """Say in words why the broker answered with a refusal (None: did not answer at all), and what to do."""
        if reason is None:
            return f"{self} takes connections but does not answer: is it an MQTT broker, without TLS there, and well?"
        return f"{self} refused the connection: {_REFUSALS.get(reason, text)}"

    def explain(self, error: Exception) -> str:
        """Say in words why no connection came about, and what to do."""
        match error:
            case ConnectionRefusedError():
                return f"nothing listens at {self}: start the broker, or correct MQTT_HOST and MQTT_PORT"
            case socket.gaierror() | UnicodeError():
                return f"the host name {self.host!r} cannot be resolved: correct MQTT_HOST"
            case ssl.SSLCertVerificationError():
                why = error.verify_message
                return f"the certificate of {self} is not trusted ({why}): correct MQTT_TLS_CA or MQTT_HOST"
            case ssl.SSLError():
                reason = error.reason or error
                return f"TLS with {self} failed ({reason}): correct MQTT_PORT or the MQTT_TLS_ files"
            case TimeoutError():
                return f"{self} does not answer: look at the network, or correct MQTT_HOST and MQTT_PORT"
        return f"{self} cannot be reached: {error}"


class _SelfClosingSocket(ssl.SSLSocket):
    """Closes when its handshake fails, which paho leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.mqtt_tls_ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.mqtt_tls_ca))
    except OSError as exc:
        raise ConfigurationError(f"MQTT_TLS_CA={settings.mqtt_tls_ca}: cannot be used: {exc}") from exc
    context.sslsocket_class = _SelfClosingSocket
    if settings.mqtt_tls_cert and settings.mqtt_tls_key:
        try:
            context.load_cert_chain(settings.mqtt_tls_cert, settings.mqtt_tls_key)
        except OSError as exc:
            raise ConfigurationError(
                f"MQTT_TLS_CERT={settings.mqtt_tls_cert}, MQTT_TLS_KEY={settings.mqtt_tls_key}: cannot be used: {exc}"
            ) from exc
    return context
