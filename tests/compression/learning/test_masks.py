"""Densities, prune-and-grow and masks as bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.compression.errors import LearningError
from headwater.compression.learning import masks as masking

SHAPES = {"wide": (64, 32, 3, 3), "narrow": (8, 4, 1, 1), "last": (10, 64)}


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return made | {"bias": rng.normal(size=8).astype(np.float32)}


@given(st.floats(0.05, 1.0))
def test_the_densities_add_up_and_small_layers_keep_more(density: float) -> None:
    share = masking.densities(SHAPES, density)
    total = sum(share[name] * math.prod(shape) for name, shape in SHAPES.items())
    assert total == pytest.approx(density * sum(map(math.prod, SHAPES.values())))
    assert all(0 < value <= 1 for value in share.values())
    assert share["narrow"] >= share["last"] >= share["wide"]


def test_densities_follow_the_kernel_rule_where_no_layer_is_full() -> None:
    share = masking.densities({"a": (64, 32, 3, 3), "b": (128, 64, 3, 3)}, 0.1)
    assert share["a"] / share["b"] == pytest.approx(((64 + 32 + 6) / (64 * 32 * 9)) / ((128 + 64 + 6) / (128 * 64 * 9)))


@pytest.mark.parametrize("density", [0.0, -0.5, 1.5])
def test_a_density_that_is_none_is_refused(density: float) -> None:
    with pytest.raises(LearningError, match="density"):
        masking.densities(SHAPES, density)


def test_the_first_masks_hold_the_largest_weights() -> None:
    weights = arrays()
    masks = masking.first(weights, SHAPES, 0.3)
    for name, mask in masks.items():
        magnitude = np.abs(weights[name])
        assert magnitude[mask].min() >= (magnitude[~mask].max() if not mask.all() else 0)
    assert sum(mask.sum() for mask in masks.values()) == pytest.approx(
        0.3 * sum(map(math.prod, SHAPES.values())), abs=len(SHAPES)
    )


def test_the_share_that_is_replaced_falls_from_a_to_nothing() -> None:
    shares = [masking.share_due(time / 10) for time in range(11)]
    assert shares[0] == pytest.approx(masking.FALL)
    assert shares[-1] == pytest.approx(0)
    assert shares == sorted(shares, reverse=True)
    assert masking.share_due(2.0) == pytest.approx(0)


def test_an_adjustment_drops_the_least_active_weights_and_grows_the_largest_gradients() -> None:
    weights = {"w": np.array([[0.9, -0.1, 0.0, 0.0], [0.5, 0.2, 0.0, 0.0]], np.float32)}
    mask = {"w": np.array([[1, 1, 0, 0], [1, 1, 0, 0]], np.bool_)}
    # The largest gradient of all is at an active weight and must not count.
    gradient = {"w": np.array([[9.0, 0, 0.1, -3.0], [0, 0, 2.0, 0.0]], np.float32)}
    changed, masks = masking.adjust(weights, mask, gradient, share=0.5)
    assert masks["w"].tolist() == [[True, False, False, True], [True, False, True, False]]
    assert changed["w"].tolist() == [[np.float32(0.9), 0, 0, 0], [0.5, 0, 0, 0]]  # grown ones start from 0


def test_masked_zeros_are_never_due_however_sparse_the_layer() -> None:
    weights = np.zeros((4, 25), np.float32)
    weights[0, :10] = np.arange(1, 11)
    mask = weights != 0  # a tenth is active: the least of all weights would be masked ones
    due = masking.due(weights, mask, 0.3)
    assert due.sum() == 3
    assert np.flatnonzero(due).tolist() == [0, 1, 2]


def test_due_is_what_the_adjustment_drops() -> None:
    weights = masking.apply(arrays(), masks := masking.first(arrays(), SHAPES, 0.4))
    gradients = {name: np.abs(array) + 1 for name, array in arrays(1).items()}
    _, after = masking.adjust(weights, masks, gradients, 0.2)
    for name, mask in masks.items():
        if not mask.all():
            assert np.array_equal(mask & ~after[name], masking.due(weights[name], mask, 0.2))
            assert after[name].sum() == mask.sum()


def test_of_a_dense_layer_nothing_is_due_and_of_a_nearly_dense_one_no_more_than_can_grow() -> None:
    weights = np.arange(1, 11, dtype=np.float32)
    assert not masking.due(weights, np.ones(10, np.bool_), 0.5).any()
    nearly = weights != 10
    assert np.flatnonzero(masking.due(weights, nearly, 0.5)).tolist() == [0]


def test_where_nothing_can_grow_nothing_is_dropped() -> None:
    weights = arrays()
    masks = masking.first(weights, SHAPES, 0.4)
    silent = {name: np.zeros_like(array) for name, array in weights.items()}
    changed, after = masking.adjust(masking.apply(weights, masks), masks, silent, 0.2)
    assert all(np.array_equal(after[name], masks[name]) for name in masks)
    assert np.array_equal(changed["bias"], weights["bias"])


def test_top_gradients_are_those_of_inactive_weights() -> None:
    gradient = np.array([[5, -1, 3], [-4, 2, 0]], np.float32)
    mask = np.array([[1, 0, 0], [0, 0, 1]], np.bool_)
    found = masking.top_gradients(gradient, mask, 2)
    assert found["at"].tolist() == [2, 3]
    assert found["value"].tolist() == [3, -4]
    assert len(masking.top_gradients(gradient, mask, 99)["at"]) == 4


# ---------------------------------------------------------------- bytes


def test_masks_survive_bytes_and_little_change_is_few_bytes() -> None:
    weights = arrays()
    before = masking.first(weights, SHAPES, 0.3)
    _, after = masking.adjust(weights, before, arrays(2), 0.05)
    data = masking.to_bytes(after, before)
    back = masking.from_bytes(data, before, {}, {})
    assert all(np.array_equal(back[name], after[name]) for name in after)
    size = sum(mask.size for mask in before.values()) / 8
    assert len(data) < size / 2
    assert len(masking.to_bytes(before, before)) < 60


def test_the_first_masks_are_made_from_the_arrays_and_may_be_changed_at_once() -> None:
    weights = arrays()
    first = masking.first(weights, SHAPES, 0.3)
    _, after = masking.adjust(weights, first, arrays(2), 0.1)
    data = masking.to_bytes(after, first, 0.3)
    back = masking.from_bytes(data, None, weights, SHAPES)
    assert all(np.array_equal(back[name], after[name]) for name in after)
    with pytest.raises(LearningError, match="start from"):
        masking.from_bytes(data, None, arrays(1), SHAPES)
    with pytest.raises(LearningError, match="none are here"):
        masking.from_bytes(masking.to_bytes(first, first), None, weights, SHAPES)


def test_masks_of_another_start_are_refused() -> None:
    before = masking.first(arrays(), SHAPES, 0.3)
    other = masking.first(arrays(5), SHAPES, 0.3)
    with pytest.raises(LearningError, match="start from"):
        masking.from_bytes(masking.to_bytes(before, before), other, {}, {})


def test_any_bytes_are_masks_or_an_error() -> None:
    before = masking.first(arrays(), SHAPES, 0.3)
    data = masking.to_bytes(masking.first(arrays(1), SHAPES, 0.3), before)
    rng = np.random.default_rng(0)
    for place in rng.choice(len(data), 200):
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(LearningError):
            masking.from_bytes(bytes(broken), before, {}, {})
    for cut in (0, 1, 26, 27, 35, len(data) - 1):
        with pytest.raises(LearningError):
            masking.from_bytes(data[:cut], before, {}, {})
