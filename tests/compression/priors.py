"""Priors and latents for the coder's tests. Letters: M modes, C channels, n symbols of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.coder import Coder, Implementation
from headwater.compression.tables import PriorTables

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def laplace(scale: float, reach: int) -> NDArray[np.float64]:
    """Weights [2 * reach + 2] of a rounded Laplace variable, -reach .. reach, and 0 for ESCAPE."""
    edges = np.arange(-reach, reach + 2) - 0.5
    below = np.where(edges < 0, 0.5 * np.exp(-np.abs(edges) / scale), 1 - 0.5 * np.exp(-np.abs(edges) / scale))
    return np.append(np.diff(below), 0.0)


@dataclass(frozen=True)
class Prior:
    """Tables with the latent's sides and the float weights that they were made of."""

    tables: PriorTables
    height: int
    width: int
    weights: list[list[NDArray[np.float64]]]
    """[M][C_w][n + 1], ESCAPE's last."""
    low: list[list[int]]

    def coder(self, implementation: Implementation) -> Coder:
        return Coder(self.tables, self.height, self.width, implementation=implementation)

    def draw(self, rng: np.random.Generator, mode: int) -> NDArray[np.int16]:
        """Symbols int16 [C_w, H, W] as the weights have them; where ESCAPE is drawn, any int16."""
        planes = [self._plane(rng, w, low) for w, low in zip(self.weights[mode], self.low[mode], strict=True)]
        return np.stack(planes).astype(np.int16)

    def _plane(self, rng: np.random.Generator, weights: NDArray[np.float64], low: int) -> NDArray[np.int64]:
        index = rng.choice(weights.size, p=weights / weights.sum(), size=(self.height, self.width))
        wild = rng.integers(-32768, 32768, index.shape)
        return np.where(index == weights.size - 1, wild, index + low)


def random_prior(rng: np.random.Generator, lanes: tuple[int, ...] = (1, 2)) -> Prior:
    """Tables of any kind that a bundle may hold: narrow modes, odd sides, tables from flat to nearly certain."""
    channels, modes = int(rng.integers(1, 7)), int(rng.integers(1, 4))
    height, width = (int(side) for side in rng.integers(1, 8, 2))
    widths = [int(rng.integers(1, channels + 1)) for _ in range(modes)]
    weights = [[_any_weights(rng) for _ in range(count)] for count in widths]
    low = [[int(rng.integers(-30, 10)) for _ in range(count)] for count in widths]
    inner = rng.choice(np.arange(1, channels), int(rng.integers(0, channels)), replace=False)
    tables = PriorTables.from_counts(
        weights,
        low,
        np.ones((modes, channels)),
        rng.uniform(0.1, 2, (modes, channels)),
        [*sorted(inner.tolist()), channels],
        plane=height * width,
    )
    return Prior(with_lanes(tables, *rng.choice(lanes, modes)), height, width, weights, low)


def _any_weights(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.dirichlet(np.full(int(rng.integers(2, 60)), 10 ** rng.uniform(-2, 1)))


def laplace_prior(
    scales: list[float], height: int, width: int, group_ends: list[int], *, reach: int = 30, lanes: int | None = None
) -> Prior:
    """One mode, a channel a scale."""
    weights, low = [[laplace(scale, reach) for scale in scales]], [[-reach] * len(scales)]
    ones = np.ones((1, len(scales)))
    tables = PriorTables.from_counts(weights, low, ones, ones / 4, group_ends, plane=height * width)
    return Prior(tables if lanes is None else with_lanes(tables, lanes), height, width, weights, low)


def with_lanes(tables: PriorTables, *lanes: int) -> PriorTables:
    return PriorTables.from_arrays({**tables.arrays(), "lanes": np.array(lanes, np.uint8)})


def with_value(index: int, value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """A change that writes a value into an array at a flat index."""

    def change(array: NDArray[Any]) -> NDArray[Any]:
        array.flat[index] = value
        return array

    return change
