"""Who is told each refusal, and who a number."""

from __future__ import annotations

from naila.mqtt.refusals import EACH_PER_SECOND, MAX_DEVICES, Refusals


def test_a_device_is_not_listened_to_for_the_rest_of_a_second_in_which_it_was_refused_many() -> None:
    refusals = Refusals()
    for number in range(EACH_PER_SECOND):
        assert not refusals.are_many("r1", 5.0)
        refusals.tell_each("r1", 5.0 + number / 1000)
    assert refusals.are_many("r1", 5.5)
    assert not refusals.are_many("r2", 5.5)
    assert not refusals.are_many("r1", 6.0)


def test_what_is_told_later_is_told_once() -> None:
    refusals = Refusals()
    for device_id in ("r1", "r2", "r1"):
        refusals.tell_later(device_id)
    assert refusals.waits
    assert refusals.take() == (("r1", 2), ("r2", 1))
    assert not refusals.waits
    assert refusals.take() == ()


def test_of_many_devices_the_last_ones_are_known() -> None:
    refusals = Refusals()
    for number in range(MAX_DEVICES + 1):
        for _ in range(EACH_PER_SECOND):
            refusals.tell_each(f"r{number}", 1.0)
    assert not refusals.are_many("r0", 1.0)
    assert refusals.are_many("r1", 1.0)
