from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headwater.compression.errors import BundleError
from headwater.compression.tables import PriorTables, integer_frequencies
from tests.compression.priors import laplace, laplace_prior, random_prior, with_lanes, with_value

WEIGHTS = hnp.arrays(
    np.float64, st.integers(2, 300), elements=st.floats(0, 1e9, allow_nan=False, allow_subnormal=False)
).filter(lambda weights: weights.sum() > 0)


@given(WEIGHTS)
def test_frequencies_sum_to_65536_and_are_never_0(weights: np.ndarray) -> None:
    frequencies = integer_frequencies(weights)
    assert frequencies.dtype == np.uint16
    assert frequencies.astype(int).sum() == 65536
    assert frequencies.min() >= 1


@given(WEIGHTS)
def test_a_heavier_symbol_never_gets_fewer_slots(weights: np.ndarray) -> None:
    order = np.argsort(weights, kind="stable")
    assert (np.diff(integer_frequencies(weights).astype(int)[order]) >= -1).all()


def test_exact_shares_stay_exact() -> None:
    assert integer_frequencies(np.array([1, 2, 4, 1])).tolist() == [8192, 16384, 32768, 8192]
    assert integer_frequencies(np.array([0.0, 1.0])).tolist() == [1, 65535]
    assert integer_frequencies(np.ones(65536)).tolist() == [1] * 65536


def test_frequencies_cost_next_to_nothing_against_the_floats() -> None:
    for scale in (0.1, 0.4, 1.0, 3.0):
        weights = laplace(scale, 40)[:-1]
        weights /= weights.sum()
        frequencies = integer_frequencies(weights) / 65536
        cost, entropy = -(weights @ np.log2(frequencies)), -(weights @ np.log2(np.maximum(weights, 1e-300)))
        assert cost <= entropy * 1.001 + 0.002


@pytest.mark.parametrize(
    "weights",
    [[1.0], [], [0.0, 0.0], [1.0, -1.0], [1.0, np.nan], [np.inf, 1.0], np.ones(65537), [[1.0, 1.0], [1.0, 1.0]]],
    ids=["one", "none", "zeros", "negative", "nan", "infinite", "too many", "a matrix"],
)
def test_unusable_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(BundleError, match="weights"):
        integer_frequencies(np.array(weights))


def test_rare_symbols_at_the_edges_go_to_escape() -> None:
    low, frequencies = laplace_prior([0.03], 4, 4, [1], reach=100).tables.table(0, 0)
    assert (low, frequencies.size) == (0, 2)  # 0 alone, and ESCAPE
    low, frequencies = laplace_prior([1.0], 4, 4, [1], reach=100).tables.table(0, 0)
    assert -14 < low < -8
    assert frequencies.size == -2 * low + 2
    assert frequencies[-low] == frequencies.max()


def test_arrays_come_back_as_they_went() -> None:
    tables = random_prior(np.random.default_rng(3)).tables
    again = PriorTables.from_arrays(tables.arrays())
    for name, array in tables.arrays().items():
        assert np.array_equal(array, getattr(again, name))
        assert array.dtype == getattr(again, name).dtype
    assert again.mode_channels == tables.mode_channels


def test_a_narrow_mode_has_the_first_channels() -> None:
    weights = [[laplace(1, 5)] * 2, [laplace(1, 5)] * 4]
    tables = PriorTables.from_counts(
        weights, [[-5] * 2, [-5] * 4], np.ones((2, 4)), np.ones((2, 4)), [1, 3, 4], plane=9
    )
    assert (tables.modes, tables.channels, tables.mode_channels) == (2, 4, (2, 4))
    assert [tables.channels_of(0, groups) for groups in (1, 2, 3)] == [1, 2, 2]
    assert [tables.channels_of(1, groups) for groups in (1, 2, 3)] == [1, 3, 4]
    assert tables.table(1, 3)[1].sum() == 65536


def test_only_large_frames_take_two_lanes() -> None:
    assert laplace_prior([1.0] * 8, 16, 16, [8]).tables.lanes.tolist() == [1]
    assert laplace_prior([1.0] * 24, 28, 28, [24]).tables.lanes.tolist() == [2]


def _changed(name: str, change: object) -> dict[str, np.ndarray]:
    arrays = {key: array.copy() for key, array in laplace_prior([0.5, 1.0], 3, 3, [1, 2]).tables.arrays().items()}
    arrays[name] = change(arrays[name])  # type: ignore[operator]
    return arrays


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("frequencies", lambda a: a.astype(np.uint32), "frequencies is uint32; want uint16"),
        ("frequencies", lambda a: a[:-1], "starts do not rise"),
        ("frequencies", lambda a: a[np.newaxis], "frequencies has shape"),
        ("frequencies", with_value(0, 0), "a symbol has no slot"),
        ("frequencies", with_value(0, 999), "mode 0, channel 0 sums to"),
        ("starts", lambda a: a[::-1].copy(), "starts do not rise"),
        ("starts", with_value(1, 0), "not those of its first channels"),
        ("starts", with_value(1, 1), "no symbol beside ESCAPE"),
        ("starts", with_value(1, 2**32 - 1), "starts do not rise"),
        ("low", with_value(1, 32767), "past 32767"),
        ("low", lambda a: a[:-1], "low has shape"),
        ("gain", with_value(0, np.nan), "not finite"),
        ("gain", lambda a: a[0], "gain has shape"),
        ("gain", lambda a: np.repeat(a, 65, 0), "gain has shape"),
        ("step", with_value(1, np.inf), "not finite"),
        ("step", lambda a: a.T, "step has shape"),
        ("group_ends", with_value(1, 3), "group_ends are"),
        ("group_ends", with_value(0, 0), "group_ends are"),
        ("group_ends", with_value(0, 2), "group_ends are"),
        ("group_ends", lambda a: a[:0], "group_ends are"),
        ("lanes", with_value(0, 3), "lanes are"),
        ("lanes", lambda a: np.repeat(a, 2), "lanes has shape"),
    ],
)
def test_unsound_arrays_are_refused(name: str, change: object, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        PriorTables.from_arrays(_changed(name, change))


def test_missing_and_unknown_arrays_are_named() -> None:
    arrays = laplace_prior([0.5], 3, 3, [1]).tables.arrays()
    with pytest.raises(BundleError, match="has surplus"):
        PriorTables.from_arrays({**arrays, "surplus": np.zeros(1)})
    del arrays["step"]
    with pytest.raises(BundleError, match="lacks step"):
        PriorTables.from_arrays(arrays)


def test_lanes_can_be_chosen() -> None:
    assert with_lanes(laplace_prior([0.5], 3, 3, [1]).tables, 2).lanes.tolist() == [2]
