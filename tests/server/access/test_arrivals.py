"""Connections that came to no call, counted by a clock that stands."""

from __future__ import annotations

from headwater.server.access.arrivals import OVER_S, PATIENCE_S, Arrivals


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_handshake_without_a_call_counts_when_its_time_is_over() -> None:
    clock = Clock()
    arrivals = Arrivals(clock)
    for _ in range(5):
        arrivals.begin()
    with arrivals.calling("a:1"), arrivals.calling("a:2"), arrivals.calling("a:1"):
        assert arrivals.failed() == 0
    clock.now_s += PATIENCE_S
    assert [arrivals.failed(), arrivals.failed()] == [3, 0]


def test_one_that_calls_late_is_taken_off_what_is_counted_next() -> None:
    clock = Clock()
    arrivals = Arrivals(clock)
    arrivals.begin()
    clock.now_s += PATIENCE_S
    assert arrivals.failed() == 1
    with arrivals.calling("late:1"):
        assert arrivals.failed() == 0
    for _ in range(2):
        arrivals.begin()
    clock.now_s += PATIENCE_S
    assert arrivals.failed() == 1, "of three without a call two stay; one was counted before"


def test_a_port_is_another_connection_s_once_the_first_is_over() -> None:
    clock = Clock()
    arrivals = Arrivals(clock)
    for wait_s in (OVER_S, OVER_S, 1.0):
        arrivals.begin()
        with arrivals.calling("a:1"):
            clock.now_s += 10 * OVER_S
            assert arrivals.failed() == 0, "a call that is open keeps it"
        clock.now_s += wait_s
        assert arrivals.failed() == 0
    assert len(arrivals._known) == 1
    clock.now_s += OVER_S
    arrivals.failed()
    assert not arrivals._known, "nothing is kept of who has gone"
