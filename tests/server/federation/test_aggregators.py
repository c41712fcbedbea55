"""The contract of every aggregator, whoever wrote it, and what sets single ones apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from headwater.compression.errors import LearningError, SettingsError
from headwater.server.federation import robust
from headwater.server.federation.averaging import average, regions
from headwater.server.federation.privacy import Privacy, private
from tests.server.federation import contributions as made

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.server.federation.averaging import Aggregator, Contribution

ALL: dict[str, Aggregator] = {
    **{name: robust.aggregator(name) for name in robust.NAMES},
    "private": private(Privacy(noise=1e-9, clip=1e3), b"secret", 1),
}
ROBUST = ("trimmed", "median", "krum", "flag")
MIXED = (1.0, 0.5, 0.25, 1.0, 0.5, 0.25, 1.0, 0.5, 1.0)

each = pytest.mark.parametrize("aggregate", ALL.values(), ids=ALL.keys())
robust_each = pytest.mark.parametrize("aggregate", [ALL[name] for name in ROBUST], ids=ROBUST)
heterogeneous = pytest.mark.parametrize(
    "aggregate", [value for name, value in ALL.items() if name != "private"], ids=[n for n in ALL if n != "private"]
)


def _some(seed: int, widths: tuple[float, ...] = MIXED, noise: float = 0.1) -> list[Contribution]:
    rng = np.random.default_rng(seed)
    truth = made.truth(rng)
    return [made.of(100 - i, made.like(rng, truth, noise), width, 5 + i % 3) for i, width in enumerate(widths)]


def _truth(seed: int) -> dict[str, NDArray[np.float32]]:
    return made.truth(np.random.default_rng(seed))


@each
def test_the_order_of_replies_changes_no_byte(aggregate: Aggregator) -> None:
    contributions = _some(1)
    wanted = aggregate(contributions, made.SHAPES)
    for seed in range(3):
        shuffled = [contributions[i] for i in np.random.default_rng(seed).permutation(len(contributions))]
        got = aggregate(shuffled, made.SHAPES)
        assert all(got[name].tobytes() == wanted[name].tobytes() for name in made.SHAPES)


@each
def test_every_array_comes_back_whole_in_float32(aggregate: Aggregator) -> None:
    change = aggregate(_some(2), made.SHAPES)
    assert {name: array.shape for name, array in change.items()} == made.SHAPES
    assert {array.dtype for array in change.values()} == {np.dtype(np.float32)}


@each
def test_devices_that_agree_are_believed(aggregate: Aggregator) -> None:
    truth = _truth(3)
    change = aggregate([made.of(node, truth) for node in range(2, 9)], made.SHAPES)
    for name, array in truth.items():
        np.testing.assert_allclose(change[name], array, rtol=1e-5, atol=1e-6)


@heterogeneous
def test_what_nobody_trained_keeps_its_value(aggregate: Aggregator) -> None:
    change = aggregate(_some(4, (0.5, 0.25, 0.5, 0.5)), made.SHAPES)
    for name, trained in made.covered(0.5).items():
        assert not change[name][~trained].any()
        assert change[name][trained].all()


@heterogeneous
def test_narrow_devices_do_not_dilute_what_wide_ones_learnt(aggregate: Aggregator) -> None:
    truth = _truth(5)
    widths = (1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 0.25)
    change = aggregate([made.of(2 + i, truth, width) for i, width in enumerate(widths)], made.SHAPES)
    for name, array in truth.items():
        np.testing.assert_allclose(change[name], array, rtol=1e-5, atol=1e-6)


@each
def test_weights_count_by_their_ratio(aggregate: Aggregator) -> None:
    contributions = _some(6)
    heavier = [replace(each, examples=1000 * each.examples) for each in contributions]
    wanted, got = aggregate(contributions, made.SHAPES), aggregate(heavier, made.SHAPES)
    for name in made.SHAPES:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-6)


@each
def test_without_any_update_there_is_nothing_to_aggregate(aggregate: Aggregator) -> None:
    with pytest.raises(LearningError, match="no device"):
        aggregate([], made.SHAPES)


@each
def test_the_updates_that_came_in_are_left_alone(aggregate: Aggregator) -> None:
    contributions = _some(7)
    before = [{name: array.copy() for name, array in each.delta.items()} for each in contributions]
    aggregate(contributions, made.SHAPES)
    for each_, copies in zip(contributions, before, strict=True):
        assert all(np.array_equal(each_.delta[name], copy) for name, copy in copies.items())


@robust_each
@pytest.mark.parametrize("lie", ["flipped", "huge", "noise"])
def test_one_outlier_moves_nothing_far(aggregate: Aggregator, lie: str) -> None:
    truth = _truth(8)
    rng = np.random.default_rng(9)
    widths = (1.0, 0.5, 1.0, 0.25, 1.0, 0.5, 1.0, 1.0, 1.0)
    honest = [made.of(2 + i, made.like(rng, truth, 0.05), width) for i, width in enumerate(widths)]
    forged = {
        "flipped": {name: -array for name, array in truth.items()},
        "huge": {name: 1e6 * array for name, array in made.truth(rng).items()},
        "noise": {name: 30 * array for name, array in made.truth(rng).items()},
    }[lie]
    change = aggregate([*honest, made.of(50, forged, 1.0, examples=10)], made.SHAPES)
    off = np.concatenate([(change[name] - truth[name]).ravel() for name in truth])
    size = np.concatenate([array.ravel() for array in truth.values()])
    assert np.linalg.norm(off) < 0.35 * np.linalg.norm(size)


def test_the_mean_is_moved_by_one_outlier_which_is_why_there_are_others() -> None:
    truth = _truth(8)
    liar = made.of(50, {name: 1e6 * array for name, array in truth.items()})
    change = average([*(made.of(node, truth) for node in range(2, 10)), liar], made.SHAPES)
    assert abs(change["a"]).max() > 1e4


@robust_each
def test_two_devices_outvote_nobody(aggregate: Aggregator) -> None:
    wide = [made.of(node, _truth(10)) for node in (2, 3)]
    narrow = [made.of(node, _truth(10), 0.5) for node in (4, 5)]
    change = aggregate([*wide, *narrow], made.SHAPES)
    for name, trained in made.covered(0.5).items():
        assert not change[name][~trained].any(), "decided by two"
        assert change[name][trained].all(), "decided by four"


def test_the_mean_weighs_by_examples_where_each_trained() -> None:
    ones = {name: np.ones(shape, np.float32) for name, shape in made.SHAPES.items()}
    fives = {name: 5 * array for name, array in ones.items()}
    change = average([made.of(2, ones, 1.0, examples=30), made.of(3, fives, 0.5, examples=10)], made.SHAPES)
    for name, trained in made.covered(0.5).items():
        np.testing.assert_array_equal(change[name], np.where(trained, 2.0, 1.0).astype(np.float32))


@heterogeneous
def test_a_stale_update_counts_for_less(aggregate: Aggregator) -> None:
    truth = _truth(11)
    stale = [replace(made.of(node, truth), scale=0.5) for node in range(2, 7)]
    change = aggregate(stale, made.SHAPES)
    np.testing.assert_allclose(change["a"], truth["a"] / 2, rtol=1e-5, atol=1e-6)


def test_regions_split_every_trained_coordinate_by_who_trained_it() -> None:
    contributions = _some(12, (1.0, 0.5, 0.25, 0.5))
    found = regions(contributions, made.SHAPES)
    assert [region.members for region in found] == [(0,), (0, 1, 2, 3), (0, 1, 3)]
    for name, shape in made.SHAPES.items():
        together = np.concatenate([region.coordinates[name] for region in found if name in region.coordinates])
        assert sorted(together) == list(range(int(np.prod(shape))))


def test_noise_is_what_was_asked_for_and_the_same_when_a_round_is_done_again() -> None:
    truth = {"a": np.zeros((200, 200), np.float32)}
    four = [replace(made.of(node, _truth(13)), delta=truth, places={"a": ()}) for node in range(2, 6)]
    first, again, other = (private(Privacy(2.0, 10.0), b"s", number)(four, {"a": (200, 200)}) for number in (1, 1, 2))
    assert np.std(first["a"]) == pytest.approx(2.0 * 10.0 / 4, rel=0.02)
    assert first["a"].tobytes() == again["a"].tobytes() != other["a"].tobytes()


def test_privacy_shortens_a_long_update() -> None:
    liar = made.of(50, {name: 1e6 * array for name, array in _truth(14).items()})
    quiet = [made.of(node, {name: 0 * array for name, array in _truth(14).items()}) for node in range(2, 5)]
    change = private(Privacy(1e-9, 1.0), b"s", 1)([*quiet, liar], made.SHAPES)
    assert np.sqrt(sum(np.square(array).sum() for array in change.values())) == pytest.approx(1 / 4, rel=1e-3)


@pytest.mark.parametrize(
    ("noise", "rounds", "wanted"),
    [
        (1.0, 1, 4.3772),
        (2.0, 4, 4.3772),
        (4.0, 1, 0.9263),
    ],
)
def test_epsilon_is_that_of_composed_gaussians(noise: float, rounds: int, wanted: float) -> None:
    assert Privacy(noise, 1.0).epsilon(rounds, 1e-5) == pytest.approx(wanted, abs=2e-3)


def test_wrong_names_and_shares_are_explained() -> None:
    with pytest.raises(SettingsError, match=r"'best'.*mean, trimmed, median, krum, flag"):
        robust.aggregator("best")
    with pytest.raises(SettingsError, match="below a half"):
        robust.aggregator("krum", 0.5)
    with pytest.raises(SettingsError, match="above 0"):
        Privacy(0.0, 1.0)
