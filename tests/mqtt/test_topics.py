import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.errors import ContractError
from naila.mqtt.topics import Topics

TOPICS = Topics("naila")


def refusal(topic: str) -> ContractError:
    with pytest.raises(ContractError) as caught:
        TOPICS.parse(topic)
    return caught.value


@pytest.mark.parametrize(
    ("device_id", "leaf"),
    [("r2d2", "intent"), ("A-b_9", "reply/stream"), ("x" * 64, "action/result"), ("devices", "cancel")],
)
def test_what_is_built_is_parsed(device_id: str, leaf: str) -> None:
    assert TOPICS.parse(TOPICS.device(device_id, leaf)) == (device_id, leaf)


def test_the_contracts_topics_are_these() -> None:
    assert [wanted.topic for wanted in TOPICS.intake()] == [
        "naila/devices/+/intent",
        "naila/devices/+/cancel",
        "naila/devices/+/status",
        "naila/devices/+/capabilities",
        "naila/devices/+/telemetry",
        "naila/devices/+/action/result",
        "naila/devices/+/confirm",
    ]
    assert [wanted.topic for wanted in TOPICS.stops()] == ["naila/devices/+/stop", "naila/fleet/stop"]
    assert TOPICS.for_device("r") == (
        "naila/devices/r/reply",
        "naila/devices/r/reply/stream",
        "naila/devices/r/error",
        "naila/devices/r/action",
        "naila/devices/r/action/pending",
        "naila/ai/status",
    )
    assert (TOPICS.health, TOPICS.metrics, TOPICS.alerts) == (
        "naila/ai/health",
        "naila/ai/metrics",
        "naila/ai/alerts",
    )


def test_what_must_not_be_retained_is_known_by_its_flag_and_what_is_old_by_the_brokers() -> None:
    wishes = {wanted.topic for wanted in TOPICS.intake() if wanted.retain_as_published}
    assert wishes == {f"naila/devices/+/{leaf}" for leaf in ("intent", "cancel", "action/result", "confirm")}
    assert not any(wanted.retain_as_published for wanted in TOPICS.stops())


def test_a_root_may_have_levels() -> None:
    assert Topics("home/naila").parse("home/naila/devices/r/intent") == ("r", "intent")


@pytest.mark.parametrize("topic", ["", "naila", "naila/devices/r", "other/devices/r/intent", "naila/device/r/intent"])
def test_a_topic_of_another_shape_names_no_device(topic: str) -> None:
    error = refusal(topic)
    assert error.code == "bad_topic"
    assert error.device_id is None
    assert "naila/devices/<device id>/<what>" in str(error)


@pytest.mark.parametrize("raw", ["a b", "é", "x" * 65, "a.b", "x" * 256])
def test_a_bad_device_id_is_refused_and_can_be_told(raw: str) -> None:
    error = refusal(f"naila/devices/{raw}/intent")
    assert error.code == "bad_topic"
    assert error.device_id == raw
    assert "[A-Za-z0-9_-]{1,64}" in str(error)


@pytest.mark.parametrize("raw", ["", "x" * 257, "a\x07b", "a\x85b", "+", "#"])
def test_a_device_id_that_cannot_be_told_is_not_carried(raw: str) -> None:
    assert refusal(f"naila/devices/{raw}/intent").device_id is None


def test_a_long_topic_is_shortened_in_the_message() -> None:
    assert len(str(refusal("naila/devices/" + "x" * 60_000))) < 500


@given(st.text(max_size=300) | st.text(max_size=80).map(lambda raw: f"naila/devices/{raw}/intent"))
def test_no_topic_raises_anything_else(topic: str) -> None:
    try:
        device_id, _ = TOPICS.parse(topic)
    except ContractError as error:
        assert error.code == "bad_topic"  # noqa: PT017 - raising is one of two right outcomes
    else:
        assert TOPICS.is_own(topic)
        assert device_id
