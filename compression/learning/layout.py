"""Which arrays a network trains, and which part of each the sub-network of a narrower width uses.

A device that trains width w trains every width up to w, so that the sub-network of w holds the norms of those widths,
and the gains, densities and decoder's rows of their modes. The tail is not slimmed: it is all there at every width, or,
where only the head is trained (``part="head"``), not there at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from headwater.compression.errors import LearningError
from headwater.compression.slimmable import norm_key
from headwater.compression.updates.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from headwater.compression.learning.network import SplitNetwork

Part = Literal["all", "head"]
PARTS: tuple[Part, ...] = get_args(Part)
SLIMMED = ("head.", "exit.")
"""What has norms for each width; a tail has one for all."""
HEAD_PARTS = ("head", "gains", "prior", "exit")
"""What is trained where the tail does not fit: the exit gives the loss, decoder and tails stay as they are."""


def part_of(text: str) -> Part:
    """The part of this name; raises :class:`LearningError` for another."""
    for part in PARTS:
        if part == text:
            return part
    raise LearningError(f"a part of the network is called {text!r}; want one of {', '.join(PARTS)}")


def belongs(name: str, part: Part) -> bool:
    """Whether an array is trained with a part."""
    return part == "all" or name.split(".", 1)[0] in HEAD_PARTS


def layout_of(network: SplitNetwork, part: Part = "all") -> Layout:
    """The layout of the arrays that a part trains."""
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters() if belongs(name, part)}
    slices = {width: _slices(network, width, shapes) for width in network.widths if width < 1}
    return Layout(shapes, slices)


def cut_masks(layout: Layout, masks: Mapping[str, NDArray[np.bool_]], width: float) -> dict[str, NDArray[np.bool_]]:
    """The masks of the sub-network of a width; those of arrays that are not in the layout are left out."""
    places = layout.slices.get(width, {})
    return {name: masks[name][places.get(name, ())] for name in layout.at(width).shapes if name in masks}


def _slices(network: SplitNetwork, width: float, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[slice, ...]]:
    modes = slice((network.widths.index(width) + 1) * network.steps)
    by_mode = {name: (modes,) for name in shapes if name.startswith(("gains.", "prior."))}
    by_mode |= {f"decoder.{name}": (modes,) for name in ("scale", "shift")}
    own = {**by_mode, **dict(_head_slices(network, width))}
    wider = {f".norms.{norm_key(each)}." for each in network.widths if each > width}
    unused = {name for name in shapes if name.startswith(SLIMMED) and any(norm in name for norm in wider)}
    return {name: own.get(name, (slice(None),)) for name in shapes if name not in unused}


def _head_slices(network: SplitNetwork, width: float) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Of the head's weights, all but the bottleneck's."""
    head = network.head
    before = head.stem_channels(width)
    yield _weight("stem", None, before)
    for index, block in enumerate(head.inverted_residuals()):
        name = f"blocks.{index}"
        hidden = block.hidden_at(width) if block.expand is not None else before
        if block.expand is not None:
            yield _weight(f"{name}.expand", None, hidden)
        yield _weight(f"{name}.depthwise", None, hidden)
        yield _weight(f"{name}.project", hidden, None)
        before = block.project.conv.out_channels


def _weight(layer: str, inputs: int | None, outputs: int | None) -> tuple[str, tuple[slice, ...]]:
    return f"head.{layer}.conv.weight", (slice(outputs), slice(inputs))
