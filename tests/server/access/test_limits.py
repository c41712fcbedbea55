"""Meters, allowances and the turnstile, on times that the test brings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.server.access.limits import (
    GREETINGS_AT_ONCE,
    LATE_S,
    Allowance,
    Allowances,
    DeviceLimits,
    Meter,
    Turnstile,
)

LIMITS = DeviceLimits(requests_per_s=10, bytes_per_s=1000, urgent_per_s=2)


class Clock:
    """Stands until it is told to go on."""

    def __init__(self, now_s: float = 1e6) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("burst", [1, 7, 1000])
@pytest.mark.parametrize("rate", [0.1, 3, 1000, 30_000])
@pytest.mark.parametrize("now_s", [0.0, 1e3, 1e7])
def test_a_burst_goes_through_exactly(rate: float, burst: int, now_s: float) -> None:
    meter = Meter(rate, burst)
    assert [meter.take(now_s) for _ in range(burst + 5)] == [True] * burst + [False] * 5


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200), st.integers(1, 20), st.integers(1, 50))
def test_no_stretch_of_time_sees_more_than_the_rate_and_a_burst(gaps: list[float], burst: int, rate: int) -> None:
    meter, now_s, taken = Meter(rate, burst), 0.0, []
    for gap in gaps:
        now_s += gap
        if meter.take(now_s):
            taken.append(now_s)
    for first, begin_s in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - begin_s) + 1e-3


@given(st.integers(0, 40), st.integers(1, 20), st.floats(0.5, 50))
def test_the_time_to_wait_is_neither_too_short_nor_too_long(taken: int, burst: int, rate: float) -> None:
    meter = Meter(rate, burst)
    for _ in range(taken):
        meter.charge(50.0)
    wait_s = meter.wait_s(50.0)
    assert (wait_s == 0) == (taken < burst)
    if wait_s > 1e-4:
        assert not meter.take(50.0 + wait_s - 1e-4)
    assert meter.take(50.0 + wait_s + 1e-6)


def test_a_rate_of_nothing_is_no_limit() -> None:
    meter = Meter(0, 0)
    assert all(meter.take(1.0, 1e9) for _ in range(1000))
    assert meter.charge(1.0, 1e9) == 0
    assert meter.wait_s(1.0) == 0


def test_a_device_s_requests_are_counted_and_the_wait_is_told() -> None:
    clock = Clock()
    allowance = Allowance(LIMITS, clock)
    assert [allowance.request() for _ in range(13)] == [True] * 10 + [False] * 3
    assert allowance.request_wait_s() == pytest.approx(0.1, abs=1e-3)
    clock.now_s += 0.2
    assert [allowance.request() for _ in range(3)] == [True, True, False]


def test_reading_is_held_by_messages_and_by_bytes_whichever_is_longer() -> None:
    clock = Clock()
    allowance = Allowance(LIMITS, clock)
    assert [allowance.read(1) for _ in range(20)] == [0] * 20, "twice as many messages as requests"
    assert allowance.read(1) == pytest.approx(1 / 20, abs=1e-3)
    clock.now_s += 10
    assert allowance.read(1000) == 0
    assert allowance.read(500) == pytest.approx(0.5, abs=1e-3)


def test_urgent_frames_have_a_rate_of_their_own() -> None:
    allowance = Allowance(LIMITS, Clock())
    assert [allowance.rush() for _ in range(4)] == [True, True, False, False]
    assert allowance.request()


def test_a_device_that_comes_back_goes_on_with_its_own_allowance() -> None:
    allowances = Allowances(LIMITS, 3, Clock())
    first = allowances.of("a")
    assert first.request()
    assert allowances.of("b") is not first
    assert allowances.of("a") is first


def test_what_is_as_good_as_new_is_forgotten_when_others_come() -> None:
    clock = Clock()
    allowances = Allowances(LIMITS, 100, clock)
    here = allowances.of("here")
    here.streams = 1
    for number in range(20):
        allowances.of(f"tired-{number}").request()
    assert len(allowances) == 21
    clock.now_s += 10
    for number in range(20):
        allowances.of(f"later-{number}").request()
    assert len(allowances) <= 21
    assert allowances.of("here") is here


def test_the_least_recent_device_is_forgotten_but_not_while_it_is_here() -> None:
    allowances = Allowances(LIMITS, 3, Clock())
    here = allowances.of("here")
    here.streams = 1
    gone = allowances.of("gone")
    assert gone.request()
    for number in range(10):
        allowances.of(f"device-{number}").request()
    assert len(allowances) == 3
    assert allowances.of("here") is here
    assert allowances.of("gone") is not gone


def test_devices_that_come_at_once_are_spread_and_each_comes_twice_at_most() -> None:
    turnstile, devices = Turnstile(50, 20, 1000), [f"device-{number}" for number in range(200)]
    waits = {device: turnstile.enter(device, 100.0) for device in devices}
    at_once = [device for device, wait_s in waits.items() if wait_s == 0]
    assert at_once == devices[:20]
    moments = sorted(wait_s for wait_s in waits.values() if wait_s)
    assert len(moments) == 180
    assert moments == pytest.approx([(number + 1) / 50 for number in range(180)], abs=1e-3)
    for device, wait_s in sorted(waits.items(), key=lambda pair: pair[1]):
        if wait_s:
            assert turnstile.enter(device, 100.0 + wait_s) == 0
    assert len(turnstile) == 0


def test_one_that_comes_before_its_moment_is_told_the_same_one_again() -> None:
    turnstile = Turnstile(1, 1, 1000)
    assert turnstile.enter("a", 0.0) == 0
    assert turnstile.enter("b", 0.0) == pytest.approx(1, abs=1e-3)
    assert turnstile.enter("b", 0.4) == pytest.approx(0.6, abs=1e-3)
    assert turnstile.enter("c", 0.4) == pytest.approx(1.6, abs=1e-3)
    assert turnstile.enter("b", 1.0) == 0


def test_moments_that_nobody_comes_for_are_forgotten_and_never_more_than_so_many_are_given() -> None:
    turnstile = Turnstile(10, 1, 5)
    waits = [turnstile.enter(f"device-{number}", 0.0) for number in range(50)]
    assert len(turnstile) == 5
    assert waits[6:] == [waits[5]] * 44, "who has no moment is told when the last of those who have one is"
    assert turnstile.enter("later", waits[5] + LATE_S + 0.1) == 0
    assert len(turnstile) == 0


def test_a_flapping_device_has_a_rate_of_greetings() -> None:
    allowance = Allowance(LIMITS, Clock())
    taken = [allowance.greetings.take(1.0) for _ in range(GREETINGS_AT_ONCE + 2)]
    assert taken == [True] * GREETINGS_AT_ONCE + [False] * 2
