from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example as example_of
from hypothesis import given, settings
from hypothesis import strategies as st

from naila.devices.capabilities import read_profile
from naila.devices.plain_json import shown
from naila.errors import ContractError
from naila.events import Intent, Telemetry
from naila.fleet import Reading
from naila.mqtt.codec import Codec
from naila.mqtt.discovery import BRAIN_SPEAKER, MAX_COMPONENTS, Discovery
from naila.mqtt.discovery_units import quantity, spelled
from naila.mqtt.publication import Publication
from naila.mqtt.telemetry import read_values
from naila.mqtt.topics import DiscoveryTopics, Topics
from naila.understanding.stop_words import StopWords
from support.fleets import example
from support.home import Home, render

TOPICS, PLACES = Topics("naila"), DiscoveryTopics("homeassistant", "naila")
CODEC = Codec(TOPICS, 65_536, lambda: "made")
ONLINE = {"naila/devices/rover/status": "online", "naila/ai/status": "online"}
# What a device writes to get its own words evaluated, or out of the string that it stands in.
EVIL = [
    "{{ states('sensor.secret') }}",
    "{% for x in range(9) %}{% endfor %}",
    "{# hidden #}",
    "x'] }}{{ states() }}{{ value_json['",
    "\\'] }}{{ states() }}",
    '"},"entities":{"action":"self_destruct',
    "\\u007b\\u007b states() }}",
    "Füllstand der 🔋 %",
    "a'b\"c\\",
    "the value",
]


def home_of(document: dict[str, Any], readings: dict[str, Any] = {}, *, online: bool | None = True) -> Home:  # noqa: B006
    profile = read_profile("rover", document)
    measured = {name: Reading(value, 0.0) for name, value in readings.items()}
    made = Discovery(TOPICS, PLACES).device(profile, online=online, readings=measured)
    home = Home()
    home.discover(PLACES.config("naila_rover"), json.dumps(made).encode())
    return home


def a_device(**document: Any) -> dict[str, Any]:
    return {"name": "Rover", "actions": [], **document}


def an_action(name: str, **parameters: Any) -> dict[str, Any]:
    required = list(parameters)
    return {"name": name, "parameters": {"type": "object", "properties": parameters, "required": required}}


def wanted(topic: str, payload: str) -> Intent:
    event = CODEC.decode(Publication(topic=topic, payload=payload.encode(), qos=1))
    assert isinstance(event, Intent)
    return event


def the_action(home: Home, name: str, value: Any = None, platform: str | None = None) -> Any:
    intent = wanted(*home.act(home.entity("naila_rover", name, platform), value))
    assert (intent.device_id, intent.intent, intent.conversation_id) == ("rover", "action", "home-assistant")
    return intent.entities


@pytest.mark.parametrize("name", ["rover", "arm", "lamp"])
def test_the_robots_that_come_with_naila_appear(name: str) -> None:
    home = home_of(example(name))
    assert {"Stop", "Say something", "Last reply"} <= home.names("naila_rover")
    assert len(home.entities) > 8


def test_the_device_says_who_and_where_it_is() -> None:
    home = home_of(a_device(description="Drives.", room="Kitchen"))
    assert home.devices == {
        "naila_rover": {
            "ids": ["naila_rover"],
            "name": "Rover",
            "mf": "NAILA",
            "mdl": "Drives.",
            "sa": "Kitchen",
            "via_device": "naila",
        }
    }


@pytest.mark.parametrize(
    ("status", "brain", "sensor", "button"),
    [
        ("online", "online", True, True),
        ("charging", "degraded", True, True),
        ('{"status": "online", "battery": 3}', "online", True, True),
        ('{"status": "offline"}', "online", False, False),
        ("offline", "online", False, False),
        ("online", "offline", True, False),
        ("online", "starting", True, False),
        ("", "online", False, False),
    ],
)
def test_availability_follows_the_device_and_for_what_the_brain_does_the_brain_too(
    status: str, brain: str, sensor: bool, button: bool
) -> None:
    home = home_of(a_device(telemetry={"battery": {"unit": "%"}}))
    retained = {"naila/devices/rover/status": status, "naila/ai/status": brain}
    assert home.is_available(home.entity("naila_rover", "Battery"), retained) is sensor
    assert home.is_available(home.entity("naila_rover", "Stop"), retained) is button


