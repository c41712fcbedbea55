"""``reconstruct``: a picture for people to look at, from the same features that the other tails read.

Each step filters the map, and turns four times its channels into twice its sides (Shi et al., "Real-Time Single Image
and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR 2016): about 47 million
multiply-adds for a grey picture of 128x128. What the frame does not carry, such as grain, cannot come back: the
picture is smooth where the frame is small.

Legend: B batch, F features, H W their height and width, C_in H_in W_in the picture's channels, height and width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from headwater.compression.manifest import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

RECONSTRUCT = Task("reconstruct", (), "image")
"""Any data set can be trained on it: a picture is its own label."""
CHANNELS = (128, 96, 48, 24, 16)
"""Inner channels before each doubling of the sides, the last one last; fewer doublings leave out the first."""
PIXEL_MIDDLE, PIXEL_SPREAD = 127.5, 64.0
GRADIENT_WEIGHT = 0.5


class Doubling(nn.Module):
    """One step: [B, C, H, W] to [B, C_out, 2H, 2W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make a step."""
        super().__init__()
        self.filter = nn.Conv2d(inputs, inputs, 5, padding=2, groups=inputs)
        self.mix = nn.Conv2d(inputs, inputs, 1)
        self.spread = nn.Conv2d(inputs, 4 * outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter and double."""
        x = x + functional.relu(self.mix(self.filter(x)))
        return functional.pixel_shuffle(self.spread(x), 2)


class Reconstructor(nn.Module):
    """Features [B, F, H, W] to pixels [B, C_in, H_in, W_in], about 0..255; the graph clips them to it."""

    def __init__(self, features: int, channels: int, doublings: int) -> None:
        """Make a network that doubles the sides 1 to 5 times."""
        super().__init__()
        inner = CHANNELS[-doublings:]
        self.enter = nn.Conv2d(features, inner[0], 3, padding=1)
        self.steps = nn.ModuleList(
            Doubling(inputs, outputs) for inputs, outputs in zip(inner, (*inner[1:], channels), strict=True)
        )

    def typed_steps(self) -> Iterator[Doubling]:
        """The steps, typed."""
        for step in self.steps:
            assert isinstance(step, Doubling)
            yield step

    @property
    def channels(self) -> int:
        """C_in, of the picture."""
        return list(self.typed_steps())[-1].spread.out_channels // 4

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Rebuild the picture."""
        x = self.enter(features)
        for step in self.typed_steps():
            x = step(functional.relu(x))
        return PIXEL_MIDDLE + PIXEL_SPREAD * x


def picture_loss(pictures: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels [B, C_in, H_in, W_in] and of their slopes, as a share of the range.

    The slopes keep edges where they are; squared errors alone would give them away for a smooth mean.
    """
    error = (pictures - wanted) / 255
    slopes = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + GRADIENT_WEIGHT * slopes
