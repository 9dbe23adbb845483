"""Home Assistant as far as MQTT discovery goes: what it makes of documents, and what it sends when somebody acts."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from naila.fleet import is_clean

PLATFORMS = {"binary_sensor", "button", "number", "select", "sensor", "switch", "text"}
ABBREVIATED = {"dev": "device", "o": "origin", "cmps": "components", "p": "platform"}
NEEDED = {
    "binary_sensor": {"state_topic"},
    "button": {"command_topic"},
    "number": {"command_topic", "min", "max"},
    "select": {"command_topic", "options"},
    "sensor": {"state_topic"},
    "switch": {"command_topic"},
    "text": {"command_topic"},
}


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    environment.filters["to_json"] = lambda value: json.dumps(value, ensure_ascii=False)
    # A template that a device got its words into could ask for these.
    environment.globals["states"] = lambda *_: "a secret"
    return environment


ENVIRONMENT = _environment()


def render(template: str, payload: str | None = None, **values: Any) -> str:
    """Evaluate a template, over a received payload or with values."""
    if payload is not None:
        values |= {"value": payload}
        with contextlib.suppress(ValueError):
            values["value_json"] = json.loads(payload)
    return ENVIRONMENT.from_string(template).render(**values).strip()


@dataclass
class Home:
    """The devices and entities that documents have made appear.

    Attributes:
        devices: by the id in the topic, the device part of the documents.
        entities: by unique id.
    """

    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    entities: dict[str, dict[str, Any]] = field(default_factory=dict)

    def discover(self, topic: str, payload: bytes) -> None:
        """Take a discovery message as Home Assistant does; an `AssertionError` is what it would refuse."""
        found = re.fullmatch(r"homeassistant/device/([A-Za-z0-9_-]+)/config", topic)
        assert found, topic
        object_id = found[1]
        if not payload:
            self._forget(object_id)
            return
        document = {ABBREVIATED.get(key, key): value for key, value in json.loads(payload).items()}
        assert document["device"]["ids"]
        assert document["origin"]["name"]
        self.devices[object_id] = document["device"]
        shared = {key: value for key, value in document.items() if key not in {"device", "origin", "components"}}
        for key, component in document["components"].items():
            entity = {**shared, **component}
            platform = entity.pop("p")
            assert platform in PLATFORMS
            unique_id = entity.get("unique_id")
            known = [each for each in self.entities.values() if each["of"] == (object_id, key)]
            if unique_id is None:
                assert [each["platform"] for each in known] == [platform], f"{key} cannot be removed"
                del self.entities[known[0]["unique_id"]]
                continue
            if known:
                assert known[0]["platform"] == platform, f"{key} must be removed before its platform changes"
            other = self.entities.get(unique_id)
            assert other is None or other["of"] == (object_id, key), f"{unique_id} stands for two things"
            self.entities[unique_id] = {**entity, "platform": platform, "of": (object_id, key)}
            self._check(self.entities[unique_id])

    def entity(self, object_id: str, name: str, platform: str | None = None) -> dict[str, Any]:
        """Return an entity of a device by its name."""
        found = [
            each
            for each in self.entities.values()
            if each["of"][0] == object_id and each["name"] == name and platform in {None, each["platform"]}
        ]
        assert len(found) == 1, f"{len(found)} entities {name!r}: {sorted(self.names(object_id))}"
        return found[0]

    def names(self, object_id: str) -> set[str]:
        """Return the names of a device's entities."""
        return {each["name"] for each in self.entities.values() if each["of"][0] == object_id}

    @staticmethod
    def act(entity: dict[str, Any], value: Any = None) -> tuple[str, str]:
        """Press, switch, set or type; return the topic and payload that this sends."""
        topic = entity["command_topic"]
        if entity["platform"] == "button":
            return topic, entity.get("payload_press", "PRESS")
        if entity["platform"] == "switch":
            return topic, entity["payload_on"] if value else entity["payload_off"]
        if entity["platform"] == "number":
            assert entity["min"] <= value <= entity["max"]
        if entity["platform"] == "select":
            assert value in entity["options"]
        if entity["platform"] == "text":
            assert len(value) <= entity["max"]
        return topic, render(entity["command_template"], value=value)

    @staticmethod
    def state(entity: dict[str, Any], payload: str) -> str:
        """Return the state that a message on the entity's topic makes; an empty one changes nothing."""
        return render(entity["value_template"], payload, this={"state": "before"})

    @staticmethod
    def is_available(entity: dict[str, Any], retained: dict[str, str]) -> bool:
        """Whether an entity is available, with these messages kept by the broker."""
        places = entity.get("availability", [])
        words = [
            render(place["value_template"], retained[place["topic"]]) if place["topic"] in retained else "offline"
            for place in places
        ]
        assert len(places) < 2 or entity["availability_mode"] == "all"
        return all(word == "online" for word in words)

    def _forget(self, object_id: str) -> None:
        self.devices.pop(object_id, None)
        self.entities = {key: each for key, each in self.entities.items() if each["of"][0] != object_id}

    @staticmethod
    def _check(entity: dict[str, Any]) -> None:
        assert entity["name"]
        assert is_clean(entity["name"])
        assert entity.keys() >= NEEDED[entity["platform"]]
        for key, value in entity.items():
            if key.endswith("_topic"):
                assert not re.search(r"[+#\x00]", value)
            if key.endswith("_template"):
                ENVIRONMENT.from_string(value)
        if entity["platform"] == "number":
            assert entity["min"] < entity["max"]
            assert entity["step"] >= 0.001
        if entity["platform"] == "select":
            assert entity["options"]
            assert all(isinstance(each, str) for each in entity["options"])
