"""Matrices of an update as products of few vectors: what is left of them when only their strongest components are sent.

What a layer learns in a round is a sum of few products of a vector of its outputs by one of its inputs, so most of its
energy lies in few of its singular components (PowerSGD, Vogels 2019, arXiv:1905.13727). A component is a left vector
[rows] and a right one [columns], and costs their lengths, where its matrix would cost the product.

All of an update has one step D, as small as its share of numbers allows, so that an error costs the same wherever it
is: a vector is scaled by its singular value before it is rounded, so that strong components are sent finer than weak
ones, and those that are not worth their bytes are left out. A matrix is decoded as

    the sum over its components of  D * left / |left| * right

in float64 and in this order, so that every machine has the same bits.

Letters: r components, n coordinates of all arrays together, T arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.updates import flat, steps
from headwater.compression.updates.quantise import LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwater.compression.updates.layout import Layout

    Live = NDArray[np.uint8] | None

MOST = 64
"""Components of a matrix at most."""
FEWEST = 2
"""Arrays of which fewer could be sent are sent as they are."""
WORTH = 0.2
"""Energy of a component, in squared steps for each number that it costs, below which it is left out. Of 0.1 to 1.2
this had the least error at the same bytes on devices' updates of the solar model, by some percent."""
_FILLS = (1, 2, 4, 8)
"""With how many components, pass after pass, what a mask leaves out of a matrix is filled in."""
_BLOCK = 1 << 15
"""Coordinates that are decoded together: what a processor's cache holds, and no large array of float64 arises."""


def components(shape: tuple[int, ...]) -> int:
    """How many components of an array there is room for; 0 for one that is sent as it is.

    At most half of its shorter side: then they are never more numbers than the array has itself.
    """
    most = min(*_matrix(shape), 2 * MOST) // 2
    return most if most >= FEWEST else 0


def sides(layout: Layout, alphabet: int) -> NDArray[np.uint32]:
    """Rows, columns and alphabet of what is coded, uint32 [.., 3]: of a matrix left and right, a row a component."""
    found: list[tuple[int, int, int]] = []
    for shape, side in zip(layout.shapes.values(), flat.sides(layout, alphabet).tolist(), strict=True):
        count = components(shape)
        found += [(count, each, alphabet) for each in _matrix(shape)] if count else [side]
    return np.array(found, np.uint32).reshape(-1, 3)


def alive(layout: Layout, live: Live) -> Live:
    """1 for what is coded, uint8: all of a matrix's vectors, whatever is live of it."""
    if live is None:
        return None
    parts = zip(layout.shapes.values(), flat.cut(live, layout), strict=True)
    return np.concatenate([np.ones(_numbers(shape), np.uint8) if components(shape) else part for shape, part in parts])


def cut(integers: NDArray[np.int8], layout: Layout) -> list[NDArray[np.int8]]:
    """What is coded of each array [T], as views; a matrix's is its left vectors, then its right ones."""
    return np.split(integers, np.cumsum([_numbers(shape) for shape in layout.shapes.values()])[:-1])


def scaled(
    parts: Sequence[NDArray[np.int8]], sizes: NDArray[np.float32], layout: Layout, live: Live
) -> NDArray[np.float32]:
    """Decode: from what is coded of each array [T] and its step [T] to all coordinates, float32 [n]."""
    arrays = [
        _decoded(part, size, shape) for part, size, shape in zip(parts, sizes, layout.shapes.values(), strict=True)
    ]
    found = np.concatenate(arrays)
    if live is not None:
        found[live == 0] = 0
    return found


def quantise(
    values: NDArray[np.float32], layout: Layout, keep: float, live: Live
) -> tuple[int, NDArray[np.int8], list[NDArray[np.int8]]]:
    """Find steps and integers.

    Args:
        values: float32 [n], 0 where they are not live.
        layout: of the arrays.
        keep: numbers other than 0 that are sent, at most, as a share of the live coordinates; if that is too few for
            anything, what is sent is the least that there is.
        live: uint8 [n], 0 for coordinates that both ends know to be 0; None: nowhere.

    Returns:
        The largest step and the others' differences [T] as `steps.pack` has them, and what is coded of each array.
    """
    shapes, parts = layout.shapes.values(), flat.cut(values, layout)
    lives = flat.cut(np.ones(values.size, np.uint8) if live is None else live, layout)
    arrays = [_Array.of(*each) for each in zip(parts, shapes, lives, strict=True)]
    room = keep * (values.size if live is None else np.count_nonzero(live))
    code = _finest(arrays, room)
    codes = [each.code(code) for each in arrays]
    integers = [each.integers(own) for each, own in zip(arrays, codes, strict=True)]
    for each, part, own, found, there in zip(arrays, parts, codes, integers, lives, strict=True):
        if each.count and not _nearer(part, _decoded(found, steps.value(own), each.shape) * there):
            found[:] = 0  # rounded so coarsely, or so little of it live, that it would only do harm
    return *steps.pack(codes), integers


def _finest(arrays: Sequence[_Array], room: float) -> int:
    """Code of the smallest step with which no more numbers are sent than there is room for, but anything at all."""
    low, high = steps.LOWEST, steps.HIGHEST
    while low < high:
        middle = (low + high) // 2
        if sum(each.sent(middle) for each in arrays) <= room:
            high = middle
        else:
            low = middle + 1
    while low > steps.LOWEST and not any(each.sent(low) for each in arrays):
        low -= 1
    return low


