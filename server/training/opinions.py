"""The opinions that a device can have of a picture: a codebook for the logits of its exit.

Vector quantisation after Linde, Buzo and Gray, "An algorithm for vector quantizer design" (IEEE Trans. Communications,
1980), from a start that depends on nothing but the logits. For two classes that is a scale of log-odds.

Legend: N images, K classes, O opinions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.exits import MAX_OPINIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = 20


def codebook(logits: NDArray[np.float32], size: int = MAX_OPINIONS) -> NDArray[np.float32]:
    """At most ``size`` opinions [O, K], each of mean 0, near to the logits [N, K]."""
    points = logits.astype(np.float64) - logits.mean(axis=1, keepdims=True)
    points = np.unique(points.round(4), axis=0)
    centres = _start(points, min(size, len(points)))
    for _ in range(STEPS):
        nearest = _nearest(points, centres)
        counts = np.bincount(nearest, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        used = counts > 0
        centres[used] = sums[used] / counts[used, np.newaxis]
    return centres.astype(np.float32)


def _start(points: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Points far from each other: the first is the surest, each next one the farthest from all before it."""
    chosen = [int(np.square(points).sum(axis=1).argmax())]
    distance = np.square(points - points[chosen[0]]).sum(axis=1)
    while len(chosen) < size:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(points - points[chosen[-1]]).sum(axis=1))
    return points[chosen].copy()


def _nearest(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    squared = np.square(centres).sum(axis=1) - 2 * points @ centres.T  # the points' own squares are the same for all
    return np.asarray(squared.argmin(axis=1))
