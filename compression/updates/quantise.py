"""From an update's floats to what is coded of them: which coordinates, and which integers of which step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.updates import steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwater.compression.updates.scheme import Values

    Floats = NDArray[np.float32]

LEVELS = 127
"""int8's largest integer; the smallest is its negative."""


def largest(values: Floats, count: int) -> NDArray[np.bool_]:
    """Mark the `count` values [n] of largest magnitude; of equal ones the first. Zeros are never marked."""
    magnitudes = np.abs(values)
    if count >= magnitudes.size:
        return np.asarray(magnitudes > 0)
    magnitudes.partition(magnitudes.size - count)  # in place: a second copy is memory that a device may not have
    threshold = magnitudes[magnitudes.size - count].copy()
    np.abs(values, out=magnitudes)
    if threshold == 0:
        return np.asarray(magnitudes > 0)
    chosen = magnitudes > threshold
    chosen[np.flatnonzero(magnitudes == threshold)[: count - np.count_nonzero(chosen)]] = True
    return np.asarray(chosen)


def step_of(part: Floats, values: Values, live: int) -> int | None:
    """Code of the step for one array [n], some of it live; None if it is all zeros. A mean is over what is sent."""
    magnitudes = np.abs(part[part != 0])
    if not magnitudes.size:
        return None
    if values == "int8":
        return steps.above(float(magnitudes.max()) / LEVELS)
    sent = live if values == "sign" else magnitudes.size
    return steps.nearest(float(magnitudes.sum(dtype=np.float64)) / sent)


def quantise(
    parts: Sequence[Floats], values: Values, live: Sequence[NDArray[np.uint8]] | None = None
) -> tuple[int, NDArray[np.int8], list[NDArray[np.int8]]]:
    """Find steps and integers.

    Args:
        parts: the arrays [T], each [n]; 0 where they are not live.
        values: what becomes of their values.
        live: [T], each [n], 0 where nothing is sent; None: nowhere.

    Returns:
        The largest step and the others' differences [T] as `steps.pack` has them, and the integers of each array. An
        array of zeros has zeros; with sign it has a step of 0. So has one whose step is too small beside the largest.
    """
    counts = [part.size if live is None else int(np.count_nonzero(live[i])) for i, part in enumerate(parts)]
    codes = [step_of(part, values, count) for part, count in zip(parts, counts, strict=True)]
    top = max((code for code in codes if code is not None), default=0)
    codes = [None if code is None or top - code >= steps.NONE else code for code in codes]
    integers = [_integers(part, code, values) for part, code in zip(parts, codes, strict=True)]
    for i, alive in enumerate(live or ()):
        integers[i][alive == 0] = 0
    return *steps.pack(codes if values == "sign" else _filled(codes, top)), integers


def _integers(part: Floats, code: int | None, values: Values) -> NDArray[np.int8]:
    if values == "sign":
        return np.where(part < 0, -1, 1).astype(np.int8)
    if code is None:
        return np.zeros(part.size, np.int8)
    if values == "ternary":
        return np.sign(part).astype(np.int8)
    levels: NDArray[np.int8] = np.clip(np.rint(part / steps.value(code)), -LEVELS, LEVELS).astype(np.int8)
    return levels


def _filled(codes: Sequence[int | None], top: int) -> list[int | None]:
    """Where an array is all zeros, the step of the one before: to repeat it costs least."""
    filled: list[int | None] = []
    for code in codes:
        filled.append(code if code is not None else filled[-1] if filled else top)
    return filled
