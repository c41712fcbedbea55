"""Entropic Student, rebuilt from its paper for the teacher at hand: networks and their multiply-adds, no training.

Matsubara, Yang, Levorato, Mandt, "Supervised Compression for Resource-Constrained Edge Computing Systems", WACV 2022:
a shallow encoder of fresh convolutions, a factorised prior, a wide decoder that rebuilds an early feature map of the
teacher, and the teacher's later layers. One model is one point of rate and accuracy.

    encoder   conv C_in-96 k5 s2, GDN1, conv 96-48 k5 s2, GDN1, conv 48-24 k2         [B, 24, S/4 - 1, S/4 - 1]
    decoder   conv 24-512 k2 p1, IGDN1, conv 512-256 k2, IGDN1, conv 256-F k2 p1      [B, F, S/4, S/4]

No convolution has a bias, no layer a batch norm. In the paper F = 256 is the output of ResNet-50's first stage, a
quarter of the input's side; EfficientNet-Lite0's features of that side are those after its third block, F = 24, and
that is where this decoder joins it. Quantisation is uniform noise while encoder and prior learn, rounding after.

The prior is the mixture of logistics that ours uses (the paper's is a small network a channel; both are one density a
channel), and both are turned into the same integer tables and coded by the same coder.

Letters: B batch, C channels, F feature channels, H W sides, S side of the input.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from headwater.compression.entropy import FactorizedPrior
from headwater.compression.learning.tail import Tail
from headwater.server.training.lite import Lite0

if TYPE_CHECKING:
    from headwater.compression.slimmable import InvertedResidual

CUT = 3
"""Blocks of Lite0 before the features that the decoder rebuilds, at a quarter of the input's side."""
TARGETS = (5, 11, 16)
"""Blocks after which stage 1 also compares: the last of the maps at 1/8, 1/16 and 1/32 of the side, as in the paper."""
LATENT_CHANNELS = 24
_PEDESTAL = 2.0**-18
_LEAST_BETA = 1e-6


class GDN1(nn.Module):
    """Simplified generalised divisive normalisation: x / (beta + sum of gamma |x|), or times that if ``inverse``.

    Ballé, "Efficient Nonlinear Transforms for Lossy Image Compression", PCS 2018; Johnston et al., 2019, for the first
    power. Parameters are kept as square roots above a pedestal, so that they stay positive and can leave zero.
    """

    def __init__(self, channels: int, *, inverse: bool = False) -> None:
        """Start with beta 1 and gamma a tenth of the identity."""
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter(torch.sqrt(torch.ones(channels) + _PEDESTAL**2))
        self.gamma = nn.Parameter(torch.sqrt(0.1 * torch.eye(channels) + _PEDESTAL**2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to the same shape."""
        beta = self.beta.clamp_min((_LEAST_BETA + _PEDESTAL**2) ** 0.5).square() - _PEDESTAL**2
        gamma = self.gamma.clamp_min(_PEDESTAL).square() - _PEDESTAL**2
        norm = functional.conv2d(x.abs(), gamma[:, :, None, None], beta)
        return x * norm if self.inverse else x / norm


class EntropicStudent(nn.Module):
    """Encoder, prior, decoder, and the teacher's later blocks."""

    def __init__(self, teacher: Lite0) -> None:
        """Copy the later blocks of a fine-tuned teacher, which is left as it is."""
        super().__init__()
        self.encoder = encoder(teacher.stem.conv.in_channels)
        self.prior = FactorizedPrior(1, LATENT_CHANNELS)
        front, self.tail = parted(teacher)
        features = front[-1].project.conv.out_channels
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, 512, 2, padding=1, bias=False),
            GDN1(512, inverse=True),
            nn.Conv2d(512, 256, 2, bias=False),
            GDN1(256, inverse=True),
            nn.Conv2d(256, features, 2, padding=1, bias=False),
        )

    def bits(self, latent: torch.Tensor) -> torch.Tensor:
        """Estimated size of each sample's payload [B] of a latent [B, 24, H, W]."""
        modes = torch.zeros(len(latent), dtype=torch.int64)
        return self.prior.bits(latent, modes).sum(dim=1)


def encoder(channels: int) -> nn.Sequential:
    """The encoder for images of so many channels."""
    return nn.Sequential(
        nn.Conv2d(channels, 96, 5, stride=2, padding=2, bias=False),
        GDN1(96),
        nn.Conv2d(96, 48, 5, stride=2, padding=2, bias=False),
        GDN1(48),
        nn.Conv2d(48, LATENT_CHANNELS, 2, bias=False),
    )


def parted(teacher: Lite0) -> tuple[list[InvertedResidual], Tail]:
    """The teacher's first CUT blocks, and a copy of all that comes after them as the tail of its first task."""
    old = next(teacher.typed_tails())
    blocks = [*teacher.typed_blocks(), *old.typed_blocks()]
    later = [copy.deepcopy(block) for block in blocks[CUT:]]
    return blocks[:CUT], Tail(later, copy.deepcopy(old.top), copy.deepcopy(old.classify))


def maps(tail: Tail, features: torch.Tensor) -> list[torch.Tensor]:
    """What stage 1 compares: the features [B, F, H, W] themselves and three later maps."""
    found, x = [features], features
    for index, block in enumerate(tail.typed_blocks(), start=CUT + 1):
        x = block(x)
        if index in TARGETS:
            found.append(x)
    return found


class Macs(NamedTuple):
    """Multiply-adds of an encoder for one image."""

    convolutions: int
    normalisation: int
    """The matrix of every GDN1; left out of the claim, in the peer's favour."""


def encoder_macs(channels: int, side: int) -> Macs:
    """Count the encoder on images [channels, side, side]."""
    convolutions = normalisation = 0
    x = torch.zeros(1, channels, side, side)
    with torch.no_grad():
        for layer in encoder(channels):
            x = layer(x)
            area = x.shape[2] * x.shape[3]
            if isinstance(layer, nn.Conv2d):
                convolutions += layer.weight.numel() * area
            else:
                normalisation += x.shape[1] ** 2 * area
    return Macs(convolutions, normalisation)
