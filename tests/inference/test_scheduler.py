"""Who is let in, and how a step is divided."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from naila.inference.scheduler import FairShares, share_step


@dataclass(frozen=True, slots=True)
class FakeJob:
    owner: str = "a"
    arrival: int = 0
    unread: int = 1
    is_background: bool = False


def shares(jobs: list[FakeJob], capacity: int = 63) -> dict[int, int]:
    return {job.arrival: count for job, count in share_step(jobs, capacity=capacity)}


def test_everybody_who_writes_gets_a_token_beside_a_long_read() -> None:
    writers = [FakeJob(arrival=number) for number in range(8)]
    assert shares([*writers, FakeJob(arrival=9, unread=4000)]) == {**dict.fromkeys(range(8), 1), 9: 55}


def test_a_short_question_does_not_wait_for_a_long_story() -> None:
    divided = shares([FakeJob(arrival=0, unread=4000), FakeJob(arrival=1, unread=20)])
    assert divided[1] == 20
    assert divided[0] == 43


def test_the_long_story_is_read_too_while_short_questions_keep_coming() -> None:
    divided = shares([FakeJob(arrival=0, unread=4000), *(FakeJob(arrival=n, unread=30) for n in range(1, 9))])
    assert divided[0] == 15


def test_reading_is_bounded_while_somebody_writes() -> None:
    jobs = [FakeJob(arrival=0), FakeJob(arrival=1, unread=4000)]
    assert {job.arrival: count for job, count in share_step(jobs, capacity=63, reading=10)} == {0: 1, 1: 10}
    assert {job.arrival: count for job, count in share_step(jobs[1:], capacity=63, reading=10)} == {1: 63}


def test_background_work_reads_after_people() -> None:
    jobs = [FakeJob(arrival=1, unread=10, is_background=True), FakeJob(arrival=0, unread=60)]
    assert shares(jobs) == {0: 60, 1: 3}


@given(st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=1, max_size=80), st.integers(1, 100))
def test_a_step_is_never_too_large_nobody_gets_too_much_and_somebody_gets_something(
    unread: list[tuple[int, bool]], capacity: int
) -> None:
    jobs = [FakeJob(arrival=n, unread=u, is_background=b) for n, (u, b) in enumerate(unread)]
    divided = share_step(jobs, capacity=capacity)
    assert 0 < sum(count for _, count in divided) <= capacity
    assert all(0 < count <= job.unread for job, count in divided)
    assert len({job.arrival for job, _ in divided}) == len(divided)


def test_whoever_was_served_least_comes_first() -> None:
    account = FairShares()
    for owner in ("greedy", "modest"):
        account.enter(owner, ())
    account.charge("greedy", 1000)
    account.charge("modest", 10)
    waiting = [FakeJob("greedy", arrival=0), FakeJob("greedy", arrival=1), FakeJob("modest", arrival=2)]
    assert account.next(waiting).owner == "modest"


def test_people_come_before_background_work() -> None:
    account = FairShares()
    account.charge("person", 1000)
    assert account.next([FakeJob("job", 0, is_background=True), FakeJob("person", 1)]).owner == "person"


def test_a_newcomer_starts_level_with_those_who_are_there() -> None:
    account = FairShares()
    account.charge("old", 1000)
    account.enter("new", {"old"})
    account.charge("new", 1)
    assert account.next([FakeJob("new", 1), FakeJob("old", 0)]).owner == "old"
