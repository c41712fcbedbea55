"""All arrays of an update as one flat array, and which of its coordinates are live.

Letters: n coordinates of all arrays together, T arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from headwater.compression.errors import UpdateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.updates.layout import Layout

Arrays: TypeAlias = "Mapping[str, NDArray[np.float32]]"
Mask: TypeAlias = "Mapping[str, NDArray[np.bool_]]"
_Scalar = TypeVar("_Scalar", bound=np.generic)


def join(arrays: Arrays, layout: Layout) -> NDArray[np.float32]:
    """Lay the arrays out as float32 [n], a copy; raises `UpdateError` unless they are the layout's and finite."""
    layout.check(arrays)
    if wrong := [name for name in layout.shapes if arrays[name].dtype != np.float32]:
        raise UpdateError(f"{wrong[0]} is {arrays[wrong[0]].dtype}; an update is float32")
    flat = np.concatenate([np.ravel(arrays[name]) for name in layout.shapes] or [np.zeros(0, np.float32)])
    if not np.isfinite(flat).all():
        raise UpdateError("an update has values that are not finite; look for a learning rate that is too high")
    return flat


def cut(flat: NDArray[_Scalar], layout: Layout) -> list[NDArray[_Scalar]]:
    """The part of each array, as views [T]."""
    return np.split(flat, np.cumsum([prod(shape) for shape in layout.shapes.values()])[:-1])


def shape(flat: NDArray[np.float32], layout: Layout) -> dict[str, NDArray[np.float32]]:
    """The arrays by their names, as views."""
    return {
        name: part.reshape(shape) for (name, shape), part in zip(layout.shapes.items(), cut(flat, layout), strict=True)
    }


def live(layout: Layout, mask: Mask | None) -> NDArray[np.uint8] | None:
    """1 for live coordinates, uint8 [n]; None where all are; raises `UpdateError` for a mask of other arrays."""
    if not mask:
        return None
    for name, each in mask.items():
        if name not in layout.shapes or each.shape != layout.shapes[name] or each.dtype != np.bool_:
            raise UpdateError(f"the mask of {name} is {each.dtype} {each.shape}; want bool {layout.shapes.get(name)}")
    parts = [mask[name].ravel() if name in mask else np.ones(prod(s), np.bool_) for name, s in layout.shapes.items()]
    return np.concatenate(parts).view(np.uint8)


def sides(layout: Layout, alphabet: int) -> NDArray[np.uint32]:
    """Rows, columns and alphabet of each array, uint32 [T, 3]: a row is what belongs to one output; vectors are one."""
    rows = [each[0] if len(each) > 1 else 1 for each in layout.shapes.values()]
    columns = [prod(each) // count for each, count in zip(layout.shapes.values(), rows, strict=True)]
    return np.array([[r, c, alphabet] for r, c in zip(rows, columns, strict=True)], np.uint32).reshape(-1, 3)
