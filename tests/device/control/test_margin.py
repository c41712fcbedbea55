"""Errors of a forecast: chances that come true, bounds and levels that are kept."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from headwater.device.control.margin import Level, Margin


class TestMargin:
    def test_little_is_sure_while_little_is_known(self) -> None:
        chance = Margin(0.99).chance
        assert chance(1.0) == 0.5
        assert chance(4.0) == 1 - 1 / 8
        assert chance(0.25) == 1 / 8

    def test_chances_come_true(self) -> None:
        rng, margin = random.Random(0), Margin(0.99)
        forecasts, hits = [], []
        for _ in range(4000):
            error, bound = rng.lognormvariate(0, 0.4), rng.uniform(0.5, 2.0)
            forecasts.append(margin.chance(bound))
            hits.append(error <= bound)
            margin.add(error)
        assert fmean(forecasts) == pytest.approx(fmean(hits), abs=0.02)
        for low, high in ((0.1, 0.4), (0.4, 0.6), (0.6, 0.9)):
            chosen = [hit for forecast, hit in zip(forecasts, hits, strict=True) if low <= forecast < high]
            assert low - 0.05 <= fmean(chosen) <= high + 0.05

    def test_what_is_overdue_takes_its_share_of_the_chance(self) -> None:
        margin = Margin(0.99)
        for error in [*([1.0] * 50), *([8.0] * 10)]:
            margin.add(error)
        assert margin.chance(2.0) > 0.8
        assert margin.chance(2.0, beyond=1.5) < 0.05, "beyond 1.5 there was only 8"
        assert margin.chance(9.0, beyond=1.5) > 0.9
        assert margin.chance(2.0, beyond=3.0) == 0.0
        assert margin.chance(200.0, beyond=100.0) == pytest.approx(0.5), "as long again with an even chance"

    @pytest.mark.parametrize("level", [0.9, 0.99])
    def test_the_bound_keeps_its_level_whatever_comes(self, level: float) -> None:
        rng, margin, above = random.Random(1), Margin(level), 0
        for step in range(20_000):
            spread = 0.1 if step // 2000 % 2 else 0.6  # calm and wild by turns
            error = math.exp(spread * rng.gauss(0, 1)) * (1 + (rng.random() < 0.003) * 5)
            above += error > margin.upper
            margin.add(error)
        assert above / 20_000 <= 1.3 * (1 - level)

    def test_the_level_is_corrected_by_the_misses(self) -> None:
        level = Level(0.99)
        for _ in range(20):
            level.add(in_time=False)
        assert level.asked == 1.0
        for _ in range(5000):
            level.add(in_time=True)
        assert 0.93 < level.asked < 0.99
