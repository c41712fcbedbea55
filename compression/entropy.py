"""The float side of the entropy model: gains, quantisation while training, and the rate in bits.

Every mode (a width and a gain) has a factorised prior of its own: a mixture of three logistic densities per channel
(after Ballé et al., "Variational image compression with a scale hyperprior", ICLR 2018, with a parametric density in
place of its univariate network). While training, the rate is that of the latent plus uniform noise and the distortion
sees rounded values with a straight-through gradient. The gain per mode and channel is learnt (gain units: Cui et al.,
"Asymmetric Gained Deep Image Compression", CVPR 2021).

What is coded in the field uses integers only: :mod:`headwater.compression.tables`, built from this module once.

Legend: B batch, C latent channels, H height, W width, M modes, N mixture components.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMPONENTS = 3
_LEAST_PROBABILITY = 1e-6  # bounds the cost of one symbol at 20 bits: an escape in the real coder costs about as much


class GainUnit(nn.Module):
    """A positive gain and step per mode and channel."""

    def __init__(self, gains: Sequence[float], channels: int) -> None:
        """Start mode m with gain ``gains[m]`` on all channels and the inverse as its step."""
        super().__init__()
        start = torch.tensor([[math.log(gain)] * channels for gain in gains])
        self.log_gain = nn.Parameter(start.clone())
        self.log_step = nn.Parameter(-start)

    def gain(self) -> torch.Tensor:
        """[M, C], what the latent is multiplied by before rounding."""
        return self.log_gain.exp()

    def step(self) -> torch.Tensor:
        """[M, C], what a symbol is multiplied by after decoding."""
        return self.log_step.exp()

    def scale(self, latent: torch.Tensor, mode: torch.Tensor) -> torch.Tensor:
        """Latent [B, C, H, W] times the gains of each sample's mode [B]."""
        return latent * self.gain()[mode][:, :, None, None]

    def unscale(self, symbols: torch.Tensor, mode: torch.Tensor) -> torch.Tensor:
        """Symbols [B, C, H, W] times the steps of each sample's mode [B]."""
        return symbols * self.step()[mode][:, :, None, None]


def round_straight_through(x: torch.Tensor) -> torch.Tensor:
    """Round; the gradient passes as if nothing had been rounded."""
    return x + (x.round() - x).detach()


class FactorizedPrior(nn.Module):
    """Density of each channel's scaled latent, per mode."""

    def __init__(self, modes: int, channels: int) -> None:
        """Start with a broad and a narrow component around zero."""
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(modes, channels, _COMPONENTS))
        self.mean = nn.Parameter(torch.tensor([-0.5, 0.0, 0.5]).repeat(modes, channels, 1))
        self.log_scale = nn.Parameter(torch.tensor([0.0, -1.5, 0.0]).repeat(modes, channels, 1))

    def bits(self, scaled: torch.Tensor, mode: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Bits of each sample and channel [B, C] of ``scaled`` [B, C, H, W] plus uniform noise, at modes [B].

        The noise is drawn from ``generator``, or from torch's own.
        """
        noisy = scaled + torch.empty_like(scaled).uniform_(generator=generator) - 0.5
        probability = self._mass(noisy, self.logit[mode], self.mean[mode], self.log_scale[mode])
        return -probability.clamp_min(_LEAST_PROBABILITY).log2().sum(dim=(2, 3))

    @staticmethod
    def _mass(x: torch.Tensor, logit: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        weight = functional.softmax(logit, dim=-1)
        inverse = torch.exp(-log_scale)
        total = torch.zeros_like(x)
        for k in range(_COMPONENTS):
            w, m, s = (t[..., k, None, None] for t in (weight, mean, inverse))
            # The symmetric form keeps precision in both tails: sigmoid saturates at 1 but not at 0.
            distance = (x - m).abs()
            total = total + w * (torch.sigmoid((0.5 - distance) * s) - torch.sigmoid((-0.5 - distance) * s))
        return total

    @torch.no_grad()
    def probabilities(self, low: int, high: int) -> torch.Tensor:
        """Probability of each integer low..high, float64 [M, C, high - low + 1]."""
        points = torch.arange(low, high + 1, dtype=torch.float64).view(1, 1, 1, -1)
        modes, channels, _ = self.logit.shape
        x = points.expand(modes, channels, 1, -1)
        mass = self._mass(x, self.logit.double(), self.mean.double(), self.log_scale.double())
        return mass[:, :, 0, :]
