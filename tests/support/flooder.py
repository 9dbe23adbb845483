"""A device that asks a thousand times a second: `flooder.py PORT SECONDS RATE` prints as JSON what became of it.

It listens for each reply and each error, and waits until none has come for a while.
"""

from __future__ import annotations

import json
import re
import sys
import time

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

QUIET_S = 3.0


class Flood:
    """Counts what comes back."""

    def __init__(self) -> None:
        self.taken = 0
        self.answered: set[str] = set()
        self.told: set[str] = set()
        self.told_without_id = 0
        self.last = time.monotonic()

    def heard(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        """Take a reply or an error."""
        self.last = time.monotonic()
        document = json.loads(message.payload)
        request_id = document.get("id")
        if message.topic.endswith("/reply"):
            self.answered.add(request_id)
        elif request_id is None:
            many = re.match(r"(\d+) more messages", document["message"])
            self.told_without_id += int(many[1]) if many else 1
        else:
            self.told.add(request_id)

    def published(self, *_: object) -> None:
        """The broker has one."""
        self.taken += 1


def main(port: int, seconds: float, rate: int) -> None:
    """Flood for so long."""
    flood = Flood()
    client = Client(CallbackAPIVersion.VERSION2, client_id="flooder")
    client.max_queued_messages_set(0)
    client.max_inflight_messages_set(1000)
    client.on_message, client.on_publish = flood.heard, flood.published
    client.connect("127.0.0.1", port)
    client.subscribe([("naila/devices/flooder/reply", 1), ("naila/devices/flooder/error", 1)])
    client.loop_start()
    began, sent = time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        while sent < now * rate:
            payload = f'{{"id":"f{sent}","text":"What time is it?"}}'
            client.publish("naila/devices/flooder/intent", payload, 1)
            sent += 1
        time.sleep(0.002)
    while time.monotonic() - max(flood.last, began + seconds) < QUIET_S:
        time.sleep(0.05)
    client.disconnect()
    client.loop_stop()
    print(  # noqa: T201 - for whoever started it
        json.dumps(
            {
                "sent": sent,
                "taken_by_the_broker": flood.taken,
                "answered": len(flood.answered),
                "told": len(flood.told - flood.answered),
                "told_without_id": flood.told_without_id,
                "silent": sent - len(flood.answered | flood.told) - flood.told_without_id,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
