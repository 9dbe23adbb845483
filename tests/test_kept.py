"""What lies on disks already can be read."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from naila.events import Intent
from naila.fleet import Outcome, Proposal
from naila.kept import (
    from_json,
    outcome_fields,
    outcome_from,
    proposal_fields,
    proposal_from,
    request_fields,
    request_from,
    to_json,
)
from naila.orchestration.kept_wish import read_wish, write_wish
from naila.orchestration.wanted import Wish
from naila.understanding.reading import Doubtful

REQUEST = Intent(
    device_id="r2",
    id="q1",
    text="lift",
    entities={"n": [1, None]},
    user_id="ada",
    correlation_data=b"\x00c",
    context={"a": True},
)
BEEP = Proposal(device_id="r2", name="beep", request_id="q1", speaker="r2")
LIFT = Proposal(
    device_id="r2",
    name="lift",
    arguments={"high": 1.5},
    request_id="q1",
    speaker="r2",
    user_id="ada",
    by="model",
    confirmation="c1",
)
FAILED = Outcome(proposal=LIFT, id="a1", status="failed", code="action_failed", message="jam", result={"at": 0.5})

REQUEST_TEXT = (
    '{"device_id":"r2","id":"q1","text":"lift","intent":null,"entities":{"n":[1,null]},"conversation_id":"default",'
    '"user_id":"ada","persona":null,"stream":false,"partial":false,"max_tokens":null,"temperature":null,'
    '"expires_in_ms":null,"context":{"a":true},"response_topic":null,"correlation_data":"0063"}'
)
BEEP_TEXT = (
    '{"device_id":"r2","name":"beep","arguments":{},"request_id":"q1","speaker":"r2","user_id":null,"by":"pattern",'
    '"confirmation":null}'
)
LIFT_TEXT = (
    '{"device_id":"r2","name":"lift","arguments":{"high":1.5},"request_id":"q1","speaker":"r2","user_id":"ada",'
    '"by":"model","confirmation":"c1"}'
)
FAILED_TEXT = '{"id":"a1","status":"failed","code":"action_failed","message":"jam","result":{"at":0.5},"question":""}'
PENDING_TEXT = '{"id":"p1","status":"pending","code":null,"message":"","result":null,"question":"Sure?"}'


def with_field(text: str, field: str) -> str:
    return f"{text[:-1]},{field}}}"


def test_requests_proposals_and_outcomes_are_written_as_ever() -> None:
    assert to_json(request_fields(REQUEST)) == REQUEST_TEXT
    assert to_json(proposal_fields(replace(LIFT, later=(BEEP,), expires_at_monotonic=7.0))) == LIFT_TEXT
    assert to_json(outcome_fields(FAILED)) == FAILED_TEXT
    assert to_json(proposal_fields(replace(LIFT, arguments=MappingProxyType({"high": 1.5})))) == LIFT_TEXT


def test_and_come_back() -> None:
    assert request_from(from_json(REQUEST_TEXT), whole=True) == REQUEST
    journalled = with_field(LIFT_TEXT, f'"later":[{BEEP_TEXT}]')
    assert proposal_from(from_json(journalled), whole=True) == replace(LIFT, later=(BEEP,))
    assert outcome_from(from_json(FAILED_TEXT), LIFT, whole=True) == FAILED


def test_a_wish_comes_back_as_it_was_first_written() -> None:
    moment = '"expires_at_monotonic":null'
    beep, lift = with_field(BEEP_TEXT, moment), with_field(LIFT_TEXT, moment)
    failed, pending = with_field(FAILED_TEXT, f'"proposal":{lift}'), with_field(PENDING_TEXT, f'"proposal":{beep}')
    text = (
        f'{{"request":{REQUEST_TEXT},"left":[{beep}],"outcomes":[{failed}],"pending":{pending},'
        '"doubtful":{"candidates":[["r2","lift"]],"numbers":{"high":[1.5]},"clauses":2},"ended":false}'
    )
    wish = Wish(
        request=REQUEST,
        left=(BEEP,),
        outcomes=(FAILED,),
        pending=Outcome(proposal=BEEP, id="p1", status="pending", question="Sure?"),
        doubtful=Doubtful(candidates=(("r2", "lift"),), numbers={"high": (1.5,)}, clauses=2),
    )
    assert read_wish(text) == wish
    assert read_wish(write_wish(wish)) == wish


@pytest.mark.parametrize("missing", ["device_id", "speaker"])
def test_what_is_none_is_refused(missing: str) -> None:
    values = from_json(BEEP_TEXT)
    del values[missing]
    with pytest.raises(ValueError, match="Proposal of this version"):
        proposal_from(values)


def test_a_field_of_another_version_counts_where_all_must_be_understood() -> None:
    values = from_json(with_field(BEEP_TEXT, '"gently":true'))
    assert proposal_from(values) == BEEP
    with pytest.raises(ValueError, match="gently"):
        proposal_from(values, whole=True)
