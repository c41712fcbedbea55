"""Channels that can be taken out of a network, and taking them out: what is left is a smaller network of the same kind.

A *unit* is a set of channels that nothing but its own layers knows of:

    a block with expansion     expand -> [channels] -> depthwise -> [channels] -> project
    the first block, without     stem -> [channels] -> depthwise -> [channels] -> project
    the top of a tail             top -> [channels] -> mean -> classify

Widths stay nested. The channels of a width are a prefix of those of the next, and the layers' scale and shift of a
width were learnt for its prefix only. So the new prefix of every width is chosen from the old one, narrowest first:
:func:`choose` fills the narrowest with its best channels, the next with the best of what that adds, and so on.
Counts are multiples of 8, as at every width: a CPU takes as long for 33 channels as for 40.

Works on networks whose norms are frozen. Legend: C channels of a unit, O outputs of the layer that reads them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from headwater.compression.errors import LearningError
from headwater.compression.slimmable import CHANNEL_MULTIPLE, Affine, ConvNorm, InvertedResidual, channels_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.compression.learning.network import SplitNetwork


@dataclass(frozen=True)
class Unit:
    """Channels that can be taken out, by the layers that know of them."""

    name: str
    """That of the block or of the top in the network: ``head.blocks.2``, ``tails.0.top``."""
    makes: ConvNorm
    """Gives the channels."""
    filters: ConvNorm | None
    """Works on each of them."""
    reads: ConvNorm | nn.Linear
    """Mixes them."""
    whole: nn.Module
    """Its output is what the channels contribute to."""
    widths: tuple[float, ...]
    """Those at which the unit runs, ascending."""

    @property
    def channels(self) -> int:
        """C at the full width."""
        return self.makes.conv.out_channels

    @property
    def gives(self) -> ConvNorm:
        """The last layer before :attr:`reads`."""
        return self.filters or self.makes

    def channels_at(self, width: float) -> int:
        """Channels that a width uses."""
        return channels_at(self.channels, width)

    @property
    def reading_name(self) -> str:
        """The name of the array that :meth:`reading` shows, in ``named_parameters``; channels are its second axis."""
        if isinstance(self.reads, nn.Linear):
            return f"{self.name.rpartition('.')[0]}.classify.weight"
        return f"{self.name}.project.conv.weight"

    def reading(self) -> torch.Tensor:
        """What each channel is multiplied by where it is read: [O, C]."""
        weight = self.reads.conv.weight if isinstance(self.reads, ConvNorm) else self.reads.weight
        return weight.detach().reshape(len(weight), -1)

    def counts(self) -> list[int]:
        """All numbers of channels that it could have, ascending: multiples of 8 and what it has."""
        return sorted({*range(CHANNEL_MULTIPLE, self.channels, CHANNEL_MULTIPLE), self.channels})


def units_of(network: SplitNetwork) -> dict[str, Unit]:
    """Every unit of a network, by name; the head's first."""
    found = list(_head_units(network))
    for index, tail in enumerate(network.typed_tails()):
        for place, block in enumerate(tail.typed_blocks()):
            found.append(_unit(f"tails.{index}.blocks.{place}", block, _made_by(block), (1.0,)))
        found.append(Unit(f"tails.{index}.top", tail.top, None, tail.classify, tail.classify, (1.0,)))
    return {unit.name: unit for unit in found}


def _head_units(network: SplitNetwork) -> Iterator[Unit]:
    head = network.head
    for place, block in enumerate(head.inverted_residuals()):
        makes = head.stem if place == 0 and block.expand is None else _made_by(block)
        yield _unit(f"head.blocks.{place}", block, makes, head.widths)


def _made_by(block: InvertedResidual) -> ConvNorm:
    if block.expand is None:
        raise LearningError("a block without an expansion that is not the network's first cannot be pruned")
    return block.expand


