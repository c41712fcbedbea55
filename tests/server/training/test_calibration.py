"""Temperatures, thresholds and cross-fitted cascades against answers whose worth is known."""

import numpy as np
import pytest

from headwater.compression.exits import SCORES, ExitScore, score_of
from headwater.server.training.calibration import calibrate, calibration_error, cross_fitted, temperature


def drawn(count: int, seed: int, *, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 3] and labels drawn from exactly the probabilities that they say; ``sharpness`` then distorts them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.5, (count, 3)).astype(np.float32)
    gumbel = -np.log(-np.log(rng.random((count, 3))))
    return logits * np.float32(sharpness), (logits + gumbel).argmax(axis=1)


def answers(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Logits [N, 3] of someone who is right where told, and else says the next class."""
    return np.eye(3, dtype=np.float32)[np.where(right, labels, (labels + 1) % 3)]


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_what_made_answers_too_sure_or_too_shy(sharpness: float) -> None:
    logits, labels = drawn(20_000, 0, sharpness=sharpness)
    found = temperature(logits, labels)
    assert found == pytest.approx(sharpness, rel=0.05)
    assert calibration_error(logits / np.float32(found), labels) < 0.015
    if sharpness != 1.0:
        assert calibration_error(logits, labels) > 0.05


def test_all_right_does_not_mean_certain() -> None:
    labels = np.arange(60) % 3
    logits = answers(np.ones(60, bool), labels)
    confidence = score_of(logits / np.float32(temperature(logits, labels)), "softmax")
    assert confidence.max() < 0.995


def test_the_calibration_error_of_a_known_gap() -> None:
    labels = np.zeros(1000, int)
    logits = np.tile(np.float32([np.log(9), 0]), (1000, 1))  # 90 % sure each time
    labels[:300] = 1  # and right in 70 %
    assert calibration_error(logits, labels) == pytest.approx(0.2, abs=1e-6)


def test_shares_and_drops_are_what_counting_says() -> None:
    logits, labels = drawn(500, 1)
    right = [logits.argmax(axis=1) == labels, np.random.default_rng(2).random(500) < 0.9]
    tables = calibrate([logits, logits * 2], [answers(right[1], labels), answers(right[0], labels)], labels, [0, 1])
    assert tables.images.tolist() == [500]
    assert tables.temperature[1] == pytest.approx(2 * tables.temperature[0], rel=1e-5)
    for s, score in enumerate(SCORES):
        scores = score_of(logits / tables.temperature[0], score)
        for t in (0, 37, 99):
            answered = scores >= tables.threshold[s, 0, t]
            assert tables.share[s, 0, t] == pytest.approx(answered.mean())
            cascade = np.where(answered, right[0], right[1])
            assert tables.drop[s, 0, t] == pytest.approx(100 * (right[1].mean() - cascade.mean()), abs=1e-4)
        np.testing.assert_array_equal(tables.drop[s, 1], 0)  # a server that answers as the exit does: nothing to lose
    assert tables.share[0, 0, 0] == 1.0


def test_an_exit_as_good_as_the_server_answers_everything() -> None:
    logits, labels = drawn(400, 3)
    result = cross_fitted(logits, logits.copy(), labels, 0.6)
    assert result.share > 0.97  # those less sure than any image of the other half are sent
    assert (result.drop, result.drop_error) == (0.0, 0.0)


def test_an_exit_that_guesses_is_not_asked() -> None:
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(0, 3, (600, 3)).astype(np.float32), rng.integers(0, 3, 600)
    result = cross_fitted(logits, answers(np.ones(600, bool), labels), labels, 1.0)
    assert result.share < 0.03
    assert result.calibration_error < 0.1


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("folds", [2, 10])
def test_the_stated_drop_holds_on_images_that_set_no_threshold(score: ExitScore, folds: int) -> None:
    shares, drops = [], []
    for seed in range(12):
        logits, labels = drawn(600, seed)
        result = cross_fitted(logits, answers(np.ones(600, bool), labels), labels, 2.0, score, folds=folds, seed=seed)
        assert result.drop == pytest.approx(100 * (1 - result.correct.mean()))
        assert result.share == result.answered.mean()
        shares.append(result.share)
        drops.append(result.drop)
    assert np.mean(drops) < 2.2  # twelve draws of a mean that is at most 2
    assert np.mean(drops) > 0.8, "so much is held back that the exit is of little use"
    assert np.mean(shares) > 0.1


def test_the_standard_error_is_that_of_the_mean_of_paired_differences() -> None:
    logits, labels = drawn(400, 6)
    right = np.random.default_rng(6).random(400) < 0.9
    result = cross_fitted(logits, answers(right, labels), labels, 3.0)
    lost = 100 * (right.astype(float) - result.correct)
    assert set(lost) == {-100.0, 0.0, 100.0}
    assert result.drop == pytest.approx(lost.mean())
    assert result.drop_error == pytest.approx(lost.std(ddof=1) / 20)


def test_no_image_sets_its_own_threshold() -> None:
    """Turning the label of one image over changes whether others are answered, never whether itself is."""
    logits, labels = drawn(80, 5)
    server = answers(np.ones(80, bool), labels)
    before = cross_fitted(logits, server, labels, 5.0, seed=1).answered
    for image in range(0, 80, 5):
        turned = labels.copy()
        turned[image] = (labels[image] + 1) % 3
        after = cross_fitted(logits, answers(np.ones(80, bool), turned), turned, 5.0, seed=1).answered
        assert after[image] == before[image]
