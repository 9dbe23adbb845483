"""Secrets in texts, known ones and what looks like one."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.server.redaction import Redaction


@given(st.text(min_size=3, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_is_in_no_text_however_it_was_quoted(secret: str, before: str, after: str) -> None:
    redact = Redaction([secret])
    for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        assert form not in redact(f"{before}{form}{after}").replace("***", "") or form in f"{before}{after}"


@pytest.mark.parametrize(
    "text",
    [
        "connecting to mqtt://naila:sesame1@broker:1883 failed",
        "MQTT_PASSWORD=sesame1 is set",
        "{'password': 'sesame1', 'user': 'x'}",
        '{"mqtt_password": "sesame1"}',
        "Authorization: Bearer sesame1.abcdef",
        "api_key=sesame1",
        "https://example.org/x?access_token=sesame1&y=1",
    ],
)
def test_what_looks_like_a_secret_is_one(text: str) -> None:
    shown = Redaction()(text)
    assert "sesame1" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "wrong user name or password: correct MQTT_USERNAME and MQTT_PASSWORD",
        "loaded in 1.07 s: 12 tokens/s, prompt_tokens=5",
        "naila/devices/r2/intent: the device id must be 1 to 64 letters",
        "http://127.0.0.1:1883/path",
        "MQTT_PASSWORD_FILE='/etc/naila/mqtt_password': cannot be read",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert Redaction()(text) == text


def test_a_word_of_two_letters_is_no_secret() -> None:
    assert Redaction(["a", "it"])("a model is what it is") == "a model is what it is"


def test_the_longer_of_two_secrets_goes_first() -> None:
    assert Redaction(["sesame", "sesame street"])("x sesame street y sesame z") == "x *** y *** z"


@pytest.mark.parametrize("piece", ["a", "://", "password", 'password="', "Bearer ", "hf_", "://a:b"])
def test_a_hostile_text_takes_no_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    started = time.process_time()
    Redaction(["sesame"])(text)
    assert time.process_time() - started < 1
