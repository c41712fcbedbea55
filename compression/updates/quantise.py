"""From an update's float values to what is coded of them: which coordinates, and which integers.

All arrays of an update lie one after the other in one flat array [n], in the layout's order: the largest coordinates
are chosen among all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.updates import steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.updates.scheme import Values

    Floats = NDArray[np.float32]

LEVELS = 127
"""int8's largest integer, and the smallest is its negative."""


def largest(values: Floats, count: int) -> NDArray[np.bool_]:
    """Mark the `count` values [n] of largest magnitude; of equal ones the first. Zeros are never marked."""
    magnitudes = np.abs(values)
    if count >= magnitudes.size:
        return np.asarray(magnitudes > 0)
    threshold = np.partition(magnitudes, magnitudes.size - count)[magnitudes.size - count]
    chosen = magnitudes > max(threshold, 0)
    if threshold > 0:
        chosen[np.flatnonzero(magnitudes == threshold)[: count - int(chosen.sum())]] = True
    return np.asarray(chosen)


def quantise(part: Floats, values: Values) -> tuple[int | None, NDArray[np.int8]]:
    """One array's step, or None where nothing of it is sent, and its integers [n], 0 where nothing is."""
    there = np.abs(part[part != 0])
    if not there.size:
        return None, np.zeros(part.size, np.int8)
    return _QUANTISE[values](part, there)


def _ternary(part: Floats, there: Floats) -> tuple[int, NDArray[np.int8]]:
    return steps.nearest(float(there.mean(dtype=np.float64))), np.sign(part).astype(np.int8)


def _sign(part: Floats, there: Floats) -> tuple[int, NDArray[np.int8]]:
    mean = float(there.sum(dtype=np.float64) / part.size)
    return steps.nearest(mean), np.where(part < 0, -1, 1).astype(np.int8)


def _int8(part: Floats, there: Floats) -> tuple[int, NDArray[np.int8]]:
    code = steps.above(float(there.max()) / LEVELS)
    return code, np.clip(np.rint(part / steps.value(code)), -LEVELS, LEVELS).astype(np.int8)


_QUANTISE: dict[str, Callable[[Floats, Floats], tuple[int, NDArray[np.int8]]]] = {
    "ternary": _ternary,
    "sign": _sign,
    "int8": _int8,
}
