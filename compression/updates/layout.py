"""Which arrays a model's update has, and which part of each a narrower sub-network uses.

Sender and receiver of an update know the model, so an update never says what shapes it has: it is read against the
layout that the receiver holds, and no byte of it decides how much memory a reader takes.

    layout = Layout({"conv": (8, 4), "head": (2, 8)}, {0.5: {"conv": np.s_[:4, :2], "head": np.s_[:, :4]}})
    narrow = layout.at(0.5)                  # shapes (4, 2) and (2, 4)
    part = layout.cut(arrays, 0.5)           # views of those slices
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from headwater.compression.errors import UpdateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", bound=np.generic)

MAX_COORDINATES = 1 << 30
"""Most coordinates that a layout may have: 4 GiB of float32."""


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a model's trainable arrays, and the slices of them that each narrower width uses."""

    shapes: Mapping[str, tuple[int, ...]]
    """Of every array; kept sorted by name, which is the order in which an update has them."""
    slices: Mapping[float, Mapping[str, tuple[slice, ...]]] = field(default_factory=dict)
    """Of each width below 1, for each name that it uses; a slice is of the leading axes, the others are whole."""

    def __post_init__(self) -> None:
        """Sort by name, and check that every slice is one of a known array; raises ValueError."""
        object.__setattr__(self, "shapes", {name: tuple(self.shapes[name]) for name in sorted(self.shapes)})
        if any(side < 1 for shape in self.shapes.values() for side in shape) or self.size > MAX_COORDINATES:
            raise ValueError(f"shapes are {dict(self.shapes)}; want sides of 1 or more, {MAX_COORDINATES} in all")
        for width, slices in self.slices.items():
            if not 0 < width < 1:
                raise ValueError(f"slices are given for width {width}; want widths above 0 and below 1")
            for name, each in slices.items():
                if name not in self.shapes or len(each) > len(self.shapes[name]):
                    raise ValueError(f"width {width} slices {name} as {each}; the array is {self.shapes.get(name)}")

    @cached_property
    def size(self) -> int:
        """Coordinates of all arrays together."""
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def widths(self) -> tuple[float, ...]:
        """Every width that there is, rising; the last is 1."""
        return (*sorted(self.slices), 1.0)

    def at(self, width: float) -> Layout:
        """The layout of the sub-network of a width; raises `UpdateError` for one that there is not."""
        slices = self._slices(width)
        return self if slices is None else Layout({n: _sliced(self.shapes[n], each) for n, each in slices.items()})

    def cut(self, arrays: Mapping[str, NDArray[_Scalar]], width: float) -> dict[str, NDArray[_Scalar]]:
        """The parts of full-width arrays that a width uses, as views: what is written to them is written to the arrays.

        Raises:
            UpdateError: for a width that there is not, or an array that is missing or of another shape.
        """
        slices = self._slices(width)
        self.check(arrays)
        if slices is None:
            return {name: arrays[name] for name in self.shapes}
        return {name: arrays[name][each] for name, each in sorted(slices.items())}

    def check(self, arrays: Mapping[str, NDArray[_Scalar]]) -> None:
        """Raise `UpdateError` unless the arrays are those of this layout, each of its shape."""
        if arrays.keys() != self.shapes.keys():
            lacks, has = sorted(self.shapes.keys() - arrays.keys()), sorted(arrays.keys() - self.shapes.keys())
            raise UpdateError(f"arrays lack {lacks or 'nothing'} and have {has or 'nothing'} that the model does not")
        for name, shape in self.shapes.items():
            if arrays[name].shape != shape:
                raise UpdateError(f"{name} has shape {arrays[name].shape}; the model's has {shape}")

    def _slices(self, width: float) -> Mapping[str, tuple[slice, ...]] | None:
        """None for the full width."""
        if width == 1.0:
            return None
        if width not in self.slices:
            raise UpdateError(f"there is no sub-network of width {width}; there are {self.widths}")
        return self.slices[width]


def _sliced(shape: tuple[int, ...], slices: tuple[slice, ...]) -> tuple[int, ...]:
    cut = (len(range(*each.indices(side))) for each, side in zip(slices, shape, strict=False))
    return (*cut, *shape[len(slices) :])
