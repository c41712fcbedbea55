"""What there is to choose from: noise is pooled, the dominated is left out, the server's wishes count."""

from dataclasses import replace
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.compression.manifest import Cut
from headwater.device.control.controller import OVERHEAD_BYTES
from headwater.device.control.options import pool, table
from tests.device.control.twins import MODES


def mean(of_tasks: dict[str, float]) -> float:
    return fmean(of_tasks.values())


def of_one_width(accuracies: list[float]) -> list[tuple[int, float]]:
    modes = [
        replace(MODES[0], index=at, gain=at, mean_bytes=10.0 * (at + 1), accuracy={"a": accuracy})
        for at, accuracy in enumerate(accuracies)
    ]
    (options,) = table(modes, mean).values()
    return [(option.mode, option.accuracy) for option in options]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_pooling_never_falls_and_keeps_the_mean(values: list[float]) -> None:
    pooled = pool(values)
    assert all(low <= high + 1e-12 for low, high in pairwise(pooled))
    assert fmean(pooled) == pytest.approx(fmean(values))
    assert pool(sorted(values)) == pytest.approx(sorted(values))


def test_a_finer_mode_that_was_measured_worse_is_no_better_and_costs_more() -> None:
    assert of_one_width([0.80, 0.85, 0.87]) == [(0, 0.80), (1, 0.85), (2, 0.87)]
    assert of_one_width([0.80, 0.88, 0.86]) == [(0, 0.80), (1, pytest.approx(0.87))]
    assert of_one_width([0.90, 0.80]) == [(0, pytest.approx(0.85))]


def test_sizes_are_those_on_the_wire() -> None:
    option = table(MODES, mean)[0.25][1]
    assert (option.mean_bytes, option.slow_bytes) == (300 + OVERHEAD_BYTES, pytest.approx(390 + OVERHEAD_BYTES))


CUT = tuple(
    replace(
        mode,
        cuts=(Cut(1, mode.mean_bytes * 0.5, {"a": 0.70}), Cut(2, mode.mean_bytes * 0.8, {"a": 0.99})),
    )
    for mode in MODES
)


def test_a_cut_frame_is_an_option_but_never_better_than_the_whole() -> None:
    wide = table(CUT, mean)[1.0]
    assert [(option.mode, option.groups) for option in wide] == [(2, 1), (2, 2), (3, 2)]
    assert wide[1].accuracy == MODES[2].accuracy["a"]


def test_the_servers_wishes() -> None:
    assert {option.groups for options in table(CUT, mean, 1).values() for option in options} == {1}
    assert all((option.groups or 0) <= 2 for options in table(CUT, mean, 2).values() for option in options)
    assert any(option.groups == 3 or option.mode == 3 for option in table(CUT, mean, 3)[1.0])
    assert {option.groups for options in table(MODES, mean, 2).values() for option in options} == {2}
    small = table(MODES, mean, None, 300)
    assert [option.mode for options in small.values() for option in options] == [0, 1]
    assert [option.mode for options in table(MODES, mean, None, 1).values() for option in options] == [0]
