"""Made-up updates of devices that trained nested parts of a small network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwater.server.federation.averaging import Contribution, Place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.float32]]

SHAPES = {"a": (4, 6), "b": (4,), "c": (3, 4)}
PLACES: dict[float, dict[str, Place]] = {
    1.0: {"a": (), "b": (), "c": ()},
    0.5: {"a": (slice(0, 2), slice(0, 3)), "b": (slice(0, 2),), "c": (slice(0, 3), slice(0, 2))},
    0.25: {"a": (slice(0, 1), slice(0, 2)), "b": (slice(0, 1),)},
}


def of(node: int, values: Arrays, width: float = 1.0, examples: float = 10) -> Contribution:
    """A contribution of full-size arrays, of which the width's blocks count."""
    places = PLACES[width]
    delta = {name: np.ascontiguousarray(values[name][place]) for name, place in places.items()}
    return Contribution(node, f"device-{node}", examples, delta, places, width)


def like(rng: np.random.Generator, truth: Arrays, noise: float) -> Arrays:
    return {name: (array + rng.normal(0, noise, array.shape)).astype(np.float32) for name, array in truth.items()}


def truth(rng: np.random.Generator) -> Arrays:
    return {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in SHAPES.items()}


def covered(width: float) -> dict[str, NDArray[np.bool_]]:
    """Which coordinates a width trains."""
    masks = {name: np.zeros(shape, np.bool_) for name, shape in SHAPES.items()}
    for name, place in PLACES[width].items():
        masks[name][place] = True
    return masks