def test_a_device_that_never_says_whether_it_is_there_is_not_waited_for() -> None:
    home = home_of(a_device(telemetry={"battery": {"unit": "%"}}), online=None)
    assert home.is_available(home.entity("naila_rover", "Battery"), {})
    assert home.is_available(home.entity("naila_rover", "Stop"), {"naila/ai/status": "online"})


def test_a_number_has_its_unit_and_class() -> None:
    home = home_of(a_device(telemetry={"motor_temperature": {"unit": "°C", "maximum": 75}}))
    sensor = home.entity("naila_rover", "Motor temperature", "sensor")
    assert (sensor["unit_of_measurement"], sensor["device_class"], sensor["state_class"]) == (
        "°C",
        "temperature",
        "measurement",
    )
    assert home.state(sensor, '{"motor_temperature": 40.5, "x": 1}') == "40.5"


@pytest.mark.parametrize("payload", ['{"x": 1}', '{"battery": "full"}', '{"battery": true}', '{"battery": null}'])
def test_a_message_without_the_number_changes_nothing(payload: str) -> None:
    home = home_of(a_device(telemetry={"battery": {"unit": "%"}}))
    assert home.state(home.entity("naila_rover", "Battery"), payload) == ""


def test_what_has_no_unit_shows_its_kind_when_it_is_measured() -> None:
    document = a_device(telemetry={"docked": {}, "mode": {}, "count": {}})
    assert home_of(document).names("naila_rover") == {"Stop", "Say something", "Last reply"}
    home = home_of(document, {"docked": False, "mode": "idle", "count": 3})
    docked, mode = home.entity("naila_rover", "Docked", "binary_sensor"), home.entity("naila_rover", "Mode", "sensor")
    assert [home.state(docked, f'{{"docked": {value}}}') for value in ("true", "false")] == ["ON", "OFF"]
    assert home.state(docked, "{}") == ""
    assert home.state(mode, '{"mode": "exploring"}') == "exploring"
    assert home.state(mode, "{}") == "before"
    assert home.state(home.entity("naila_rover", "Count"), '{"count": 4}') == "4"


@pytest.mark.parametrize(
    ("field", "unit", "device_class", "state_class"),
    [
        ("battery", "%", "battery", "measurement"),
        ("battery_level", "percent", "battery", "measurement"),
        ("humidity", "%", "humidity", "measurement"),
        ("brightness", "%", None, "measurement"),
        ("temperature", "celsius", "temperature", "measurement"),
        ("power", "W", "power", "measurement"),
        ("supply", "V", "voltage", "measurement"),
        ("front_distance", "m", "distance", "measurement"),
        ("energy", "kWh", "energy", "total"),
        ("co2", "ppm", "carbon_dioxide", "measurement"),
        ("gripper_force", "N", None, "measurement"),
        ("count", None, None, "measurement"),
    ],
)
def test_units_become_classes_where_they_surely_fit(
    field: str, unit: str | None, device_class: str | None, state_class: str
) -> None:
    assert quantity(field, spelled(unit) if unit else None) == (device_class, state_class)


def test_an_action_without_needed_arguments_is_a_button() -> None:
    home = home_of(a_device(actions=[{"name": "open_gripper"}, an_action("home")]))
    assert the_action(home, "Open gripper") == {"action": "open_gripper", "arguments": {}}
    assert the_action(home, "Home") == {"action": "home", "arguments": {}}


