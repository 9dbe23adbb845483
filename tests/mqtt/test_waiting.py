"""How long is waited for a broker, and what waits to be sent to it."""

import random

import pytest

from naila.mqtt.backoff import Backoff, Rivalry
from naila.mqtt.publication import Publication
from naila.mqtt.sending import MAX_UNWRITTEN, MAX_WAITING, SendQueue


def message(topic: str, *, retain: bool = False, qos: int = 1, urgent: bool = False) -> Publication:
    return Publication(topic=topic, qos=qos, retain=retain, urgent=urgent)


def test_waits_grow_to_a_second_and_then_with_the_outage() -> None:
    backoff = Backoff(random.Random(1))
    assert backoff.next(0) <= 0.1
    assert backoff.next(0) <= 0.2
    assert max(backoff.next(20) for _ in range(200)) <= 1
    assert 9 < max(backoff.next(300) for _ in range(200)) <= 10
    assert 29 < max(backoff.next(1e6) for _ in range(200)) <= 30


def test_a_stable_connection_makes_the_next_wait_short() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(100):
        backoff.next(1000)
    backoff.reset()
    assert backoff.next(0) <= 0.1


def test_a_floor_keeps_its_jitter() -> None:
    waits = [Backoff(random.Random(seed)).next(0, at_least=5) for seed in range(100)]
    assert all(5 <= wait <= 10 for wait in waits)
    assert max(waits) - min(waits) > 3


def test_a_restarted_broker_is_found_within_a_second() -> None:
    late = 0
    for seed in range(1000):
        rng = random.Random(seed)
        back_at, now, backoff = rng.uniform(0.5, 20), 0.0, Backoff(rng)
        while now < back_at:
            now += backoff.next(now)
        late += now - back_at > 1
    assert late == 0


def test_a_rival_is_noticed_by_losses_at_a_broker_that_is_there() -> None:
    rivalry = Rivalry()
    assert [rivalry.lost(now, closed=True) for now in (0, 1, 2, 3)] == [False, False, False, True]
    rivalry.broker_was_away()
    assert [rivalry.lost(now, closed=True) for now in (4, 5, 6)] == [False, False, False]
    assert not Rivalry().lost(0, closed=True)
    slow = Rivalry()
    assert not any(slow.lost(now, closed=True) for now in range(0, 600, 30))


def test_resets_are_the_networks() -> None:
    rivalry = Rivalry()
    assert not any(rivalry.lost(now, closed=False) for now in range(10))
    assert [rivalry.lost(now, closed=True) for now in (10, 11, 12)] == [False, False, True]


def test_order_and_window() -> None:
    queue = SendQueue(window=2)
    for name in "abc":
        queue.put(message(name))
    first, second = queue.take(), queue.take()
    assert first
    assert second
    queue.sent(1, first)
    queue.sent(2, second)
    assert queue.take() is None
    assert queue.done(1) == message("a")
    assert queue.take() == message("c")


def test_at_the_bound_the_oldest_goes() -> None:
    queue = SendQueue(window=1)
    for number in range(MAX_WAITING):
        assert queue.put(message(str(number))) is None
    assert queue.put(message("new")) == message("0")
    assert queue.dropped == 1
    assert queue.take() == message("1")


def test_of_retained_messages_only_the_last_of_a_topic_waits() -> None:
    queue = SendQueue(window=9)
    queue.put(message("status", retain=True))
    queue.put(message("reply"))
    queue.put(Publication(topic="status", payload=b"new", qos=1, retain=True))
    assert [queue.take(), queue.take(), queue.take()] == [
        message("reply"),
        Publication(topic="status", payload=b"new", qos=1, retain=True),
        None,
    ]


def test_what_flew_when_the_library_changed_waits_again_in_front() -> None:
    queue = SendQueue(window=2)
    for mid, name in enumerate("ab"):
        queue.sent(mid, message(name))
    queue.put(message("c"))
    queue.take_back()
    assert [queue.take(), queue.take(), queue.take()] == [message("a"), message("b"), message("c")]


def test_unacknowledged_messages_are_bounded_too() -> None:
    queue = SendQueue(window=1)
    for mid in range(MAX_UNWRITTEN):
        assert queue.may_write_unacknowledged()
        queue.sent(mid, message("stream", qos=0))
    assert not queue.may_write_unacknowledged()
    queue.done(0)
    assert queue.may_write_unacknowledged()
    queue.disconnected()
    assert queue.dropped == 1


def test_what_is_urgent_goes_before_all_others() -> None:
    queue = SendQueue(window=9)
    queue.put(message("a"))
    queue.put(message("stop", urgent=True))
    assert [queue.take(), queue.take()] == [message("stop"), message("a")]


async def test_what_waits_can_be_withdrawn() -> None:
    queue = SendQueue(window=9)
    for topic in ("a", "b", "a"):
        queue.put(message(topic))
    assert (queue.withdraw("a"), queue.waiting) == (2, 1)
    assert queue.withdraw("b") == 1
    await queue.drained()


def perishable(expiry_s: int) -> Publication:
    return Publication(topic="action", qos=1, message_expiry=expiry_s)


def test_the_broker_is_told_what_is_left_of_a_messages_time() -> None:
    now = [100.0]
    queue = SendQueue(window=9, monotonic=lambda: now[0])
    queue.put(perishable(10))
    now[0] += 3.5
    assert queue.take() == perishable(7)


async def test_what_waited_too_long_is_dropped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    queue = SendQueue(window=9, monotonic=lambda: now[0])
    queue.put(perishable(10))
    now[0] += 10
    assert (queue.take(), queue.dropped) == (None, 1)
    assert "a message to action waited for the broker until it had expired: dropped" in caplog.text
    await queue.drained()


def test_what_flew_too_long_does_not_fly_again() -> None:
    now = [100.0]
    queue = SendQueue(window=9, monotonic=lambda: now[0])
    queue.sent(1, perishable(10))
    queue.sent(2, message("reply"))
    assert queue.flies_perishable
    now[0] += 11
    queue.take_back()
    assert [queue.take(), queue.take()] == [message("reply"), None]
    assert not queue.flies_perishable


async def test_drained_when_everything_was_acknowledged() -> None:
    queue = SendQueue(window=1)
    await queue.drained()
    queue.put(message("a"))
    taken = queue.take()
    assert taken
    queue.sent(1, taken)
    queue.done(1)
    await queue.drained()


def test_what_is_urgent_is_never_given_up_for_want_of_room_and_keeps_its_order() -> None:
    queue = SendQueue(window=9)
    queue.put(message("stop r1", urgent=True))
    for number in range(MAX_WAITING):
        assert queue.put(message(str(number))) is None
    assert queue.put(message("new")) == message("0")
    assert queue.put(message("stop r2", urgent=True)) is None
    assert [queue.take(), queue.take(), queue.take()] == [message("stop r1"), message("stop r2"), message("1")]


def test_what_flew_urgently_waits_again_urgently() -> None:
    queue = SendQueue(window=9)
    queue.put(message("stop", urgent=True))
    stop = queue.take()
    assert stop
    queue.sent(1, stop)
    queue.take_back()
    for number in range(MAX_WAITING + 1):
        queue.put(message(str(number)))
    assert [queue.take(), queue.take()] == [message("stop"), message("1")]


def test_what_flew_when_it_was_withdrawn_does_not_fly_again() -> None:
    queue = SendQueue(window=9)
    queue.sent(1, perishable(10))
    queue.sent(2, message("reply"))
    assert queue.withdraw("action") == 0
    assert queue.flies_perishable
    queue.take_back()
    assert [queue.take(), queue.take()] == [message("reply"), None]
