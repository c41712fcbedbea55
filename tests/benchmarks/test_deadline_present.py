"""One who knows what a link carries now: hedges, loses what a fall strands, does not wait for what it cannot see."""

from __future__ import annotations

import pytest

from benchmarks.deadlines.oracle import Costs, Option, Oracle
from benchmarks.deadlines.present import Present
from headwater.simulations.trace import LinkTrace, Trace

SMALL, LARGE = Option("send", 0, 0.8, 0.005), Option("send", 1, 0.9, 0.010)
LOCAL = Option("local", 0, 0.95, 0.001)
COSTS = Costs(0.004, 50.0, 100.0)
SIZES = {0: 50, 1: 950}
AS_MEASURED = [(1.0, 1.0)]
DEADLINE_S = 0.3


def link(*segments: tuple[float, float]) -> LinkTrace:
    trace = Trace.steps(segments)
    return LinkTrace("x", trace, trace, 0.01, 0.01)


def modes(of: LinkTrace, count: int) -> list[int | None]:
    """Which mode was sent for each frame, five a second; None where none was."""
    chosen = Present.choose(of, [LOCAL, SMALL, LARGE], COSTS, frames(count), DEADLINE_S, AS_MEASURED)
    return [None if one.option is None else one.option.mode for one in chosen]


def frames(count: int) -> list[tuple[float, dict[int, int]]]:
    return [(number / 5, SIZES) for number in range(count)]


def test_takes_the_most_accurate_that_a_tenth_of_the_rate_would_carry() -> None:
    assert modes(link((60, 1e6)), 3) == [1, 1, 1], "1,000 bytes take 80 ms at 100 kbit/s"
    assert modes(link((60, 2e5)), 3) == [0, 0, 0], "and 400 ms at 20 kbit/s: 100 bytes take 40"


def test_of_a_link_that_holds_only_the_present_counts() -> None:
    assert modes(link((60, 1e4)), 3) == [0, 0, 0], "in time, though not at any less"


def test_a_latency_is_the_oracle_s_where_nothing_changes() -> None:
    steady = link((60, 1e6))
    (own,) = Present.choose(steady, [LARGE], COSTS, frames(1), DEADLINE_S, AS_MEASURED)
    (best,) = Oracle.choose(steady, [LARGE], COSTS, frames(1), DEADLINE_S)
    assert own.latency_s == pytest.approx(best.latency_s)


def test_what_a_fall_strands_is_lost() -> None:
    falls = link((0.412, 3e6), (60, 1e4))
    late = Present.choose(falls, [LARGE], COSTS, frames(3), DEADLINE_S, AS_MEASURED)
    assert [one.latency_s <= DEADLINE_S for one in late] == [True, True, False], "it is on its way as the rate falls"


def test_a_stall_s_end_is_not_foreseen_but_hoped_for_while_the_queue_is_short() -> None:
    stalls = link((0.1, 2e4), (30, 0))
    assert modes(stalls, 8) == [0] * 6 + [None] * 2, "five take 200 ms when the link carries again, and it 109 itself"


def test_what_would_be_late_is_not_sent_where_it_delays_others() -> None:
    narrow = link((60, 4e3))  # 200 ms for a frame, 200 for its answer
    assert modes(narrow, 4) == [0, None, None, 0]


def test_times_scatter_as_they_were_measured() -> None:
    steady, scatter = link((60, 1e6)), [(1.0, 1.0), (3.0, 1.0), (1.0, 50.0)]
    drawn = Present.choose(steady, [LARGE], COSTS, frames(60), DEADLINE_S, scatter)
    assert {round(one.latency_s, 3) for one in drawn} == {0.043, 0.063, 0.239}
