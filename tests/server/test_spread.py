"""Histograms of plain integers, held against prometheus_client's own."""

from __future__ import annotations

import random

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from headwater.server.spread import Spread, family

BOUNDS = (0.0001, 0.5, 1.0, 16.0)


class Told(Collector):
    """Metrics as they are."""

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return list(self._metrics)


def text_of(*metrics: Metric) -> list[str]:
    registry = CollectorRegistry()
    registry.register(Told(*metrics))
    return generate_latest(registry).decode().splitlines()


def theirs(values: dict[str, list[float]], label: str) -> list[str]:
    registry = CollectorRegistry()
    histogram = Histogram("took", "What it took.", [label] if label else [], buckets=BOUNDS, registry=registry)
    for name, some in values.items():
        for value in some:
            (histogram.labels(name) if label else histogram).observe(value)
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@pytest.mark.parametrize("label", ["", "stage"])
def test_the_text_is_that_of_a_histogram_of_prometheus_client(label: str) -> None:
    rng = random.Random(0)
    names = ("queue", "run") if label else ("",)
    # Eighths add up to the same sum in any order; each bound is among them, as it belongs to its own bucket.
    values = {name: [*BOUNDS[1:], *(rng.randrange(0, 200) / 8 for _ in range(500))] for name in names}
    spreads = {name: Spread(BOUNDS) for name in names}
    for name, some in values.items():
        for value in some:
            spreads[name].observe(value)
    assert text_of(family("took", "What it took.", spreads, label)) == theirs(values, label)


def test_nothing_observed_is_zeros() -> None:
    assert text_of(family("took", "What it took.", {"": Spread(BOUNDS)})) == theirs({}, "")
