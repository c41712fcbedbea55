"""How figures are compared: the same setting over splits, the cheapest way to an accuracy, paired differences.

A *series* is one setting measured on every split. Peers are compared at equal accuracy by the upper concave hull of
their (mean bytes, mean accuracy) points: a sender that takes turns between two settings gets every point on the line
between them, so the hull is what a peer can reach. It may also send nothing and get the most frequent class as its
answer (0 bytes). Ours is always a single mode, never a mix: where in doubt, the peer has the advantage.

Letters: S splits, N images of a split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.study.figures import Figures

ROUNDS = 10_000


@dataclass(frozen=True, eq=False)
class Series:
    """A setting, or a mix of two, on every split."""

    label: str
    sizes: tuple[float, ...]
    """Mean bytes of each split, [S]."""
    file_sizes: tuple[float, ...]
    correct: tuple[NDArray[np.float64], ...]
    """Chance of a right answer of every image of each split, S times [N]: 0 or 1, or between them for a mix."""
    balanced: tuple[float, ...] = ()
    """Balanced accuracy of each split."""
    auroc: tuple[float, ...] = ()
    """Of each split; NaN for a mix, whose scores are not comparable, and where nothing is ranked."""

    @classmethod
    def of(cls, label: str, rows: Sequence[Figures]) -> Series:
        """The rows of a setting, one a split."""
        return cls(
            label,
            tuple(row.mean_bytes for row in rows),
            tuple(row.mean_file_bytes for row in rows),
            tuple(row.correct.astype(np.float64) for row in rows),
            tuple(row.balanced_accuracy for row in rows),
            tuple(np.nan if row.auroc is None else row.auroc for row in rows),
        )

    @property
    def size(self) -> float:
        """Mean bytes over the splits."""
        return fmean(self.sizes)

    @property
    def accuracies(self) -> list[float]:
        """Of each split."""
        return [float(split.mean()) for split in self.correct]

    @property
    def accuracy(self) -> float:
        """Mean over the splits."""
        return fmean(self.accuracies)

    def free(self) -> Series:
        """The same answers for no bytes."""
        none = (0.0,) * len(self.sizes)
        return replace(self, sizes=none, file_sizes=none)

    def mixed(self, other: Series, share: float) -> Series:
        """Taking turns: `share` of the frames as `other` sends them."""
        if share == 0:
            return self
        if share == 1:
            return other

        def between(one: float, two: float) -> float:
            return (1 - share) * one + share * two

        return Series(
            f"{1 - share:.0%} {self.label}, {share:.0%} {other.label}",
            tuple(map(between, self.sizes, other.sizes)),
            tuple(map(between, self.file_sizes, other.file_sizes)),
            tuple((1 - share) * a + share * b for a, b in zip(self.correct, other.correct, strict=True)),
            tuple(map(between, self.balanced, other.balanced)),
            (np.nan,) * len(self.sizes),
        )


def hull(series: Sequence[Series]) -> list[Series]:
    """The settings on the upper concave hull of accuracy over bytes, by bytes, as far as accuracy rises."""
    kept: list[Series] = []
    for one in sorted(series, key=lambda s: (s.size, -s.accuracy)):
        if kept and one.accuracy <= kept[-1].accuracy:
            continue
        while len(kept) > 1 and _slope(kept[-2], one) >= _slope(kept[-2], kept[-1]):
            kept.pop()
        kept.append(one)
    return kept


def cheapest(series: Sequence[Series], accuracy: float) -> Series | None:
    """The setting or mix of fewest bytes with at least this mean accuracy; None where none reaches it."""
    corners = hull(series)
    for at, corner in enumerate(corners):
        if corner.accuracy >= accuracy:
            if at == 0:
                return corner
            below = corners[at - 1]
            return below.mixed(corner, (accuracy - below.accuracy) / (corner.accuracy - below.accuracy))
    return None


def at_bytes(series: Sequence[Series], size: float) -> Series | None:
    """The mix of the two neighbours in bytes that sends so many; None outside their range. No hull: plain lines."""
    ordered = sorted(series, key=lambda s: s.size)
    if not ordered or not ordered[0].size <= size <= ordered[-1].size:
        return None
    for low, high in pairwise(ordered):
        if size <= high.size:
            return low.mixed(high, (size - low.size) / (high.size - low.size) if high.size > low.size else 1.0)
    return ordered[-1]


def _slope(one: Series, two: Series) -> float:
    return (two.accuracy - one.accuracy) / (two.size - one.size) if two.size > one.size else np.inf


class Spread(NamedTuple):
    """A mean with what it may be off by."""

    mean: float
    deviation: float
    """Standard deviation over splits; NaN for one."""

    def __str__(self) -> str:
        """Read as ``1.25 +- 0.31``."""
        return f"{self.mean:.3g}" if np.isnan(self.deviation) else f"{self.mean:.3g} +- {self.deviation:.2g}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation over splits."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else float("nan"))


def gaps(one: Series, other: Series) -> list[float]:
    """Accuracy of one less the other's on each split, in points."""
    return [100 * (a - b) for a, b in zip(one.accuracies, other.accuracies, strict=True)]


class Interval(NamedTuple):
    """A paired difference with its 95 % confidence interval, in points of accuracy."""

    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        """Read as ``0.46 [-0.30, 1.22]``."""
        return f"{self.difference:.2f} [{self.low:.2f}, {self.high:.2f}]"


def paired(one: Sequence[NDArray[np.float64]], other: Sequence[NDArray[np.float64]], seed: int = 0) -> Interval:
    """Accuracy of one less the other's on the same images, S times [N] each; percentile bootstrap over images.

    Splits are resampled each by itself and averaged, as the difference is.
    """
    rng = np.random.default_rng(seed)
    differences = [100 * (a - b) for a, b in zip(one, other, strict=True)]
    resampled = np.mean([_resampled(rng, values) for values in differences], axis=0)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Interval(float(np.mean([values.mean() for values in differences])), float(low), float(high))


def _resampled(rng: np.random.Generator, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of ROUNDS draws with replacement: values are few and repeat, so counts are drawn in place of images."""
    distinct, counts = np.unique(values, return_counts=True)
    drawn = rng.multinomial(len(values), counts / len(values), ROUNDS)
    return np.asarray(drawn @ distinct / len(values))
