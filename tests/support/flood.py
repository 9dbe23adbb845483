"""A device that floods: `flood.py PORT SIZE QOS LEAF` publishes 1,000 messages a second until it is killed."""

from __future__ import annotations

import sys
import time

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

RATE = 1000


def main(port: int, size: int, qos: int, leaf: str) -> None:
    """Publish for ever."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="flood")
    client.max_queued_messages_set(2000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    payload, began, sent = b"x" * size, time.monotonic(), 0
    while True:
        while sent < (time.monotonic() - began) * RATE:
            client.publish(f"naila/devices/flood/{leaf}", payload, qos)
            sent += 1
        time.sleep(0.002)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
