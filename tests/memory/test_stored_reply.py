"""Replies survive being kept, across versions."""

import json
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from naila.events import ActionOutcome, JsonValue, Reply, Timing, Usage
from naila.memory.stored_reply import dump_reply, load_reply

anything = st.text(st.characters())  # lone surrogates too
json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | anything,
    lambda inner: st.lists(inner) | st.dictionaries(anything, inner),
    max_leaves=5,
)
actions = st.builds(
    ActionOutcome,
    id=anything,
    name=anything,
    arguments=st.dictionaries(anything, json_values),
    ok=st.none() | st.booleans(),
    result=json_values,
    error=st.none() | anything,
)
numbers = st.floats(allow_nan=False)
counts = st.integers(0)
replies = st.builds(
    Reply,
    device_id=anything,
    id=anything,
    text=anything,
    intent=anything,
    source=st.sampled_from(["llm", "pattern", "cache", "remote", "action"]),
    degraded=st.booleans(),
    conversation_id=anything,
    finish_reason=st.sampled_from(["stop", "length", "cancelled", "deadline"]),
    actions=st.lists(actions, max_size=3).map(tuple),
    model=st.none() | anything,
    usage=st.builds(Usage, prompt_tokens=counts, cached_tokens=counts, completion_tokens=counts),
    timing=st.builds(Timing, queue_ms=numbers, ttft_ms=numbers, total_ms=numbers, tokens_per_second=numbers),
    dropped_turns=counts,
)


@given(replies)
def test_any_reply_comes_back_equal(reply: Reply) -> None:
    document = dump_reply(reply)
    assert document.isascii()
    assert load_reply(document) == reply


def test_a_mapping_that_is_no_dict_is_kept() -> None:
    reply = Reply(
        device_id="r2",
        id="1",
        text="Done.",
        intent="move",
        source="action",
        degraded=False,
        conversation_id="default",
        finish_reason="stop",
        actions=(ActionOutcome(id="a", name="drive", arguments=MappingProxyType({"path": [1, 2]})),),
    )
    assert load_reply(dump_reply(reply)).actions[0].arguments == {"path": [1, 2]}


def test_fields_of_a_newer_version_are_left_out_and_missing_ones_take_their_default() -> None:
    required = {
        "device_id": "r2",
        "id": "1",
        "text": "Hi.",
        "intent": "greeting",
        "source": "llm",
        "degraded": False,
        "conversation_id": "default",
        "finish_reason": "stop",
    }
    reply = load_reply(json.dumps({**required, "mood": "happy", "usage": {"prompt_tokens": 3, "watts": 5}}))
    assert (reply.text, reply.usage, reply.timing, reply.actions) == ("Hi.", Usage(prompt_tokens=3), Timing(), ())
