"""Aggregators that hold when some devices lie: Flower's trimmed mean, median and Krum, and Flag Aggregator.

All of them were written for updates of one shape. Here each one gets the regions of
:func:`headwater.server.federation.averaging.regions`, one after another: coordinates that the same devices trained, in
which every device's update is one vector of the same length. So a device is judged where it took part, among those who
did the same, and a liar who trained more than others finds no shelter in what they did not train.

A rule that outvotes liars needs voters: coordinates that fewer than `quorum` devices trained keep their value.

Flag Aggregator: Almasan et al., "Flag Aggregator: scalable distributed training under failures and augmented losses
using convex optimization", ICLR 2024, arXiv:2302.05865. Trimmed mean and median: Yin et al., 2018, arXiv:1803.01498.
Krum: Blanchard et al., 2017. The last three are Flower's own code.

Legend: n devices of a region, k coordinates of it, r dimensions of a subspace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, MultiKrum

from headwater.compression.errors import SettingsError
from headwater.server.federation.averaging import Aggregator, Contribution, average, in_order, regions
from headwater.server.federation.plain import arrays_of, reply

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rule = Callable[["NDArray[np.float32]", "NDArray[np.float64]", Sequence[int]], "NDArray[np.float32]"]
"""Changes [n, k], weights [n] and node ids [n] -> the change [k]."""

_ROUNDS = 12  # of reweighting: the subspace moves by less than 1e-3 after six in all that was tried
_FLOOR = 1e-6  # of a residual, as its inverse is the weight


@dataclass(frozen=True)
class Regional:
    """An aggregator that gives every region to a rule."""

    rule: Rule
    quorum: int = 3
    """Fewest devices that may decide."""

    def __call__(
        self, contributions: Sequence[Contribution], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, NDArray[np.float32]]:
        """Aggregate; coordinates without a quorum do not change."""
        ordered = in_order(contributions)
        change = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        for region in regions(ordered, shapes):
            if len(region.members) >= self.quorum:
                members = [ordered[i] for i in region.members]
                weights = np.array([each.examples for each in members], np.float64)
                matrix = region.matrix(ordered, shapes)
                region.scatter(self.rule(matrix, weights, [each.node for each in members]), change)
        return change


# ---------------------------------------------------------------- Flower's


def flowers(strategy: Callable[[int], FedAvg]) -> Rule:
    """The `aggregate_train` of a strategy of Flower as a rule; `strategy` makes the one for n devices."""

    def rule(matrix: NDArray[np.float32], weights: NDArray[np.float64], nodes: Sequence[int]) -> NDArray[np.float32]:
        replies = [reply(node, row, weight) for node, row, weight in zip(nodes, matrix, weights, strict=True)]
        arrays, _ = strategy(len(nodes)).aggregate_train(0, replies)
        return arrays_of(arrays)[0].astype(np.float32)

    return rule


def _trimmed(hostile: float) -> Rule:
    return flowers(lambda n: FedTrimmedAvg(beta=min(_liars(hostile, n), (n - 1) // 2) / n + 1e-9))


def _median(_: float) -> Rule:
    return flowers(lambda _n: FedMedian())


def _krum(hostile: float) -> Rule:
    def strategy(n: int) -> FedAvg:
        liars = min(_liars(hostile, n), max(0, (n - 3) // 2))  # its proof asks for n >= 2 liars + 3
        return MultiKrum(num_malicious_nodes=liars, num_nodes_to_select=n - _liars(hostile, n))

    return flowers(strategy)


def _liars(hostile: float, n: int) -> int:
    """How many of n devices may lie, at least one."""
    return max(1, math.ceil(hostile * n - 1e-9))


# ---------------------------------------------------------------- Flag Aggregator


def flag(
    matrix: NDArray[np.float32], weights: NDArray[np.float64], nodes: Sequence[int] = (), *, pairs: float = 1.0
) -> NDArray[np.float32]:
    """Project the updates on the subspace that most of them agree on, and average.

    The subspace Y, of r = ceil((n + 1) / 2) dimensions, is the one with the least sum of `sqrt(1 - ||Y^T g||^2)` over
    the normalised updates g and, weighted by `pairs / (n - 1)`, over their normalised differences: found by iteratively
    reweighted least squares. Everything happens in the n dimensions that n updates span, so k only costs one product.

    Updates longer than the median are shortened to it before they are averaged: the subspace is blind to lengths, the
    mean is not.
    """
    del nodes
    n = len(matrix)
    gram = (matrix.astype(np.float64) @ matrix.T.astype(np.float64)).astype(np.float64)
    lengths = np.sqrt(np.maximum(np.diag(gram), 0))
    if not lengths.any():
        return np.zeros(matrix.shape[1], np.float32)
    root = _root(gram)  # [n, n]: column i stands for update i, with the same lengths and angles
    directions, importance = _directions(root, pairs)
    basis = _subspace(directions, importance, math.ceil((n + 1) / 2))
    longest = np.median(lengths[lengths > 0])
    shares = weights / weights.sum() * np.minimum(1, longest / _safe(lengths))
    mixture = np.linalg.pinv(root) @ (basis @ (basis.T @ (root @ shares)))
    return np.asarray((mixture @ matrix.astype(np.float64)).astype(np.float32))


def _root(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """A symmetric square root [n, n]."""
    values, vectors = np.linalg.eigh(gram)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def _directions(root: NDArray[np.float64], pairs: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit columns [n, n + n(n-1)/2], updates then differences, and how much each one counts."""
    n = len(root)
    one, other = np.triu_indices(n, 1)
    columns = np.concatenate([root, root[:, one] - root[:, other]], axis=1)
    lengths = np.linalg.norm(columns, axis=0)
    importance = np.concatenate([np.ones(n), np.full(len(one), pairs / max(1, n - 1))])
    return columns / _safe(lengths), np.where(lengths > 1e-9 * lengths.max(), importance, 0.0)


