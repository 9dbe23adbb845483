"""Home Assistant on a real broker: what it discovered, what it sees, and acting in it."""

from __future__ import annotations

from typing import Any

from naila.mqtt.publication import Publication
from support.ear import Ear
from support.home import Home
from support.mosquitto import Mosquitto
from support.robots import until


class HomeOnline:
    """Connected while its `ear` is.

    Attributes:
        ear: hears everything.
        home: what was discovered; `now` brings it up to date.
        last: the last message of each topic.
    """

    def __init__(self, broker: Mosquitto) -> None:
        self.ear = Ear(broker.settings(), "homeassistant/device/#", "naila/#")
        self.home = Home()
        self.last: dict[str, str] = {}
        self._read = 0

    @property
    def now(self) -> Home:
        """Return what it knows, with all that has come."""
        for message in self.ear.messages[self._read :]:
            if message.topic.startswith("homeassistant/"):
                self.home.discover(message.topic, message.payload)
            else:
                self.last[message.topic] = message.payload.decode()
        self._read = len(self.ear.messages)
        return self.home

    async def sees(self, object_id: str, name: str, timeout_s: float = 10.0) -> dict[str, Any]:
        """Return an entity once it is there."""
        await until(lambda: name in self.now.names(object_id), timeout_s)
        return self.now.entity(object_id, name)

    def act(self, entity: dict[str, Any], value: Any = None) -> None:
        """Press, switch, set or type, where that is possible now."""
        assert self.now.is_available(entity, self.last), f"{entity['name']} is not available: {self.last}"
        topic, payload = self.home.act(entity, value)
        self.ear.connection.publish(Publication(topic=topic, payload=payload.encode(), qos=1))

    async def reads(self, entity: dict[str, Any], state: str) -> None:
        """Return when an entity shows this."""

        def states() -> list[str]:
            topic = entity["state_topic"]
            return [self.home.state(entity, each.payload.decode()) for each in self.ear.messages if each.topic == topic]

        await until(lambda: states()[-1:] == [state])
