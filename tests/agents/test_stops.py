from __future__ import annotations

import pytest

from naila.agents import stops as stops_module
from naila.agents.attention import Attention
from naila.agents.stops import Stops
from naila.orchestration.state import Attended
from support.fakes import FakeClock, FakeFleet


def make() -> tuple[Stops, FakeFleet, FakeClock, list[tuple[str | None, tuple[str, str]]]]:
    fleet, clock = FakeFleet(), FakeClock()
    told: list[tuple[str | None, tuple[str, str]]] = []
    return (
        Stops(fleet, clock, on_stop=lambda device_id, request: told.append((device_id, request))),
        fleet,
        clock,
        told,
    )


def test_a_stop_is_sent_first_and_then_told() -> None:
    stops, fleet, _, told = make()
    assert stops.stop("r2", request_id="q1", speaker="arm") == ("r2",)
    assert (fleet.stops, told) == (["r2"], [("r2", ("arm", "q1"))])


def test_only_what_was_asked_before_a_stop_is_stopped_by_it() -> None:
    stops, _, clock, _ = make()
    before = clock.monotonic()
    clock.advance(1)
    stops.stop("r2", request_id="q1", speaker="r2")
    clock.advance(1)
    assert stops.stopped_since("r2", before)
    assert not stops.stopped_since("r2", clock.monotonic())
    assert not stops.stopped_since("arm", before)


def test_a_stop_of_all_is_one_of_each() -> None:
    stops, _, clock, _ = make()
    before = clock.monotonic()
    clock.advance(1)
    stops.stop(None, request_id="q1", speaker="r2")
    assert stops.stopped_since("arm", before)
    clock.advance(1)
    stops.stop("r2", request_id="q2", speaker="r2")
    assert stops.stopped_since("r2", clock.monotonic() - 0.5)
    assert not stops.stopped_since("arm", clock.monotonic() - 0.5)


def test_a_repeated_stop_is_sent_again_and_the_same_one_is_not() -> None:
    stops, fleet, _, _ = make()
    stops.stop("r2", request_id="q1", speaker="r2")
    stops.stop("r2", request_id="q1", speaker="r2")
    assert fleet.stops == ["r2", "r2"]
    assert stops.stop_for("r2", "q1", "r2") == ("r2",)
    assert fleet.stops == ["r2", "r2"]
    stops.stop_for("r2", "q1", "arm")
    assert fleet.stops == ["r2", "r2", "arm"]


def test_a_stop_that_is_forgotten_still_holds() -> None:
    stops, _, clock, _ = make()
    before = clock.monotonic()
    clock.advance(1)
    for number in range(stops_module.MAX_REMEMBERED + 1):
        stops.stop(f"r{number}", request_id="q", speaker="r")
    assert stops.stopped_since("r0", before)


def test_attention_is_of_one_conversation_and_a_while() -> None:
    clock = FakeClock()
    attention = Attention(clock, max_conversations=2)
    attention.keep("r2", "default", Attended(about="arm"))
    assert attention.of("r2", "default").about == "arm"
    assert attention.of("r2", "other") == attention.of("r3", "default") == Attended()
    clock.advance(120)
    assert attention.of("r2", "default") == Attended()


def test_attention_forgets_who_was_silent_longest() -> None:
    attention = Attention(FakeClock(), max_conversations=2)
    for name in "abac":
        attention.keep(name, "default", Attended(about=name))
    assert [attention.of(name, "default").about for name in "abc"] == ["a", None, "c"]


def test_attention_to_nothing_takes_no_room() -> None:
    attention = Attention(FakeClock(), max_conversations=1)
    attention.keep("a", "default", Attended(about="a"))
    attention.keep("b", "default", Attended())
    assert attention.of("a", "default").about == "a"


class BrokenFleet(FakeFleet):
    """Cannot send anything."""

    def stop(self, device_id: str | None, *, request_id: str, speaker: str) -> tuple[str, ...]:
        super().stop(device_id, request_id=request_id, speaker=speaker)
        raise RuntimeError("a bug")


def test_a_stop_that_cannot_be_sent_still_ends_what_was_asked_before() -> None:
    clock = FakeClock()
    told: list[str | None] = []
    stops = Stops(BrokenFleet(), clock, on_stop=lambda device_id, _: told.append(device_id))
    with pytest.raises(RuntimeError):
        stops.stop("r2", request_id="q1", speaker="r2")
    assert stops.stopped_since("r2", clock.monotonic())
    assert told == ["r2"]