def _subspace(directions: NDArray[np.float64], importance: NDArray[np.float64], dimensions: int) -> NDArray[np.float64]:
    """An orthonormal basis [n, r] of the subspace; the residual's inverse is a direction's weight in the next round."""
    weights = importance
    basis = np.zeros((len(directions), 0))
    for _ in range(_ROUNDS):
        _, vectors = np.linalg.eigh((directions * weights) @ directions.T)
        basis = vectors[:, -dimensions:]
        residual = np.sqrt(np.maximum(1 - np.square(basis.T @ directions).sum(axis=0), 0))
        weights = importance / np.maximum(residual, _FLOOR)
    return basis


def _safe(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive, so that one can divide by them."""
    return np.maximum(lengths, np.finfo(np.float64).tiny)


# ---------------------------------------------------------------- by name

_RULES: Mapping[str, Callable[[float], Rule]] = {
    "trimmed": _trimmed,
    "median": _median,
    "krum": _krum,
    "flag": lambda _: flag,
}
NAMES = ("mean", *_RULES)
COORDINATEWISE = frozenset({"trimmed", "median"})
"""Those that take coordinates one by one: where most devices send nothing of a coordinate, its median is nothing."""


def aggregator(name: str, hostile: float = 1 / 3) -> Aggregator:
    """The aggregator of a name; `hostile` is the share of devices that may lie, which all but flag and median use.

    Raises:
        SettingsError: there is none of that name, or the share cannot be outvoted.
    """
    if name not in NAMES:
        raise SettingsError(f"there is no aggregator {name!r}; choose from {', '.join(NAMES)}")
    if not 0 <= hostile < 0.5:
        raise SettingsError(f"the share of hostile devices is {hostile}; it has to be below a half to be outvoted")
    return average if name == "mean" else Regional(_RULES[name](hostile))
