"""The rules of batching on a clock of the test's own."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from headwater.server.batch_queue import BatchQueue, Limits, QueueFullError, State, Ticket

Job = Ticket[int, int]


class Bench:
    """A queue with a clock, and everything that was settled by it."""

    def __init__(self, **limits: float) -> None:
        self.queue: BatchQueue[int, int] = BatchQueue(Limits(**limits))  # type: ignore[arg-type]
        self.now = 100.0

    def push(self, work: int, *, group: str = "a", priority: int = 0, within: float = math.inf) -> Job:
        ticket: Job = Ticket(group, work, lambda _: None, priority, self.now + within)
        self.queue.push(ticket, self.now)
        return ticket

    def take(self) -> list[Job] | None:
        return self.queue.take(self.now)

    def finish(self, batch: Sequence[Job]) -> None:
        self.queue.finish(batch, self.now, [ticket.work for ticket in batch])


def works(batch: Sequence[Job] | None) -> list[int]:
    return [ticket.work for ticket in batch or ()]


# ---------------------------------------------------------------- when a batch starts


def test_an_idle_server_starts_at_once_with_all_there_is() -> None:
    bench = Bench(workers=2, max_wait_s=5)
    for work in range(3):
        bench.push(work)
    assert works(bench.take()) == [0, 1, 2]
    assert bench.take() is None


def test_while_busy_a_frame_waits_for_company_and_no_longer_than_max_wait() -> None:
    bench = Bench(workers=2, max_wait_s=5)
    bench.push(0)
    bench.take()
    bench.push(1)
    assert bench.take() is None
    assert bench.queue.wake_at() == bench.now + 5
    bench.now += 3
    bench.push(2)
    assert bench.take() is None
    bench.now += 2
    assert works(bench.take()) == [1, 2]


def test_while_busy_a_full_batch_does_not_wait() -> None:
    bench = Bench(workers=2, max_batch=2, max_wait_s=5)
    bench.push(0)
    bench.take()
    bench.push(1)
    bench.push(2)
    assert works(bench.take()) == [1, 2]


def test_company_is_waited_for_from_the_arrival_of_the_oldest_that_still_waits() -> None:
    bench = Bench(workers=2, max_wait_s=5)
    bench.push(0)
    bench.take()
    oldest = bench.push(1)
    bench.now += 2
    bench.push(2, priority=9)
    assert bench.queue.wake_at() == bench.now + 3
    bench.queue.cancel(oldest)
    assert bench.queue.wake_at() == bench.now + 5
    bench.now += 5
    assert works(bench.take()) == [2]


def test_no_more_batches_than_workers_run() -> None:
    bench = Bench(workers=1, max_batch=1)
    bench.push(0)
    bench.push(1)
    first = bench.take()
    assert first is not None
    bench.now += 60
    assert bench.take() is None
    assert bench.queue.wake_at() == math.inf
    bench.finish(first)
    assert works(bench.take()) == [1]


def test_when_the_last_batch_ends_what_waits_starts_at_once() -> None:
    bench = Bench(workers=2, max_wait_s=5)
    bench.push(0)
    first = bench.take()
    assert first is not None
    bench.push(1)
    assert bench.take() is None
    bench.finish(first)
    assert works(bench.take()) == [1]


def test_a_batch_never_holds_two_groups_and_the_older_group_goes_first() -> None:
    bench = Bench(workers=1)
    for work, group in enumerate("abab"):
        bench.push(work, group=group)
        bench.now += 1
    first = bench.take()
    assert works(first) == [0, 2]
    bench.finish(first or [])
    assert works(bench.take()) == [1, 3]


def test_a_group_that_waits_for_company_does_not_hold_up_another_that_is_full() -> None:
    bench = Bench(workers=2, max_batch=2, max_wait_s=5)
    bench.push(0)
    bench.take()
    bench.push(1, group="a")
    bench.push(2, group="b")
    bench.push(3, group="b")
    assert works(bench.take()) == [2, 3]


# ---------------------------------------------------------------- who goes first


def test_higher_priorities_go_first_and_equals_in_order_of_arrival() -> None:
    bench = Bench(workers=1, max_batch=3)
    for work, priority in enumerate((0, 9, 5, 9, 0, 5)):
        bench.push(work, priority=priority)
    first = bench.take()
    assert works(first) == [1, 3, 2]
    bench.finish(first or [])
    assert works(bench.take()) == [5, 0, 4]


def test_a_priority_out_of_range_counts_as_the_nearest() -> None:
    bench = Bench(workers=1)
    for work, priority in enumerate((3, -7, 4_000_000_000)):
        bench.push(work, priority=priority)
    assert works(bench.take()) == [2, 0, 1]


def test_the_group_of_the_most_urgent_frame_goes_first() -> None:
    bench = Bench(workers=1)
    bench.push(0, group="a")
    bench.push(1, group="b", priority=1)
    assert works(bench.take()) == [1]


# ---------------------------------------------------------------- the bound


def test_exactly_the_frames_beyond_the_capacity_are_refused() -> None:
    bench = Bench(capacity=5, workers=1)
    bench.push(0)
    running = bench.take()
    refused = 0
    for work in range(1, 9):
        try:
            bench.push(work)
        except QueueFullError:
            refused += 1
    assert refused == 3
    assert (bench.queue.counts.accepted, bench.queue.counts.refused, bench.queue.waiting) == (6, 3, 5)
    bench.finish(running or [])
    assert works(bench.take()) == [1, 2, 3, 4, 5]


def test_a_withdrawn_or_expired_frame_frees_its_place_at_once() -> None:
    bench = Bench(capacity=2, workers=1)
    first = bench.push(0)
    bench.push(1, within=1)
    with pytest.raises(QueueFullError):
        bench.push(2)
    assert bench.queue.cancel(first)
    bench.push(3)
    bench.now += 1
    assert works(bench.queue.expire(bench.now)) == [1]
    bench.push(4)
    assert works(bench.take()) == [3, 4]


def test_the_time_that_a_frame_is_expected_to_take_counts_what_is_before_it() -> None:
    bench = Bench(workers=2, max_batch=2, max_wait_s=0.01)
    assert bench.queue.expected_s() == 0
    bench.push(0)
    bench.push(1)
    batch = bench.take()
    assert batch is not None
    bench.now += 0.2
    bench.finish(batch)
    assert bench.queue.expected_s() == pytest.approx(0.2)  # its own batch
    bench.push(2)
    bench.take()
    assert bench.queue.expected_s() == pytest.approx(0.01 + 0.2)  # it may wait for company
    for work in range(3, 8):
        bench.push(work)
    bench.take()
    assert bench.queue.expected_s() == pytest.approx(3 * 0.05 + 0.01 + 2 * 0.2)  # three wait, no worker is free


def test_retry_after_grows_with_what_waits_and_follows_the_pace() -> None:
    bench = Bench(capacity=8, max_batch=4, workers=2)
    assert bench.queue.retry_after() == 0
    for work in range(8):
        bench.push(work)
    batch = bench.take() or []
    bench.now += 0.4  # 0.1 s a frame on each of two workers
    bench.finish(batch)
    assert bench.queue.retry_after() == pytest.approx(4 * 0.05)
    for work in range(4):
        bench.push(work)
    with pytest.raises(QueueFullError) as caught:
        bench.push(9)
    assert caught.value.retry_after_s == pytest.approx(8 * 0.05)


def test_what_is_remembered_of_withdrawn_frames_is_bounded() -> None:
    bench = Bench(capacity=10, workers=1)
    bench.push(-1)
    bench.take()
    for work in range(5000):
        bench.queue.cancel(bench.push(work, within=1e9))
    (lane,) = bench.queue._lanes.values()
    assert sum(map(len, lane.queues.values())) < 100
    assert lane.held == sum(map(len, lane.queues.values()))
    assert len(bench.queue._deadlines) < 100


# ---------------------------------------------------------------- what must not run


def test_an_expired_frame_never_runs_not_even_at_the_very_moment() -> None:
    bench = Bench(workers=1)
    bench.push(-1)
    running = bench.take() or []
    late = bench.push(0, within=1)
    bench.push(1, within=2)
    assert bench.queue.wake_at() == bench.now + 1
    bench.now += 1
    assert bench.queue.expire(bench.now) == [late]
    bench.finish(running)
    assert works(bench.take()) == [1]
    assert late.state is State.EXPIRED


def test_a_frame_that_runs_already_can_neither_be_withdrawn_nor_expire() -> None:
    bench = Bench(workers=1)
    ticket = bench.push(0, within=1)
    batch = bench.take() or []
    bench.now += 2
    assert not bench.queue.cancel(ticket)
    assert bench.queue.expire(bench.now) == []
    bench.finish(batch)
    assert (ticket.state, ticket.result) == (State.DONE, 0)


def test_withdrawing_twice_counts_once() -> None:
    bench = Bench()
    ticket = bench.push(0)
    assert bench.queue.cancel(ticket)
    assert not bench.queue.cancel(ticket)
    assert bench.queue.counts.cancelled == 1
    assert bench.take() is None


def test_a_failed_batch_is_counted_and_its_frames_have_no_result() -> None:
    bench = Bench()
    ticket = bench.push(0)
    bench.queue.finish(bench.take() or [], bench.now, None)
    assert (ticket.state, ticket.result, bench.queue.counts.failed) == (State.FAILED, None, 1)


@pytest.mark.parametrize("seed", range(20))
def test_any_history_keeps_the_promises(seed: int) -> None:
    """Random pushes, withdrawals, batches and passing time: each accepted frame ends once, and rightly."""
    rng = random.Random(seed)
    bench = Bench(
        capacity=rng.randint(1, 12),
        max_batch=rng.randint(1, 6),
        max_wait_s=rng.choice([0, 1, 3]),
        workers=rng.randint(1, 3),
    )
    tickets: list[Job] = []
    running: list[list[Job]] = []
    for work in range(400):
        bench.now += rng.choice([0, 0, 0.5, 2])
        bench.queue.expire(bench.now)
        try:
            within = rng.choice([math.inf, 1, 4])
            tickets.append(bench.push(work, group=rng.choice("ab"), priority=rng.randint(0, 3), within=within))
        except QueueFullError:
            assert bench.queue.waiting == bench.queue.limits.capacity
        if tickets and rng.random() < 0.2:
            bench.queue.cancel(rng.choice(tickets))
        if running and rng.random() < 0.4:
            bench.finish(running.pop(rng.randrange(len(running))))
        while batch := bench.take():
            assert len({ticket.group for ticket in batch}) == 1
            assert len(batch) <= bench.queue.limits.max_batch
            assert all(ticket.deadline > bench.now for ticket in batch)
            urgency = [(-ticket.priority, ticket.arrived) for ticket in batch]
            assert urgency == sorted(urgency)
            running.append(batch)
        assert len(running) <= bench.queue.limits.workers
        assert bench.queue.waiting == sum(ticket.state is State.WAITING for ticket in tickets)
    while running or bench.queue.waiting:
        if running:
            bench.finish(running.pop())
        bench.now += 5
        bench.queue.expire(bench.now)
        while batch := bench.take():
            running.append(batch)
    counts = bench.queue.counts
    assert counts.accepted == counts.run + counts.expired + counts.cancelled == len(tickets)
    ends = [ticket.state for ticket in tickets]
    assert ends.count(State.DONE) == counts.run
    assert ends.count(State.EXPIRED) == counts.expired
    assert ends.count(State.CANCELLED) == counts.cancelled
