"""The network of the local exit: reads a class from the head's latent with a million multiply-adds or so.

    latent [B, C, H, W] -> 3x3 -> depthwise 3x3, stride 2 -> 1x1 -> mean -> linear -> logits [B, K]

Every convolution has a norm of its own for each width (Yu et al., "Slimmable Neural Networks", ICLR 2019): widths give
latents of different statistics, and a scale and a shift a channel are all that it takes to tell them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from torch import nn

from headwater.compression.slimmable import ConvNorm

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

HIDDEN, TOP = 64, 128


class ExitNet(nn.Module):
    """The classifier; the width is an argument of every call."""

    def __init__(self, layers: Sequence[ConvNorm], classify: nn.Linear, side: int) -> None:
        """Take its three convolutions and the classifier, for latents of a ``side``."""
        super().__init__()
        self.enter, self.filter, self.mix = layers
        self.dropout = nn.Dropout(0.2)
        self.classify = classify
        self.side = side

    @classmethod
    def make(cls, channels: int, side: int, classes: int, widths: tuple[float, ...]) -> Self:
        """A new one for latents of ``channels`` and ``side``; a large latent is halved at once."""
        layers = [
            ConvNorm(channels, HIDDEN, 3, stride=2 if side >= 12 else 1, widths=widths),
            ConvNorm(HIDDEN, HIDDEN, 3, stride=2, depthwise=True, widths=widths),
            ConvNorm(HIDDEN, TOP, 1, widths=widths),
        ]
        return cls(layers, nn.Linear(TOP, classes), side)

    @property
    def channels(self) -> int:
        """C, of the latent."""
        return self.enter.conv.in_channels

    @property
    def widths(self) -> tuple[float, ...]:
        """Of the head, each with norms of its own."""
        return self.enter.widths

    def forward(self, latent: torch.Tensor, width: float) -> torch.Tensor:
        """Map the latent [B, C, H, W] of a width to logits [B, K]."""
        x = latent
        for layer in (self.enter, self.filter, self.mix):
            x = layer(x, None, width)
        return self.classify(self.dropout(x.mean(dim=(2, 3))))

    def frozen(self) -> ExitNet:
        """A copy of frozen layers, see :meth:`ConvNorm.frozen`."""
        classify = nn.Linear(self.classify.in_features, self.classify.out_features)
        classify.load_state_dict(self.classify.state_dict())
        return ExitNet([layer.frozen() for layer in (self.enter, self.filter, self.mix)], classify, self.side)
