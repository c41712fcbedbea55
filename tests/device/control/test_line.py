"""The line through frames' sizes and times."""

from __future__ import annotations

import random

import pytest

from headwater.device.control.line import Line


class TestLine:
    def test_one_size_says_little_of_others(self) -> None:
        line = Line()
        for _ in range(20):
            line.add(100, 50.0, 0.3)
        assert line.at(100) == pytest.approx(50)
        assert line.base_ms == pytest.approx(20, abs=1)

    def test_two_sizes_tell_base_and_rate(self) -> None:
        line = Line()
        for size in (100, 300) * 20:
            line.add(size, 40 + size / 5, 0.02)
        assert line.base_ms == pytest.approx(40, rel=0.05)
        assert line.byte_ms == pytest.approx(0.2, rel=0.05)
        assert line.at(1000) == pytest.approx(240, rel=0.05)

    def test_a_guess_leaves_some_of_the_time_to_the_bytes(self) -> None:
        line = Line(100.0)
        line.add(100, 60.0, 0.5)
        assert line.base_ms == pytest.approx(54)
        assert line.at(100) == pytest.approx(60)

    def test_neither_is_ever_below_zero(self) -> None:
        rng = random.Random(2)
        line = Line()
        for _ in range(500):
            line.add(rng.uniform(90, 3000), rng.lognormvariate(3, 1), rng.random())
            assert line.base_ms >= 0
            assert line.byte_ms >= 0
            assert line.at(100) > 0
