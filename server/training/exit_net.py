"""The network of the local exit: reads a class from the head's latent with a million multiply-adds or so.

    latent [B, C, H, W] -> 3x3 -> depthwise 3x3, stride 2 -> 1x1 -> mean -> linear -> logits [B, K]

Every convolution has a norm of its own for each width (Yu et al., "Slimmable Neural Networks", ICLR 2019): widths give
latents of different statistics, and a scale and a shift a channel are all that it takes to tell them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from headwater.compression.slimmable import ConvNorm

if TYPE_CHECKING:
    import torch

HIDDEN, TOP = 64, 128


class ExitNet(nn.Module):
    """The classifier; the width is an argument of every call."""

    def __init__(self, channels: int, side: int, classes: int, widths: tuple[float, ...]) -> None:
        """Make one for latents of ``channels`` and ``side``; a large latent is halved at once."""
        super().__init__()
        self.channels, self.side, self.widths = channels, side, widths
        self.enter = ConvNorm(channels, HIDDEN, 3, stride=2 if side >= 12 else 1, widths=widths)
        self.filter = ConvNorm(HIDDEN, HIDDEN, 3, stride=2, depthwise=True, widths=widths)
        self.mix = ConvNorm(HIDDEN, TOP, 1, widths=widths)
        self.dropout = nn.Dropout(0.2)
        self.classify = nn.Linear(TOP, classes)

    def forward(self, latent: torch.Tensor, width: float) -> torch.Tensor:
        """Map the latent [B, C, H, W] of a width to logits [B, K]."""
        x = latent
        for layer in (self.enter, self.filter, self.mix):
            x = layer(x, None, width)
        return self.classify(self.dropout(x.mean(dim=(2, 3))))