def test_an_action_with_a_choice_is_a_button_for_each() -> None:
    home = home_of(a_device(actions=[an_action("switch", state={"type": "string", "enum": ["on", "off"]})]))
    assert the_action(home, "Switch: off") == {"action": "switch", "arguments": {"state": "off"}}
    assert {"Switch: on", "Switch: off"} <= home.names("naila_rover")


def test_a_needed_boolean_is_two_buttons() -> None:
    home = home_of(a_device(actions=[an_action("light", on={"type": "boolean"})]))
    assert the_action(home, "Light: true") == {"action": "light", "arguments": {"on": True}}


def test_an_action_that_needs_a_number_is_a_number() -> None:
    level = {"type": "integer", "minimum": 0, "maximum": 100, "unit": "%"}
    home = home_of(a_device(actions=[an_action("set_brightness", level=level)]))
    assert the_action(home, "Set brightness", 40) == {"action": "set_brightness", "arguments": {"level": 40}}
    entity = home.entity("naila_rover", "Set brightness")
    assert (entity["min"], entity["max"], entity["step"], entity["unit_of_measurement"]) == (0, 100, 1, "%")


def test_an_action_that_needs_more_is_left_to_words() -> None:
    joint, angle = {"type": "string"}, {"type": "number", "minimum": 0, "maximum": 9}
    many = {"type": "string", "enum": [f"v{index}" for index in range(11)]}
    actions = [
        an_action("move_joint", joint=joint, angle=angle),
        an_action("say", text=joint),
        an_action("go", to=many),
    ]
    assert home_of(a_device(actions=actions)).names("naila_rover") == {"Stop", "Say something", "Last reply"}


@pytest.mark.parametrize(
    ("spec", "platform", "value", "sent"),
    [
        ({"type": "number", "minimum": 0, "maximum": 10, "unit": "s"}, "number", 2.5, 2.5),
        ({"type": "integer", "minimum": 1, "maximum": 100}, "number", 7, 7),
        ({"type": "number"}, "number", -3, -3),
        ({"type": "boolean"}, "switch", True, True),
        ({"type": "boolean"}, "switch", False, False),
        ({"type": "string", "enum": ["pen", 'a "b"']}, "select", 'a "b"', 'a "b"'),
        ({"type": "integer", "enum": [1, 5]}, "select", "5", 5),
        ({"type": "string"}, "text", "Schön {{ value }} \\", "Schön {{ value }} \\"),
    ],
)
def test_a_writable_parameter_is_set(spec: dict[str, Any], platform: str, value: Any, sent: Any) -> None:
    home = home_of(a_device(parameters={"speed": {**spec, "writable": True}}))
    assert the_action(home, "Speed", value, platform) == {
        "action": "set_parameter",
        "arguments": {"name": "speed", "value": sent},
    }
    assert home.entity("naila_rover", "Speed")["entity_category"] == "config"


def test_a_parameter_that_is_not_writable_or_has_one_value_is_not_shown() -> None:
    parameters = {
        "serial": {"type": "string"},
        "fixed": {"type": "number", "minimum": 1, "maximum": 1, "writable": True},
    }
    assert home_of(a_device(parameters=parameters)).names("naila_rover") == {"Stop", "Say something", "Last reply"}


def test_a_parameter_that_is_measured_too_shows_its_value() -> None:
    document = a_device(
        parameters={"speed": {"type": "number", "writable": True}}, telemetry={"speed": {"unit": "m/s"}}
    )
    home = home_of(document)
    assert home.state(home.entity("naila_rover", "Speed", "number"), '{"speed": 0.5}') == "0.5"


def test_what_somebody_types_is_said_to_the_device() -> None:
    home = home_of(a_device())
    words = 'Sag "Hallo", {{ states() }} {"intent": "action"}\\'
    intent = wanted(*home.act(home.entity("naila_rover", "Say something"), words))
    assert (intent.text, intent.intent, intent.entities, intent.user_id) == (words, None, {}, "home-assistant")


