"""What a finished bundle's decoder gives a new tail to read, while that is trained.

The bundle's own graphs and tables run, as in the field: pixels are whole numbers, latents are scaled, rounded and
scaled back as the tables say, and channels of groups that a cut frame lacks are 0. The entropy coder alone is left out,
since what it takes in comes out. Nothing is rebuilt from weights, so a bundle's rounded ones are what the tail sees.

Legend: B batch, M modes, C H W latent, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from headwater.compression.inference import quantise, session
from headwater.compression.learning.network import random_groups
from headwater.server.training.graphs import with_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.server.training.recipe import Recipe


class FrozenCodec:
    """Heads, quantisation and decoder of a bundle, for many images at a time."""

    def __init__(self, bundle: Bundle, recipe: Recipe) -> None:
        """Load the graphs; ``recipe`` says how often frames are cut."""
        self._modes = bundle.manifest.modes
        self._latent = bundle.manifest.latent
        self._tables = bundle.tables
        self._recipe = recipe
        heads = {mode.width: mode.head_file for mode in self._modes}
        self._heads = {width: session(with_batch(bundle.read(name)), threads=0) for width, name in heads.items()}
        self._decoder = session(bundle.read("decoder.onnx"), threads=0, batches=True)

    def random_features(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Features float32 [B, F, H, W] of uint8 images, each in a random mode, a share of the frames cut."""
        B = len(images)
        modes = torch.randint(0, len(self._modes), (B,), generator=generator)
        groups = random_groups(self._recipe.groups, B, self._recipe.drop_groups, generator)
        return torch.from_numpy(self.features(images.numpy(), modes.tolist(), groups.tolist()))

    def features(self, images: NDArray[np.uint8], modes: Sequence[int], groups: Sequence[int]) -> NDArray[np.float32]:
        """Features float32 [B, F, H, W] of images uint8 [B, C_in, H_in, W_in], each coded in a mode, cut to groups."""
        latents = np.zeros((len(images), self._latent.channels, self._latent.height, self._latent.width), np.float32)
        for width, head in self._heads.items():
            rows = [row for row, mode in enumerate(modes) if self._modes[mode].width == width]
            if rows:
                (latent,) = head.run(["latent"], {"image": images[rows]})
                latents[rows, : latent.shape[1]] = latent
        for latent, mode, kept in zip(latents, modes, groups, strict=True):
            self._quantise(latent, mode, kept)
        (features,) = self._decoder.run(["features"], {"latent": latents, "mode": np.array(modes, np.int64)})
        return np.asarray(features)

    def _quantise(self, latent: NDArray[np.float32], mode: int, groups: int) -> None:
        """Do to a latent [C, H, W], in place, what coding and decoding does."""
        sent = self._tables.channels_of(mode, groups)
        symbols = quantise(latent[:sent], self._tables.gain[mode, :sent])
        latent[:sent] = symbols * self._tables.step[mode, :sent, np.newaxis, np.newaxis]
        latent[sent:] = 0