@dataclass(frozen=True)
class _Array:
    """One array of an update, and its components if it is a matrix."""

    values: NDArray[np.float32]
    """[rows, columns], filled in where they are not live."""
    shape: tuple[int, ...]
    left: NDArray[np.float64]
    """Unit vectors times their singular values, strongest first [r, rows]; of what is no matrix, its values [1, n]."""
    right: NDArray[np.float64]
    """The same [r, columns]; [1, 0]."""
    worth: NDArray[np.float64]
    """Largest square of a step at which a component is worth its bytes [r]."""

    @classmethod
    def of(cls, part: NDArray[np.float32], shape: tuple[int, ...], live: NDArray[np.uint8]) -> _Array:
        """Find the components of an array [n], where it is live."""
        count, values = components(shape), part.reshape(_matrix(shape))
        if not count:
            return cls(values, shape, part[None].astype(np.float64), np.zeros((1, 0)), np.full(1, np.inf))
        if not live.all():
            values = _filled(values, live.reshape(values.shape).view(np.bool_), count)
        left, right = _strongest(values.astype(np.float64), count)
        return cls(values, shape, left, right, np.square(left).sum(1) / (WORTH * sum(values.shape)))

    @property
    def count(self) -> int:
        """Of components; 0 if this array is sent as it is."""
        return components(self.shape)

    def sent(self, code: int) -> int:
        """How many numbers other than 0 a step leaves."""
        step = float(steps.value(code))
        chosen = int(np.count_nonzero(self.worth >= step * step))
        return sum(int(np.count_nonzero(np.abs(each[:chosen]) > step / 2)) for each in (self.left, self.right))

    def code(self, code: int) -> int:
        """The step of this array: the update's, or larger, so that its largest number has an integer."""
        largest = max(float(np.abs(each).max(initial=0)) for each in (self.left, self.right))
        return max(code, steps.above(largest / LEVELS)) if largest else code

    def integers(self, code: int) -> NDArray[np.int8]:
        """What is coded, with a step."""
        step = float(steps.value(code))
        left = _rounded(self.left, step)
        if not self.count:
            return left.ravel()
        left[self.worth < step * step] = 0
        right = np.zeros(self.right.shape, np.int8)
        there = left.any(1)
        if there.any():
            # the right vectors that go with the left ones as they were rounded
            units = left[there] / np.linalg.norm(left[there].astype(np.float64), axis=1, keepdims=True)
            right[there] = _rounded(np.linalg.lstsq(units.T, self.values.astype(np.float64), rcond=None)[0], step)
        left[~right.any(1)] = 0
        return np.concatenate([left.ravel(), right.ravel()])


def _strongest(matrix: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Left [count, rows] and right [count, columns] vectors of the strongest components, times singular values."""
    if matrix.shape[0] > matrix.shape[1]:
        right, left = _strongest(matrix.T, count)
        return left, right
    energies, vectors = np.linalg.eigh(matrix @ matrix.T)  # a fraction of a singular value decomposition's time
    units = vectors[:, ::-1][:, :count].T
    units = units * np.sign(units[np.arange(count), np.abs(units).argmax(1)])[:, None]  # the same sign on all machines
    return units * np.sqrt(np.maximum(energies[::-1][:count], 0))[:, None], units @ matrix


def _filled(values: NDArray[np.float32], live: NDArray[np.bool_], most: int) -> NDArray[np.float32]:
    """The matrix with that in its holes which fewest components make: nobody looks there, and zeros would cost many.

    Its own strongest components fill them, over and over, more of them each time (after Mazumder 2010, "Spectral
    regularization algorithms for learning large incomplete matrices").
    """
    found = values.astype(np.float64)
    for count in _FILLS:
        left, right = _strongest(found, min(count, most))
        lengths = np.maximum(np.square(left).sum(1), np.finfo(np.float64).tiny)
        found = np.where(live, values, (left.T / np.sqrt(lengths)) @ right)
    return found.astype(np.float32)


def _decoded(part: NDArray[np.int8], step: np.float32, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One array [rows * columns] of what is coded of it, within float32's range."""
    count, (rows, columns) = components(shape), _matrix(shape)
    if not count:
        return _narrow(part.astype(np.float64) * np.float64(step))
    lefts = part[: count * rows].reshape(count, rows).astype(np.float64)
    rights = part[count * rows :].reshape(count, columns).astype(np.float64)
    lengths = np.sqrt(np.square(lefts).sum(1))  # of whole numbers: exact in any order
    there = lengths > 0
    lefts, rights = lefts[there] * np.float64(step) / lengths[there, None], rights[there]
    found, high = np.empty((rows, columns), np.float32), max(1, _BLOCK // columns)
    for begin in range(0, rows, high):
        block = np.zeros((min(high, rows - begin), columns))
        for left, right in zip(lefts[:, begin : begin + high], rights, strict=True):
            block += np.multiply.outer(left, right)
        found[begin : begin + high] = _narrow(block)
    return found.ravel()


def _narrow(values: NDArray[np.float64]) -> NDArray[np.float32]:
    largest = float(np.finfo(np.float32).max)
    return np.clip(values, -largest, largest).astype(np.float32)


def _rounded(values: NDArray[np.float64], step: float) -> NDArray[np.int8]:
    integers: NDArray[np.int8] = np.clip(np.rint(values / step), -LEVELS, LEVELS).astype(np.int8)
    return integers


def _nearer(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> bool:
    """Whether what is decoded is nearer to what was to be sent than nothing is."""
    wide = wanted.astype(np.float64)
    return bool(np.square(wide - found).sum() < np.square(wide).sum())


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns: of two dimensions and more, the first and all others."""
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (1, prod(shape))


def _numbers(shape: tuple[int, ...]) -> int:
    """How many integers are coded of an array."""
    return components(shape) * sum(_matrix(shape)) or prod(shape)
