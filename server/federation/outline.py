"""The network as rounds see it: its arrays' shapes, which block of them a width trains, which names a part has.

Nothing here knows layers, so that rounds can be tried with any dictionary of arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.updates import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Outline:
    """Shapes, widths and parts."""

    layout: Layout
    parts: Mapping[str, frozenset[str]]
    """The names that each part trains; "all" among them."""

    @classmethod
    def of(cls, layout: Layout, heads: frozenset[str] = frozenset()) -> Outline:
        """An outline with the part "all", and "head" if there are names for it."""
        parts = {"all": frozenset(layout.shapes)} | ({"head": heads} if heads else {})
        return cls(layout, parts)

    @cached_property
    def widths(self) -> tuple[float, ...]:
        """All widths, the widest last."""
        return (*sorted(self.layout.slices), 1.0)

    def block(self, width: float, part: str) -> Layout:
        """The layout of what a device trains at this width and part."""
        inside = self.layout.at(width)
        return Layout({name: shape for name, shape in inside.shapes.items() if name in self.parts[part]}, {})

    def cut_masks(
        self, masks: Mapping[str, NDArray[np.bool_]] | None, width: float, part: str
    ) -> dict[str, NDArray[np.bool_]] | None:
        """The masks of that block; None for none."""
        if masks is None:
            return None
        names = self.block(width, part).shapes
        places: Mapping[str, Any] = self.layout.slices[width] if width < 1 else {}
        return {name: mask[places.get(name, ())] for name, mask in masks.items() if name in names}
