"""The decoder: from a dequantised latent back to the teacher's features at the cut.

One decoder takes every mode, so frames of any width and gain share a batch. A scale and a shift per mode and channel
tell it which mode it reads (feature-wise modulation, Perez et al., AAAI 2018); they cost one multiply-add a value.

Legend: B batch, C latent channels, F feature channels, H height, W width, M modes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Decoder(nn.Module):
    """Latent [B, C, H, W] and mode index [B] to features [B, F, H, W]."""

    def __init__(self, latent_channels: int, feature_channels: int, modes: int, hidden: int = 96) -> None:
        """Make a decoder; ``hidden`` is its inner number of channels."""
        super().__init__()
        self.enter = nn.Conv2d(latent_channels, hidden, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(modes, hidden))
        self.shift = nn.Parameter(torch.zeros(modes, hidden))
        self.filter = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden)
        self.mix = nn.Conv2d(hidden, hidden, 1)
        self.leave = nn.Conv2d(hidden, feature_channels, 1)
        self.direct = nn.Conv2d(latent_channels, feature_channels, 1)

    def forward(self, latent: torch.Tensor, mode: torch.Tensor) -> torch.Tensor:
        """Rebuild the features."""
        direct = self.direct(latent)
        x = self.enter(latent) * self.scale[mode][:, :, None, None] + self.shift[mode][:, :, None, None]
        x = functional.relu(x)
        x = x + functional.relu(self.mix(self.filter(x)))
        return direct + self.leave(x)
