"""``reconstruct``: a picture for people to look at, from the same features that the other tails read.

A linear map gives each place's features its patch of pixels, and starts as the best one in the least squares. What it
leaves to be done is added by steps that filter the map and turn four times its channels into twice its sides (Shi et
al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR
2016): together about 49 million multiply-adds for a grey picture of 128x128. What the frame does not carry, such as
grain, cannot come back: the picture is smooth where the frame is small.

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
SLOPE = 0.1
"""Of the rectifiers below zero: with none, dark pictures left them without a gradient."""
RIDGE = 1e-3


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
        x = x + functional.leaky_relu(self.mix(self.filter(x)), SLOPE)
        return functional.pixel_shuffle(self.spread(x), 2)


class Reconstructor(nn.Module):
    """Features [B, F, H, W] to pixels [B, C_in, H_in, W_in], about 0..255; the graph clips them to it."""

    def __init__(self, features: int, channels: int, doublings: int) -> None:
        """Make a network that doubles the sides 1 to 5 times."""
        super().__init__()
        inner = CHANNELS[-doublings:]
        self.patch = 1 << doublings
        """Side of the pixels that belong to one place of the features."""
        self.direct = nn.Conv2d(features, channels * self.patch**2, 1)
        self.enter = nn.Conv2d(features, inner[0], 3, padding=1)
        self.steps = nn.ModuleList(
            Doubling(inputs, outputs) for inputs, outputs in zip(inner, (*inner[1:], channels), strict=True)
        )

    @torch.no_grad()
    def start_from(self, features: torch.Tensor, images: torch.Tensor) -> None:
        """Start as the best linear map from features [B, F, H, W] to images [B, C_in, H_in, W_in], and nothing else."""
        F = features.shape[1]
        seen = features.permute(0, 2, 3, 1).reshape(-1, F).double()
        wanted = functional.pixel_unshuffle((images.double() - PIXEL_MIDDLE) / PIXEL_SPREAD, self.patch)
        wanted = wanted.permute(0, 2, 3, 1).reshape(len(seen), -1)
        mean, target = seen.mean(dim=0), wanted.mean(dim=0)
        centred = seen - mean
        square = centred.T @ centred
        square += RIDGE * square.diagonal().mean() * torch.eye(F, dtype=torch.float64)
        weight = torch.linalg.solve(square, centred.T @ (wanted - target))  # [F, C_in * patch * patch]
        self.direct.weight[:, :, 0, 0] = weight.T.float()
        assert self.direct.bias is not None
        self.direct.bias.copy_(target - mean @ weight)
        self.enter.weight /= features.std().clamp_min(1e-6)
        last = list(self.typed_steps())[-1].spread
        last.weight.zero_()
        assert last.bias is not None
        last.bias.zero_()

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
            x = step(functional.leaky_relu(x, SLOPE))
        x = x + functional.pixel_shuffle(self.direct(features), self.patch)
        return PIXEL_MIDDLE + PIXEL_SPREAD * x


def picture_loss(pictures: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels [B, C_in, H_in, W_in] and of their slopes, as a share of the range.

    The slopes keep edges where they are; squared errors alone would give them away for a smooth mean.
    """
    error = (pictures - wanted) / 255
    slopes = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + GRADIENT_WEIGHT * slopes