def test_the_last_reply_is_shown() -> None:
    home = home_of(a_device())
    reply = home.entity("naila_rover", "Last reply")
    payload = json.dumps({"text": "x" * 300, "intent": "command", "source": "action", "degraded": False})
    assert home.state(reply, payload) == "x" * 255
    assert len(json.loads(render(reply["json_attributes_template"], payload))["text"]) == 300


def test_stop_goes_to_the_stop_topic_whatever_was_declared() -> None:
    home = home_of(a_device(actions=[{"name": "stop"}]))
    assert home.act(home.entity("naila_rover", "Stop"))[0] == "naila/devices/rover/stop"


@pytest.mark.parametrize("name", ["halt", "stop_now", "now", "please", "hey"])
def test_a_button_is_never_heard_as_a_stop(name: str) -> None:
    home = home_of(a_device(actions=[{"name": name}]))
    intent = wanted(*home.act(next(each for each in home.entities.values() if "action." in each["of"][1])))
    assert not StopWords(["stop", "halt"]).matches(intent.text)


@pytest.mark.parametrize("evil", EVIL)
def test_what_a_device_writes_is_never_evaluated(evil: str) -> None:
    evil = evil[:64]
    choice = {"type": "string", "enum": [evil, "b"]}
    number = {"type": "number", "minimum": 0, "maximum": 1}
    document = {
        "name": evil,
        "description": evil,
        "room": evil,
        "actions": [an_action("choose", **{evil: choice}), an_action("turn", **{evil: number})],
        "telemetry": {evil: {"unit": evil[:32], "description": evil}},
        "parameters": {
            evil: {"type": "number", "unit": evil[:32], "writable": True},
            f"{evil[:62]}2": {"type": "string", "enum": [evil], "writable": True},
        },
    }
    home = home_of(document)
    by_key = {
        entity["of"][1].partition(".")[0] + entity["of"][1].split(".")[1]: entity for entity in home.entities.values()
    }
    assert home.state(by_key["sensortelemetry"], json.dumps({evil: 4.5})) == "4.5"
    assert wanted(*home.act(by_key["numberparameter"], 3)).entities["arguments"] == {"name": evil, "value": 3}
    sent = wanted(*home.act(by_key["selectparameter"], evil)).entities["arguments"]
    assert sent == {"name": f"{evil[:62]}2", "value": evil}
    assert wanted(*home.act(by_key["numberaction"], 1)).entities["arguments"] == {evil: 1}
    presses = [wanted(*home.act(each)) for each in home.entities.values() if ".action.choose" in each["unique_id"]]
    assert {evil} == {next(iter(press.entities["arguments"])) for press in presses}  # type: ignore[arg-type]
    assert evil in [press.entities["arguments"][evil] for press in presses]  # type: ignore[index,call-overload]


@settings(max_examples=50)
@given(st.text(min_size=1, max_size=64), st.text(max_size=20))
def test_any_field_and_any_text_are_only_data(name: str, value: str) -> None:
    try:
        home = home_of(a_device(telemetry={name: {}}), {name: value})
    except ContractError:
        return
    sensor = next(each for each in home.entities.values() if "telemetry" in each["unique_id"])
    assert home.state(sensor, json.dumps({name: value})) == value.strip()
    CODEC.encode(Telemetry(device_id="rover", values={name: value}))


def test_a_device_has_only_so_many_entities() -> None:
    fields = {f"f{index}": {"unit": "m"} for index in range(256)}
    choices = {"type": "string", "enum": [f"v{index}" for index in range(10)]}
    document = a_device(telemetry=fields, actions=[an_action(f"a{index}", x=choices) for index in range(20)])
    assert len(home_of(document).entities) == MAX_COMPONENTS


