"""Traces as data: their integral, its inverse, the generator and Mahimahi's format."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.compression.errors import DataError
from headwater.simulations.trace import LinkTrace, Trace, load_folder

rates = st.floats(0, 1e8) | st.just(0.0)
segments = st.lists(st.tuples(st.floats(1e-3, 100), rates), min_size=1, max_size=8)


def write(path: Path, times: list[object]) -> Path:
    path.write_text("".join(f"{time}\n" for time in times))
    return path


def test_a_constant_rate_takes_eight_bits_a_byte() -> None:
    trace = Trace.constant(5_000)
    assert trace.finish(0, 625) == pytest.approx(1)
    assert trace.finish(1234.5, 62.5) == pytest.approx(1234.6)
    assert trace.bits_per_s(99) == trace.mean_bits_per_s == 5_000


def test_steps_follow_one_another_and_begin_again() -> None:
    trace = Trace.steps([(2, 8_000), (1, 0), (1, 80_000)])  # 2,000 bytes, nothing, 10,000 bytes
    assert trace.period_s == 4
    assert trace.finish(0, 2_000) == pytest.approx(2)
    assert trace.finish(0, 2_001) == pytest.approx(3.0001)  # over the gap
    assert trace.finish(2.5, 10_000) == pytest.approx(4)
    assert trace.finish(2.5, 12_000) == pytest.approx(6)  # into the next round
    assert [trace.bits_per_s(time) for time in (0, 2.5, 3.5, 4.5)] == [8_000, 0, 80_000, 8_000]
    assert trace.mean_bits_per_s == pytest.approx(24_000)


def test_a_dead_link_never_finishes() -> None:
    assert Trace.constant(0).finish(3, 1) == math.inf
    assert Trace.constant(0).finish(3, 0) == 3


@settings(deadline=None)
@given(segments, st.floats(0, 1000), st.floats(1, 1e6))
def test_finish_is_the_inverse_of_capacity(steps: list[tuple[float, float]], start: float, size: float) -> None:
    trace = Trace.steps(steps)
    if trace.mean_bits_per_s < 8:
        return
    end = trace.finish(start, size)
    assert end >= start
    assert trace.capacity(end) - trace.capacity(start) == pytest.approx(size, rel=1e-6, abs=1e-3)


@settings(deadline=None)
@given(segments, st.floats(0, 1000), st.floats(1, 1e5), st.floats(1, 1e5))
def test_chunks_take_as_long_as_their_sum(
    steps: list[tuple[float, float]], start: float, first: float, second: float
) -> None:
    trace = Trace.steps(steps)
    if trace.mean_bits_per_s < 8:
        return
    apart = trace.finish(trace.finish(start, first), second)
    # Where the rate is 0 a rounded byte costs a whole gap, so compare what has crossed and not the times.
    assert trace.capacity(apart) == pytest.approx(
        trace.capacity(trace.finish(start, first + second)), rel=1e-6, abs=1e-2
    )


def test_a_generated_trace_is_the_seed_s_alone() -> None:
    states = [(0.0, 0.5), (10_000.0, 2.0), (100_000.0, 2.0)]
    one, same, other = (Trace.markov(seed, states, 300) for seed in (1, 1, 2))
    times = np.arange(0, 300, 0.1)
    samples = [[trace.bits_per_s(time) for time in times] for trace in (one, same, other)]
    assert samples[0] == samples[1] != samples[2]
    assert set(samples[0]) == {0.0, 10_000.0, 100_000.0}
    assert one.period_s == pytest.approx(300)


def test_a_generated_trace_steps_between_neighbours() -> None:
    trace = Trace.markov(5, [(1_000, 0.2), (2_000, 0.2), (3_000, 0.2)], 60)
    seen = [trace.bits_per_s(time) for time in np.arange(0, 60, 1e-3)]
    changes = {(a, b) for a, b in itertools.pairwise(seen) if a != b}
    assert changes == {(1_000, 2_000), (2_000, 1_000), (2_000, 3_000), (3_000, 2_000)}


def test_mahimahi_packets_cross_by_their_millisecond(tmp_path: Path) -> None:
    trace = Trace.mahimahi(write(tmp_path / "a.up", [2, 5, 5, 10]))
    assert trace.period_s == pytest.approx(0.010)
    assert trace.capacity(0.001) == pytest.approx(0)
    assert trace.finish(0, 1500) == pytest.approx(0.002)
    assert trace.finish(0.002, 3000) == pytest.approx(0.005)  # twice in one line's millisecond
    assert trace.finish(0.005, 1) > 0.009  # missed opportunities are gone
    assert trace.finish(0, 4 * 1500 + 1500) == pytest.approx(0.012)  # begins again
    assert trace.mean_bits_per_s == pytest.approx(4 * 1500 * 8 / 0.010)


def test_a_packet_at_time_0_is_not_lost(tmp_path: Path) -> None:
    trace = Trace.mahimahi(write(tmp_path / "a", [0, 4]))
    assert trace.capacity(0.004) == pytest.approx(3000)
    assert Trace.mahimahi(write(tmp_path / "b", [0])).capacity(0.001) == pytest.approx(1500)


def test_a_week_of_silence_is_two_segments(tmp_path: Path) -> None:
    trace = Trace.mahimahi(write(tmp_path / "t", [7 * 24 * 3_600_000]))
    assert (len(trace), trace.period_s) == (2, 7 * 24 * 3600)
    assert trace.finish(0, 1500) == pytest.approx(7 * 24 * 3600)


def test_a_factor_keeps_the_shape(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [1, 4, 4, 9, 20])
    whole, part = Trace.mahimahi(path), Trace.mahimahi(path, factor=1 / 20)
    times = np.linspace(0, 0.1, 500)
    assert np.allclose([part.capacity(t) for t in times], [whole.capacity(t) / 20 for t in times])
    assert np.allclose([whole.scaled(1 / 20).capacity(t) for t in times], [part.capacity(t) for t in times])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("12\nfast\n", "entry 2: b'fast'"),
        ("12\n-3\n", "no time in ms"),
        ("12\n11\n", "entry 2: 11 comes after 12"),
        ("1.5\n", "no time in ms"),
        (f"{10**30}\n", "no time in ms"),
        ("1" * 5000, "no time in ms"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.up"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        Trace.mahimahi(path)


def test_impossible_traces_are_refused() -> None:
    for steps in ([], [(0, 1)], [(1, -1)], [(math.inf, 1)], [(1, math.nan)]):
        with pytest.raises(DataError):
            Trace.steps(steps)
    with pytest.raises(DataError, match="two states"):
        Trace.markov(1, [(1.0, 1.0)])
    with pytest.raises(DataError, match="above 0"):
        Trace.constant(5).scaled(0)


def test_a_folder_pairs_the_two_directions(tmp_path: Path) -> None:
    write(tmp_path / "road.up", [1, 10])
    write(tmp_path / "road.down", [1, 2, 3, 10])
    write(tmp_path / "sea.down", [5])
    (tmp_path / "README.md").write_text("not a trace")
    road, sea = load_folder(tmp_path, factor=0.5, delay_s=0.03)
    assert (road.name, sea.name) == ("road", "sea")
    assert road.down.mean_bits_per_s == pytest.approx(2 * road.up.mean_bits_per_s)
    assert sea.up is sea.down
    assert road.up_delay_s == road.down_delay_s == 0.03


def test_a_folder_without_recordings_says_what_it_wants(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"NAME\.up and NAME\.down"):
        load_folder(tmp_path)


def test_a_scaled_link_keeps_its_delays() -> None:
    link = LinkTrace.constant("lte", 1e6, 0.04).scaled(0.1)
    assert (link.name, link.up_delay_s, link.down_delay_s) == ("lte x0.1", 0.04, 0.04)
    assert link.up.mean_bits_per_s == link.down.mean_bits_per_s == pytest.approx(1e5)


@settings(deadline=None)
@given(segments, st.floats(0, 1000), st.floats(0, 500))
def test_a_later_trace_is_the_same_one_from_then_on(
    steps: list[tuple[float, float]], shift: float, time: float
) -> None:
    trace = Trace.steps(steps)
    later = trace.later(shift)
    assert later.period_s == pytest.approx(trace.period_s)
    carried = trace.capacity(shift + time) - trace.capacity(shift)
    assert later.capacity(time) == pytest.approx(carried, rel=1e-6, abs=1e-3 * max(rate for _, rate in steps) + 1e-6)


def test_a_later_link_is_shifted_both_ways() -> None:
    down = Trace.steps([(1, 8_000), (1, 0)])
    later = LinkTrace("link", Trace.constant(9_000), down, 0.1, 0.2).later(1.5)
    assert later.up.bits_per_s(0) == 9_000
    assert [later.down.bits_per_s(time) for time in (0.2, 0.7, 1.7)] == [0, 8_000, 0]
    assert (later.up_delay_s, later.down_delay_s) == (0.1, 0.2)
