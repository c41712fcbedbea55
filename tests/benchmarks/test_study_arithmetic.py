"""How the study compares: hulls, interpolation, pairing and bootstrap, on numbers that can be checked by hand."""

import json
import math

import numpy as np
import pytest

from benchmarks.study.arithmetic import Series, at_bytes, cheapest, gaps, hull, paired, spread
from benchmarks.study.figures import Figures

N = 1000


def right(accuracy: float, *, shift: int = 0) -> np.ndarray:
    """So many of 1000 images answered right, from the image `shift` on."""
    return np.roll(np.arange(N) < round(accuracy * N), shift).astype(float)


def series(label: str, size: float, *accuracies: float) -> Series:
    count = len(accuracies)
    return Series(label, (size,) * count, (size,) * count, tuple(map(right, accuracies)), accuracies, accuracies)


def test_the_hull_leaves_out_what_turns_between_two_others_beat() -> None:
    a, b, c = series("a", 10, 0.6), series("b", 20, 0.65), series("c", 30, 0.8)
    worse, dear = series("worse", 40, 0.8), series("dear", 30, 0.7)
    assert [one.label for one in hull([dear, worse, c, b, a])] == ["a", "c"]
    assert [one.label for one in hull([a, series("b", 20, 0.75), c])] == ["a", "b", "c"]
    assert hull([]) == []


def test_the_cheapest_way_is_a_line_between_two_settings() -> None:
    settings = [series("a", 100, 0.6), series("b", 300, 0.8)]
    mix = cheapest(settings, 0.7)
    assert mix is not None
    assert (mix.size, mix.accuracy) == (pytest.approx(200), pytest.approx(0.7))
    assert mix.label == "50% a, 50% b"
    assert math.isnan(mix.auroc[0])
    assert cheapest(settings, 0.8) is settings[1]
    assert cheapest(settings, 0.5) is settings[0]
    assert cheapest(settings, 0.801) is None


def test_splits_are_averaged_before_settings_are_compared() -> None:
    """A setting that is lucky on one split is no corner of the hull unless it is good on average."""
    lucky, steady = series("lucky", 10, 0.9, 0.5), series("steady", 20, 0.75, 0.75)
    mix = cheapest([lucky, steady], 0.75)
    assert mix is steady
    assert lucky.accuracy == pytest.approx(0.7)


def test_at_equal_bytes_neighbours_are_mixed_and_nothing_is_made_up_beyond_them() -> None:
    gains = [series("g1", 50, 0.8), series("g0", 20, 0.6), series("g2", 100, 0.7)]
    middle = at_bytes(gains, 35)
    assert middle is not None
    assert middle.accuracy == pytest.approx(0.7)
    between = at_bytes(gains, 75)
    assert between is not None
    assert between.accuracy == pytest.approx(0.75), "no hull: a dearer gain that is worse counts as it is"
    for outside in (19.9, 100.1):
        assert at_bytes(gains, outside) is None
    exact = at_bytes(gains, 100)
    assert exact is not None
    assert exact.accuracy == pytest.approx(0.7)


def test_a_paired_difference_knows_what_two_accuracies_do_not() -> None:
    one, same, other = right(0.8), right(0.8), right(0.8, shift=200)
    assert paired([one], [same]) == (0, 0, 0), "right on the same images: no doubt at all"
    crossed = paired([one], [other])
    assert crossed.difference == pytest.approx(0)
    # 200 images won and 200 lost of 1000: standard error of sqrt(0.4 / 1000) = 2.0 points.
    assert crossed.high - crossed.low == pytest.approx(2 * 1.96 * 2.0, rel=0.05)
    two = paired([one, one], [other, other])
    assert two.high - two.low == pytest.approx((crossed.high - crossed.low) / math.sqrt(2), rel=0.05)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        one, other = (rng.random(300) < 0.85).astype(float), (rng.random(300) < 0.80).astype(float)
        interval = paired([one], [other], seed=trial)
        covered += interval.low <= 5 <= interval.high
    assert 180 <= covered <= 199


def test_mean_and_deviation_over_splits() -> None:
    ours, theirs = series("ours", 10, 0.85, 0.87, 0.86), series("theirs", 10, 0.84, 0.84, 0.84)
    found = spread(gaps(ours, theirs))
    assert found == (pytest.approx(2.0), pytest.approx(1.0))
    assert str(spread([1.25])) == "1.25"
    assert str(spread([1.0, 2.0])) == "1.5 +- 0.71"


def test_figures_keep_every_image_through_json() -> None:
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 2, 657), rng.normal(0, 1, (657, 2)).astype(np.float32)
    sizes = rng.integers(20, 60, 657)
    figures = Figures.of(sizes, logits, labels, sizes + 100)
    again = Figures.from_json(json.loads(json.dumps(figures.to_json())))
    assert (again.correct == (logits.argmax(axis=1) == labels)).all()
    assert again.mean_bytes == pytest.approx(sizes.mean(), abs=0.01)
    assert again.mean_file_bytes == pytest.approx(sizes.mean() + 100, abs=0.01)
    assert len(json.dumps(figures.to_json())) < 300


def test_a_sender_of_nothing_gets_one_answer() -> None:
    nothing = Figures.of_nothing(1, np.array([0, 1, 1, 1]))
    assert (nothing.mean_bytes, nothing.accuracy, nothing.balanced_accuracy) == (0, 0.75, 0.5)