def test_no_two_things_have_the_same_id() -> None:
    home, discovery = Home(), Discovery(TOPICS, PLACES)
    home.discover(PLACES.config(PLACES.brain_id), json.dumps(discovery.brain()).encode())
    actions = [
        an_action("a_b", x={"type": "string", "enum": ["c"]}),
        an_action("a", x={"type": "string", "enum": ["b_c"]}),
    ]
    telemetry = {name: {"unit": "m"} for name in ("a b", "a_b", "a.b", "a/b", "A_b", "ä")}
    for device_id in ("a", "a_a", "ai", "naila", "naila_a", "stop", "a-b", "A"):
        profile = read_profile(device_id, a_device(actions=actions, telemetry=telemetry))
        made = discovery.device(profile, online=True, readings={})
        home.discover(PLACES.config(PLACES.object_id(device_id)), json.dumps(made).encode())
    assert len(home.devices) == 9


@pytest.mark.parametrize("root", ["naila", "lab-1", "home/naila", "my_robots", "naila_a"])
def test_ids_lead_back_to_devices(root: str) -> None:
    places = DiscoveryTopics("homeassistant", root)
    for device_id in ("rover", "a_b", "_", "-", "A"):
        object_id = places.object_id(device_id)
        assert places.device_id(object_id) == device_id
        assert places.own_id(places.config(object_id)) == object_id
    assert places.device_id(places.brain_id) is None
    assert places.own_id(places.config(places.brain_id)) == places.brain_id


@pytest.mark.parametrize("topic", ["homeassistant/device/other/config", "homeassistant/device/naila_a/b/config", "x"])
def test_what_others_publish_is_not_ours(topic: str) -> None:
    assert PLACES.own_id(topic) is None


def test_the_brain_appears() -> None:
    home = Home()
    home.discover(PLACES.config("naila"), json.dumps(Discovery(TOPICS, PLACES).brain()).encode())
    retained = {"naila/ai/status": "degraded"}
    connected, speed = home.entity("naila", "Connected"), home.entity("naila", "Speed")
    assert [home.state(connected, word) for word in ("online", "degraded", "offline")] == ["ON", "ON", "OFF"]
    assert home.is_available(connected, {})
    assert home.is_available(speed, retained)
    assert not home.is_available(speed, {"naila/ai/status": "offline"})
    assert home.state(speed, '{"tokens_per_second": 12.5}') == "12.5"
    assert home.state(home.entity("naila", "Model"), '{"model_name": null}') == "before"
    assert home.state(home.entity("naila", "Last alert"), '{"code": "x", "message": "Hot."}') == "Hot."
    assert home.act(home.entity("naila", "Stop everybody"))[0] == "naila/fleet/stop"
    assert wanted(*home.act(home.entity("naila", "Say something"), "hello")).device_id == BRAIN_SPEAKER
    details = home.entity("naila", "Status")["json_attributes_template"]
    health = '{"version": "1", "phase": "running", "components": {"mqtt": {"status": "ok"}}}'
    assert json.loads(render(details, health))["components"]["mqtt"] == {"status": "ok"}


NAMES = st.text(
    st.characters() | st.sampled_from("a _\t\xa0\xad\u200b\u200c\u200d\u202e\u2060\u2028\u3000\ufe0f"), max_size=70
)


@given(NAMES)
@example_of("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
@example_of("👩\u200d🚀")
@example_of("room\xa0temperature")
def test_a_name_that_may_be_declared_may_be_measured_and_is_shown_as_it_is(name: str) -> None:
    document = a_device(telemetry={name: {"unit": "°C"}}, parameters={name: {"type": "boolean", "writable": True}})
    try:
        read_profile("rover", document)
    except ContractError:
        return
    assert read_values({name: 1}) == {name: 1}
    words = " ".join(name.split())
    assert shown(name, 64) == words
    if words.replace("_", "").strip():
        spoken = " ".join(words.replace("_", " ").split())
        sensor = home_of(document).entity("naila_rover", spoken[:1].upper() + spoken[1:], "sensor")
        assert Home.state(sensor, json.dumps({name: 21})) == "21"
