"""The documents that make the brain and its devices appear in Home Assistant: one a device, with all its entities.

Whatever is pressed or set there becomes an `intent` on the device's own topic, and with that a wish like any other:
the envelope decides about it. Only a stop goes to the stop topic.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote

import naila
from naila.events import JsonValue
from naila.fleet import (
    SET_PARAMETER,
    STOP,
    ActionSpec,
    DeviceProfile,
    ParameterSpec,
    Reading,
    TelemetrySpec,
    on_one_line,
)
from naila.mqtt import discovery_templates as templates
from naila.mqtt import wire
from naila.mqtt.discovery_units import quantity, spelled
from naila.mqtt.topics import INTENT, REPLY, STATUS, TELEMETRY, DiscoveryTopics, Topics
from naila.mqtt.topics import STOP as STOP_LEAF

# Who speaks, and in which conversation: so that rules and the audit can tell Home Assistant from others.
USER: Final = "home-assistant"
CONVERSATION: Final = "home-assistant"
# The device through which the brain itself is spoken to.
BRAIN_SPEAKER: Final = "home_assistant"
MAX_COMPONENTS: Final = 300
MAX_BUTTONS_EACH: Final = 10
MAX_NAME_CHARS: Final = 100
MAX_TEXT_CHARS: Final = 255
_HUGE: Final = 1_000_000

Entity = dict[str, JsonValue]


class Discovery:
    """Makes documents.

    Args:
        topics: the contract's.
        places: Home Assistant's.
    """

    def __init__(self, topics: Topics, places: DiscoveryTopics) -> None:
        self._topics = topics
        self._places = places

    def device(
        self, profile: DeviceProfile, *, online: bool | None, readings: Mapping[str, Reading]
    ) -> dict[str, JsonValue]:
        """Return the document of a device.

        Args:
            profile: what it declared.
            online: what it said of its presence; of one that never said, Home Assistant is not to wait for a word.
            readings: what it measures. What has no unit and was not measured yet is left out: nobody knows its kind.
        """
        object_id = self._places.object_id(profile.device_id)
        document: dict[str, JsonValue] = {
            "dev": _present(
                ids=[object_id],
                name=_shown(profile.name) or profile.device_id,
                mf="NAILA",
                mdl=_shown(profile.description) or None,
                sa=_shown(profile.room or "") or None,
                via_device=self._places.brain_id,
            ),
            "o": _origin(),
            "qos": 1,
            "cmps": _components(object_id, self._entities(profile, readings, online=online)),
        }
        own = self._of_device(profile.device_id, online=online)
        return {**document, "availability": own} if own else document

    def brain(self) -> dict[str, JsonValue]:
        """Return the document of the brain."""
        root = self._topics.root
        return {
            "dev": {
                "ids": [self._places.brain_id],
                "name": "NAILA" if root == "naila" else f"NAILA ({root})",
                "mf": "NAILA",
                "sw": naila.__version__,
            },
            "o": _origin(),
            "qos": 1,
            "cmps": _components(self._places.brain_id, self._brain_entities()),
        }

    def _brain_entities(self) -> Iterator[tuple[str, Entity]]:
        topics = self._topics
        diagnostic: Entity = {"entity_category": "diagnostic"}
        available: Entity = {"availability": self._of_brain()}
        yield (
            "binary_sensor.connected",
            {
                "name": "Connected",
                "state_topic": topics.brain_status,
                "value_template": templates.BRAIN_CONNECTED,
                "device_class": "connectivity",
                **diagnostic,
            },
        )
        yield (
            "sensor.status",
            {
                "name": "Status",
                "state_topic": topics.brain_status,
                "device_class": "enum",
                "options": ["starting", "online", "degraded", "stopping", "offline"],
                "json_attributes_topic": topics.health,
                "json_attributes_template": templates.BRAIN_HEALTH,
                **diagnostic,
            },
        )
        figures: tuple[tuple[str, str, Entity], ...] = (
            ("tokens_per_second", "Speed", {"unit_of_measurement": "tokens/s", "state_class": "measurement"}),
            ("tokens_generated", "Tokens", {"unit_of_measurement": "tokens", "state_class": "total_increasing"}),
            (
                "inference_time_ms",
                "Last answer",
                {"unit_of_measurement": "ms", "device_class": "duration", "state_class": "measurement"},
            ),
            ("queue_depth", "Waiting requests", {"state_class": "measurement"}),
            (
                "rss_bytes",
                "Memory",
                {"unit_of_measurement": "B", "device_class": "data_size", "state_class": "measurement"},
            ),
        )
        for field, name, shape in figures:
            source: Entity = {"state_topic": topics.metrics, "value_template": templates.number_of(field)}
            yield f"sensor.metrics.{field}", {"name": name, **source, **shape, **diagnostic, **available}
        model: Entity = {"state_topic": topics.metrics, "value_template": templates.text_of("model_name")}
        yield "sensor.metrics.model_name", {"name": "Model", **model, **diagnostic, **available}
        alert: Entity = {"state_topic": topics.alerts, "value_template": templates.ALERT_TEXT}
        yield "sensor.alert", {"name": "Last alert", **alert, "json_attributes_topic": topics.alerts, **available}
        stop: Entity = {"command_topic": topics.fleet_stop, "payload_press": STOP, "icon": "mdi:stop-circle"}
        yield "button.stop", {"name": "Stop everybody", **stop, **available}
        for key, entity in self._speech(BRAIN_SPEAKER):
            yield key, {**entity, **available}

    def _entities(
        self, profile: DeviceProfile, readings: Mapping[str, Reading], *, online: bool | None
    ) -> Iterator[tuple[str, Entity]]:
        through_brain = [*self._of_device(profile.device_id, online=online), *self._of_brain()]
        needs_brain: Entity = {"availability": through_brain, "availability_mode": "all"}
        stop: Entity = {"command_topic": self._topics.device(profile.device_id, STOP_LEAF), "payload_press": STOP}
        yield "button.stop", {"name": "Stop", **stop, "icon": "mdi:stop-circle", **needs_brain}
        for key, entity in self._speech(profile.device_id):
            yield key, {**entity, **needs_brain}
        for field, spec in profile.telemetry.items():
            yield from self._sensor(profile.device_id, field, spec, readings.get(field))
        for parameter, wanted in profile.parameters.items():
            if wanted.writable:
                for key, entity in self._parameter(profile, parameter, wanted):
                    yield key, {**entity, **needs_brain, "entity_category": "config"}
        for action in profile.actions.values():
            if action.name not in {STOP, SET_PARAMETER}:
                for key, entity in self._action(profile.device_id, action):
                    yield key, {**entity, **needs_brain}

    def _speech(self, device_id: str) -> Iterator[tuple[str, Entity]]:
        said = {"text": templates.VALUE, "user_id": USER, "conversation_id": CONVERSATION}
        reply = self._topics.device(device_id, REPLY)
        yield (
            "text.say",
            {
                "name": "Say something",
                "command_topic": self._topics.device(device_id, INTENT),
                "command_template": templates.json_with(said, templates.ANY_TEXT),
                "max": MAX_TEXT_CHARS,
                "icon": "mdi:chat",
            },
        )
        yield (
            "sensor.reply",
            {
                "name": "Last reply",
                "state_topic": reply,
                "value_template": templates.REPLY_TEXT,
                "json_attributes_topic": reply,
                "json_attributes_template": templates.REPLY_DETAILS,
                "icon": "mdi:message-reply",
            },
        )

    def _sensor(
        self, device_id: str, field: str, spec: TelemetrySpec, reading: Reading | None
    ) -> Iterator[tuple[str, Entity]]:
        source: Entity = {"name": _spoken(field), "state_topic": self._topics.device(device_id, TELEMETRY)}
        value = reading.value if reading is not None else None
        key = f"telemetry.{quote(field, safe='')}"
        if isinstance(value, bool):
            yield f"binary_sensor.{key}", {**source, "value_template": templates.flag_of(field)}
        elif isinstance(value, str):
            yield f"sensor.text.{key}", {**source, "value_template": templates.text_of(field)}
        elif value is not None or spec.unit or spec.minimum is not None or spec.maximum is not None:
            unit = spelled(spec.unit) if spec.unit else None
            device_class, state_class = quantity(field, unit)
            shape = _present(unit_of_measurement=unit, device_class=device_class, state_class=state_class)
            yield f"sensor.{key}", {**source, "value_template": templates.number_of(field), **shape}

    def _parameter(self, profile: DeviceProfile, name: str, spec: ParameterSpec) -> Iterator[tuple[str, Entity]]:
        device_id, key = profile.device_id, f"parameter.{quote(name, safe='')}"
        base: Entity = {"name": _spoken(name), "command_topic": self._topics.device(device_id, INTENT)}
        state: Entity = {"state_topic": self._topics.device(device_id, TELEMETRY)} if name in profile.telemetry else {}

        def wish(value: object) -> dict[str, object]:
            return _wish(SET_PARAMETER, {"name": name, "value": value})

        if spec.type == "boolean":
            if state:
                state |= {"value_template": templates.flag_of(name), "state_on": "ON", "state_off": "OFF"}
            yield f"switch.{key}", {**base, "payload_on": _json(wish(True)), "payload_off": _json(wish(False)), **state}
            return
        is_text = spec.type == "string"
        if state:
            state |= {"value_template": templates.text_of(name) if is_text else templates.number_of(name)}
        command = templates.json_with(wish(templates.VALUE), templates.ANY_TEXT if is_text else templates.A_NUMBER)
        base |= {"command_template": command}
        if spec.enum:
            options: list[JsonValue] = [each if isinstance(each, str) else _number(each) for each in spec.enum]
            yield f"select.{key}", {**base, "options": list(dict.fromkeys(map(str, options))), **state}
        elif is_text:
            yield f"text.{key}", {**base, "max": MAX_TEXT_CHARS, **state}
        else:
            low = -_HUGE if spec.minimum is None else spec.minimum
            high = _HUGE if spec.maximum is None else spec.maximum
            shape = _range(low, high, is_whole=spec.type == "integer", unit=spec.unit)
            if shape is not None:
                yield f"number.{key}", {**base, **shape, **state}

    def _action(self, device_id: str, action: ActionSpec) -> Iterator[tuple[str, Entity]]:
        name, key = _spoken(action.name), f"action.{action.name}"
        base: Entity = {"command_topic": self._topics.device(device_id, INTENT)}
        required = action.parameters.get("required")
        if not required:
            yield f"button.{key}", {**base, "name": name, "payload_press": _json(_wish(action.name, {}))}
            return
        argument, schema = _only_argument(action)
        if argument is None:
            return
        values = _few_values(schema)
        for value in values:
            text = value if isinstance(value, str) else _number(value)
            yield (
                f"button.{key}.{quote(text, safe='')}",
                {
                    **base,
                    "name": _shown(f"{name}: {text}"),
                    "payload_press": _json(_wish(action.name, {argument: value})),
                },
            )
        low, high = schema.get("minimum"), schema.get("maximum")
        is_whole = schema.get("type") == "integer"
        if values or not (is_whole or schema.get("type") == "number"):
            return
        if isinstance(low, int | float) and isinstance(high, int | float):
            unit = schema.get("unit")
            shape = _range(low, high, is_whole=is_whole, unit=unit if isinstance(unit, str) else None)
            if shape is not None:
                wish = templates.json_with(_wish(action.name, {argument: templates.VALUE}), templates.A_NUMBER)
                yield f"number.{key}", {**base, "name": name, "command_template": wish, **shape}

    def _of_device(self, device_id: str, *, online: bool | None) -> list[JsonValue]:
        topic = self._topics.device(device_id, STATUS)
        return [] if online is None else [{"topic": topic, "value_template": templates.DEVICE_AVAILABLE}]

    def _of_brain(self) -> list[JsonValue]:
        return [{"topic": self._topics.brain_status, "value_template": templates.BRAIN_AVAILABLE}]


def components_of(document: Mapping[str, JsonValue]) -> dict[str, str]:
    """Return the entities that a document has, with their platforms; whoever wrote it."""
    found = document.get("cmps")
    entities = found.items() if isinstance(found, dict) else ()
    platforms = {key: entity.get("p") for key, entity in entities if isinstance(entity, dict)}
    return {key: platform for key, platform in platforms.items() if isinstance(platform, str)}


def _components(object_id: str, entities: Iterator[tuple[str, Entity]]) -> dict[str, JsonValue]:
    # The unique id has one "." at least, which no object id has: so no two devices can have the same.
    components: dict[str, JsonValue] = {}
    for key, entity in entities:
        if len(components) >= MAX_COMPONENTS:
            break
        components[key] = {"p": key.partition(".")[0], "unique_id": f"{object_id}.{key}", **entity}
    return components


def _wish(action: str, arguments: Mapping[str, object]) -> dict[str, object]:
    """Return the intent that names an action; its text is for the transcript, and no stop word whatever the action."""
    return {
        "text": f"action: {action}",
        "intent": "action",
        "entities": {"action": action, "arguments": arguments},
        "user_id": USER,
        "conversation_id": CONVERSATION,
    }


def _only_argument(action: ActionSpec) -> tuple[str | None, Mapping[str, JsonValue]]:
    """Return the one argument that an action needs, with its schema; None where it needs more."""
    required, properties = action.parameters.get("required"), action.parameters.get("properties")
    if isinstance(required, list) and isinstance(properties, dict) and len(required) == 1:
        name = required[0]
        schema = properties.get(name) if isinstance(name, str) else None
        if isinstance(name, str) and isinstance(schema, dict):
            return name, schema
    return None, {}


def _few_values(schema: Mapping[str, JsonValue]) -> list[str | int | float | bool]:
    values = schema.get("enum")
    if schema.get("type") == "boolean" and values is None:
        return [True, False]
    if not isinstance(values, list) or len(values) > MAX_BUTTONS_EACH:
        return []
    few = [value for value in values if isinstance(value, str | int | float | bool)]
    return few if len(few) == len(values) else []


def _range(low: float, high: float, *, is_whole: bool, unit: str | None) -> Entity | None:
    """Return the limits of a number; None where Home Assistant could show none."""
    if not low < high:
        return None
    step = 1.0 if is_whole else min(1.0, max(0.001, 10 ** math.floor(math.log10((high - low) / 100))))
    shape: Entity = {"min": low, "max": high, "step": step, "mode": "box"}
    return {**shape, "unit_of_measurement": spelled(unit)} if unit else shape


def _spoken(name: str) -> str:
    """Return a declared name as people read it: `Set brightness`."""
    words = _shown(re.sub(r"[_\s]+", " ", name).strip()) or "Without a name"
    return words[:1].upper() + words[1:]


def _shown(text: str) -> str:
    """Return text as Home Assistant takes it: on one line, and not too long."""
    return on_one_line(text)[:MAX_NAME_CHARS]


def _number(value: JsonValue) -> str:
    return json.dumps(value)


def _json(document: Mapping[str, object]) -> str:
    return wire.dumps(document).decode()


def _origin() -> dict[str, JsonValue]:
    return {"name": "NAILA", "sw": naila.__version__}


def _present(**fields: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in fields.items() if value is not None}
