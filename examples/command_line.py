"""The command line that all simulated devices share, and the MQTT client that it asks for."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


def options(description: str, device_id: str) -> Namespace:
    """Read the command line that all simulated devices share."""
    parser = ArgumentParser(description=description, epilog="Type what you want to say; Ctrl-C ends it.")
    parser.add_argument("--host", default="localhost", help="of the broker")
    parser.add_argument("--port", type=int, default=1883, help="of the broker")
    parser.add_argument("--username", help="at the broker; the password is read from DEVICE_PASSWORD")
    parser.add_argument("--ca", help="certificate file of the broker's authority: speak TLS")
    parser.add_argument("--device-id", default=device_id)
    parser.add_argument("--root", default="naila", help="root topic")
    parser.add_argument("--speed-up", type=float, default=1.0, metavar="N", help="let time pass N times as fast")
    parser.add_argument("--plain", action="store_true", help="lines instead of a picture, as without a terminal")
    found = parser.parse_args()
    found.password = os.environ.get("DEVICE_PASSWORD")
    if not 0 < found.speed_up <= 100:
        parser.error("--speed-up must be above 0 and at most 100")
    return found


def client_of(options: Namespace, topic: str) -> Client:
    """Return a client, not connected yet, whose last will says that the device is gone."""
    client = Client(CallbackAPIVersion.VERSION2, options.device_id, protocol=MQTTProtocolVersion.MQTTv5)
    client.will_set(f"{topic}status", "offline", qos=1, retain=True)
    client.username_pw_set(options.username, options.password)
    if options.ca:
        client.tls_set(ca_certs=options.ca)
    return client
