"""Updates to test with: small networks whose gradients lie in few rows and columns, as those of real ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.updates import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYOUT = Layout(
    {
        "stem": (8, 3, 3, 3),
        "norm": (8,),
        "head": (4, 24),
        "a": (1, 1),
        "deep": (3, 2, 5),
        "scale": (),
        "tall": (40, 12),
    },
    {0.5: {"stem": np.s_[:4,], "norm": np.s_[:4,], "head": np.s_[:, :12], "tall": np.s_[:20, :6]}},
)


def delta_of(layout: Layout, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Products of a vector by another, some entries of each much larger, plus noise."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in layout.shapes.items():
        rows = shape[0] if shape else 1
        product = np.outer(rng.normal(size=rows) ** 3, rng.normal(size=int(np.prod(shape)) // rows) ** 3)
        found[name] = (product + rng.normal(0, 0.01, product.shape)).astype(np.float32).reshape(shape) / 100
    return found


def mask_of(layout: Layout, seed: int = 0) -> dict[str, NDArray[np.bool_]]:
    """Half of each array with two sides and more."""
    rng = np.random.default_rng(seed)
    return {name: rng.random(shape) < 0.5 for name, shape in layout.shapes.items() if len(shape) > 1}
