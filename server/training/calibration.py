"""How sure is sure enough: thresholds of the local exit from held-out answers, and what they are worth on others.

:func:`calibrate` makes what ships, from all held-out images. What a report or a benchmark claims comes from
:func:`cross_fitted`: each image is judged by a temperature and a threshold that were set without it.

Letters: N images, K classes, W widths, M modes, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.exits import SCORES, ExitScore, ExitTables, score_of
from headwater.server.training.metrics import softmax

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

THRESHOLDS = 100
"""T: a threshold every per cent of the images."""
BINS = 15
FOLDS = 10
_LEAST, _MOST = 1e-2, 1e2  # of a temperature


def temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature that makes softmax(logits / temperature) likeliest (Guo et al., ICML 2017).

    A share of one image in N + 1 counts for all classes alike (Platt, 1999), or images that are all answered right
    would call for boundless certainty.
    """
    N = len(logits)
    z = logits.astype(np.float64)
    share = 1 / (N + 1)
    wanted = (1 - share) * z[np.arange(N), labels].mean() + share * z.mean()
    low, high = 1 / _MOST, 1 / _LEAST
    for _ in range(60):  # the likelihood is concave in 1 / temperature: halve where its slope changes sign
        middle = (low * high) ** 0.5
        expected = (softmax(z * middle) * z).sum() / N
        low, high = (middle, high) if expected < wanted else (low, middle)
    return float(1 / (low * high) ** 0.5)


def calibration_error(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Expected calibration error over 15 bins of confidence, 0 to 1 (Naeini et al., AAAI 2015)."""
    confidence, right = score_of(logits, "softmax"), logits.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def calibrate(
    exit_logits: Sequence[NDArray[np.float32]],
    server_logits: Sequence[NDArray[np.float32]],
    labels: NDArray[np.int64],
    width_of: Sequence[int],
    opinions: NDArray[np.float32] | None = None,
) -> ExitTables:
    """Set temperatures and measure thresholds.

    Args:
        exit_logits: of each width, [N, K] before any temperature.
        server_logits: of each mode, [N, K].
        labels: the right classes, [N].
        width_of: index of each mode's width.
        opinions: [O, K]; None for none.
    """
    temperatures = [temperature(logits, labels) for logits in exit_logits]
    scaled = [logits / np.float32(t) for logits, t in zip(exit_logits, temperatures, strict=True)]
    threshold, share, drop = [], [], []
    for score in SCORES:
        scores = [score_of(logits, score) for logits in scaled]
        grids = [_grid(values) for values in scores]
        answered = [values >= grid[:, np.newaxis] for values, grid in zip(scores, grids, strict=True)]  # [T, N] each
        lost = [
            _lost(exit_logits[width], server, labels) for width, server in zip(width_of, server_logits, strict=True)
        ]
        threshold.append(grids)
        share.append([rows.mean(axis=1) for rows in answered])
        drop.append([100 * (answered[w] @ loss) / len(labels) for w, loss in zip(width_of, lost, strict=True)])
    errors = [[calibration_error(logits, labels) for logits in each] for each in (exit_logits, scaled)]
    return ExitTables(
        temperature=np.array(temperatures, np.float32),
        threshold=np.array(threshold, np.float64),
        share=np.array(share, np.float32),
        drop=np.array(drop, np.float32),
        calibration_error=np.array(errors, np.float32),
        width_of=np.array(width_of, np.uint8),
        images=np.array([len(labels)], np.uint32),
        opinions=np.zeros((0, exit_logits[0].shape[1]), np.float32) if opinions is None else opinions,
    )


def _grid(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rising thresholds [T], each a score of an image: all images reach the first, one in T or one at all the last."""
    ordered = np.sort(scores)
    return ordered[np.arange(THRESHOLDS) * len(ordered) // THRESHOLDS]


def _lost(exit_logits: NDArray[Any], server_logits: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 where only the server is right, -1 where only the exit is, else 0; [N]."""
    right = [(logits.argmax(axis=1) == labels).astype(np.float64) for logits in (server_logits, exit_logits)]
    return np.asarray(right[0] - right[1])


@dataclass(frozen=True)
class CrossFitted:
    """A cascade of exit and server at one stated drop, on images that had no part in setting its threshold."""

    share: float
    """Of the images, answered on the device."""
    drop: float
    """Points of accuracy behind always sending; below 0 where the cascade is ahead."""
    drop_error: float
    """Its standard error, points."""
    calibration_error: float
    """Expected calibration error of the exit with its temperature, 0 to 1."""
    answered: NDArray[np.bool_]
    """Which images the device answered, [N]."""
    correct: NDArray[np.bool_]
    """Which images the cascade got right, [N]."""


def cross_fitted(
    exit_logits: NDArray[np.float32],
    server_logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    max_drop: float,
    score: ExitScore = "softmax",
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> CrossFitted:
    """What ``max_drop`` gives on unseen images: calibrate on all folds but one, measure on that one, pool.

    Ten folds calibrate on nearly as many images as what ships does. Two, each half for the other, are the severest
    test: with half the images more has to be held back, and less is answered.

    Args:
        exit_logits: the exit's at the width of the mode, [N, K]; with or without a temperature, which is set anew.
        server_logits: the server's in the mode, [N, K].
        labels: the right classes, [N].
        max_drop: points of accuracy that may be lost.
        score: what the threshold is on.
        folds: parts that the images are dealt into.
        seed: of the deal.
    """
    answered, scaled = np.zeros(len(labels), np.bool_), np.zeros_like(exit_logits)
    for seen, unseen in _deal(len(labels), folds, seed):
        tables = calibrate([exit_logits[seen]], [server_logits[seen]], labels[seen], [0])
        scaled[unseen] = exit_logits[unseen] / tables.temperature[0]
        answered[unseen] = score_of(scaled[unseen], score) >= tables.threshold_for(0, max_drop, score)
    lost = np.where(answered, _lost(exit_logits, server_logits, labels), 0.0)
    final = np.where(answered, exit_logits.argmax(axis=1), server_logits.argmax(axis=1))
    return CrossFitted(
        share=float(answered.mean()),
        drop=float(100 * lost.mean()),
        drop_error=float(100 * lost.std(ddof=1) / len(labels) ** 0.5),
        calibration_error=calibration_error(scaled, labels),
        answered=answered,
        correct=final == labels,
    )


def _deal(count: int, folds: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    order = np.random.default_rng(seed).permutation(count)
    for fold in range(folds):
        unseen = order[fold::folds]
        yield np.setdiff1d(order, unseen), unseen