def _unit(name: str, block: InvertedResidual, makes: ConvNorm, widths: tuple[float, ...]) -> Unit:
    return Unit(name, makes, block.depthwise, block.project, block, widths)


# ---------------------------------------------------------------- choosing


def choose(scores: NDArray[np.float32], count: int, widths: Sequence[float]) -> NDArray[np.intp]:
    """The ``count`` channels that stay, in their new order, so that the prefix of each width comes from its old one.

    Args:
        scores: importance of each channel, [C].
        count: of channels that stay, at most C.
        widths: at which the unit runs, ascending.
    """
    C = len(scores)
    chosen = np.empty(0, np.intp)
    for width in widths:
        old, new = channels_at(C, width), channels_at(count, width)
        free = np.setdiff1d(np.arange(old), chosen)
        best = free[np.argsort(-scores[free], kind="stable")[: max(0, new - len(chosen))]]
        chosen = np.concatenate([chosen, np.sort(best)])
    return chosen


def worth(scores: NDArray[np.float32], counts: Sequence[int], widths: Sequence[float]) -> list[float]:
    """Importance that is left with each of ``counts`` channels."""
    return [float(scores[choose(scores, count, widths)].sum()) for count in counts]


# ---------------------------------------------------------------- removing


def removed(network: SplitNetwork, kept: Mapping[str, NDArray[np.intp]]) -> SplitNetwork:
    """A copy of a frozen network with only the channels ``kept`` of each unit named, in that order.

    Raises :class:`LearningError` for a unit that the network has not, or channels that would leave a width without
    what it has learnt.
    """
    made = copy.deepcopy(network)
    units = units_of(made)
    for name, channels in kept.items():
        if name not in units:
            raise LearningError(f"the network has no unit {name!r}; it has {', '.join(units)}")
        _check(units[name], channels)
        _remove(units[name], torch.from_numpy(np.asarray(channels, np.int64)))
    return made


def _check(unit: Unit, kept: NDArray[np.intp]) -> None:
    if not len(kept) or len(set(kept.tolist())) < len(kept) or kept.min() < 0 or kept.max() >= unit.channels:
        raise LearningError(f"{unit.name} has {unit.channels} channels; it cannot keep {kept.tolist()[:8]}...")
    for width in unit.widths:
        prefix = kept[: channels_at(len(kept), width)]
        if prefix.max() >= unit.channels_at(width):
            raise LearningError(
                f"{unit.name} at width {width:g} uses its first {unit.channels_at(width)} channels; channel "
                f"{prefix.max()} cannot become one of them: take the channels that choose() gives"
            )


@torch.no_grad()
def _remove(unit: Unit, kept: torch.Tensor) -> None:
    _keep_outputs(unit.makes, kept)
    if unit.filters is not None:
        _keep_outputs(unit.filters, kept)
        conv = unit.filters.conv
        conv.in_channels = conv.groups = len(kept)
    reads = unit.reads
    if isinstance(reads, nn.Linear):
        reads.weight = nn.Parameter(reads.weight[:, kept].clone())
        reads.in_features = len(kept)
    else:
        reads.conv.weight = _parameter(reads.conv.weight[:, kept])
        reads.conv.in_channels = len(kept)


def _keep_outputs(layer: ConvNorm, kept: torch.Tensor) -> None:
    layer.conv.weight = _parameter(layer.conv.weight[kept])
    layer.conv.out_channels = len(kept)
    norms = {}
    for width in layer.widths:
        scale, shift = layer.norm_factors(width)
        channels = kept[: channels_at(len(kept), width)]
        norms[width] = norm = Affine(len(channels), scale=len(layer.widths) > 1)
        norm.shift.copy_(shift[channels])
        if norm.scale is not None:
            norm.scale.copy_(scale[channels])
    layer.set_norms(norms)


def _parameter(weight: torch.Tensor) -> nn.Parameter:
    # As the whole network is laid out: see channels_last.
    return nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
