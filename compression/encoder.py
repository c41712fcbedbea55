"""The head: the first blocks of the teacher, slimmable, and a convolution down to the latent.

Starting from the teacher's own blocks, with their channels sorted by importance so that a prefix holds what matters
most, costs a fifth of the bytes that a head of fresh convolutions needs for the same accuracy.

    image [B, C_in, 8H, 8W] -> stem -> blocks -> bottleneck -> latent [B, C, H, W]  (times gain, rounded: the symbols)

Legend: B batch, C latent channels, H W latent height and width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from headwater.compression.slimmable import ConvNorm, InvertedResidual, channels_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Head(nn.Module):
    """A slimmable encoder; the width is an argument of every call."""

    def __init__(
        self, stem: ConvNorm, blocks: Sequence[InvertedResidual], latent_channels: int, widths: Sequence[float]
    ) -> None:
        """Take a stem and blocks whose layers have a norm for each of ``widths``."""
        super().__init__()
        self.widths = tuple(widths)
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        features = blocks[-1].project.conv.out_channels
        self.bottleneck = nn.Conv2d(features, latent_channels, 3, padding=1)

    @property
    def latent_channels(self) -> int:
        """C, the number of channels of the latent."""
        return self.bottleneck.out_channels

    def stem_channels(self, width: float) -> int:
        """Channels of the stem at a width."""
        return channels_at(self.stem.conv.out_channels, width)

    def inverted_residuals(self) -> Iterator[InvertedResidual]:
        """The blocks, typed."""
        for block in self.blocks:
            assert isinstance(block, InvertedResidual)
            yield block

    def frozen(self) -> Head:
        """A copy of frozen layers, see :meth:`ConvNorm.frozen`."""
        blocks = [block.frozen() for block in self.inverted_residuals()]
        made = Head(self.stem.frozen(slim=True), blocks, self.latent_channels, self.widths)
        made.bottleneck.load_state_dict(self.bottleneck.state_dict())
        return made

    def forward(self, x: torch.Tensor, width: float) -> torch.Tensor:
        """Map normalised images to the latent [B, C, H, W], before gain and rounding."""
        x = self.stem(x, self.stem_channels(width), width)
        for block in self.inverted_residuals():
            x = block(x, width)
        return self.bottleneck(x)


@torch.no_grad()
def sort_channels(stem: ConvNorm, blocks: Sequence[InvertedResidual]) -> None:
    """Reorder the stem's and every expansion's channels by importance, in place; the function stays the same.

    Importance is the L1 norm of what reads a channel, scaled by the channel's norm at the widest width (Once-for-All
    sorts by L1 too).
    """
    first = blocks[0]
    if first.expand is None:
        order = _importance(first.depthwise, first.project).argsort(descending=True)
        _permute_outputs(stem, order)
        _permute_hidden(first, order)
    for block in blocks:
        if block.expand is not None:
            order = _importance(block.depthwise, block.project).argsort(descending=True)
            _permute_outputs(block.expand, order)
            _permute_hidden(block, order)


def _importance(depthwise: ConvNorm, project: ConvNorm) -> torch.Tensor:
    scale = depthwise.norm(max(depthwise.widths)).weight.abs()
    return scale * project.conv.weight.abs().sum(dim=(0, 2, 3))


def _permute_outputs(layer: ConvNorm, order: torch.Tensor) -> None:
    layer.conv.weight.copy_(layer.conv.weight[order])
    for norm in layer.norms.values():
        for tensor in norm.state_dict().values():
            if tensor.ndim == 1:
                tensor.copy_(tensor[order])


def _permute_hidden(block: InvertedResidual, order: torch.Tensor) -> None:
    _permute_outputs(block.depthwise, order)
    block.project.conv.weight.copy_(block.project.conv.weight[:, order])
