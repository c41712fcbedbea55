"""Sums that merge, bins that tell latencies, bytes that are always the same."""

from __future__ import annotations

import random

import pytest

from headwater.compression.errors import DataError
from headwater.simulations.fleet.outcome import ClassOutcome, Histogram, Hour, Outcome, ServerHour, ServerOutcome
from headwater.simulations.fleet.scenario import DeviceClass, Scenario, Server, Times

SCENARIO = Scenario(
    "small", (DeviceClass("cameras", 4, "wifi", times=Times({1.0: 20.0})),), (Server("edge"),), hours=0.5
)


def outcome() -> Outcome:
    cameras = ClassOutcome("cameras", 4, frames=10, server=7, exit=2, skipped=1, missed=1, right=8.5, device_s=7200.0)
    cameras.up_bytes, cameras.modes, cameras.hours = 1200.5, {3: 5, 11: 2}, {0: Hour(10, 1, 7, 1200.5)}
    for ms in (3.0, 50.0, 51.0, 4000.0):
        cameras.latency.add(ms)
    servers = [ServerOutcome("edge", 2, 4, {0: ServerHour(7, 5, 0.25, most_waiting=3), 2: ServerHour(1, 1, 0.125)})]
    return Outcome(SCENARIO, "solar 0123456789", [cameras], servers)


def test_json_gives_the_same_outcome_and_bytes_back() -> None:
    data = outcome().to_json()
    again = Outcome.from_json(data)
    assert again == outcome()
    assert again.to_json() == data


OTHER = outcome().to_json().replace(b"modes", b"nodes")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"schema": 99}', OTHER])
def test_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        Outcome.from_json(data)


def test_parts_add_up() -> None:
    both = ClassOutcome("all")
    both.merge(outcome().classes[0])
    both.merge(outcome().classes[0])
    assert (both.frames, both.right, both.modes, both.latency.total) == (20, 17.0, {3: 10, 11: 4}, 8)
    assert both.hours[0] == Hour(20, 2, 14, 2401.0)
    assert both.accuracy == pytest.approx(0.85)
    assert both.busy_s["head"] == 0.0
    total = outcome().servers[0].total
    assert (total.frames, total.most_waiting, total.busy_s) == (8, 3, 0.375)


def test_gigabytes_are_those_of_a_device_and_month() -> None:
    assert outcome().classes[0].month_gigabytes == pytest.approx(1200.5 / 7200 * 86_400 * 30 / 1e9)


def test_quantiles_are_within_a_bin() -> None:
    chance = random.Random(1)
    values = sorted(chance.lognormvariate(5, 1) for _ in range(20_000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for share in (0.01, 0.5, 0.95, 0.99):
        assert histogram.quantile(share) == pytest.approx(values[int(share * len(values))], rel=0.03)
    above = sum(value > 500 for value in values) / len(values)
    assert histogram.share_above(500.0) == pytest.approx(above, abs=0.02)
    assert Histogram().quantile(0.5) is None
