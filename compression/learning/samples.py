"""Images and labels as tensors, batches in a seeded order, and augmentation.

Legend: N images, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.compression.datasets import Dataset
    from headwater.compression.image import InputSpec
    from headwater.compression.learning.augmentation import Augmentation

# ImageNet's mean and standard deviation of a pixel in 0..255, averaged over the three colours: one pair serves both
# grey and colour input, and a head that subtracts a scalar needs no per-channel constants.
PIXEL_MEAN = 114.5
PIXEL_STD = 57.6


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Scale pixels 0..255 of any dtype to the float range that the network was trained on, channels last in memory.

    Grey images have both layouts at once, and torch goes on with the slower one unless they are made anew.
    """
    pixels = torch.empty(images.shape, memory_format=torch.channels_last)
    return pixels.copy_(images).sub_(PIXEL_MEAN).div_(PIXEL_STD)


@dataclass(frozen=True)
class Samples:
    """A data set in memory."""

    images: torch.Tensor
    """uint8 [N, C, H, W]."""
    labels: dict[str, torch.Tensor]
    """int64 [N] for each task."""

    def __len__(self) -> int:
        """N."""
        return int(self.images.shape[0])

    @classmethod
    def read(cls, dataset: Dataset, spec: InputSpec, tasks: tuple[str, ...]) -> Samples:
        """Decode and resize every image."""
        images = torch.stack([torch.from_numpy(spec.apply(item.load()).copy()) for item in dataset.items])
        return cls(images, {task: torch.from_numpy(dataset.labels(task)) for task in tasks})

    def batches(self, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Indices of each batch of one epoch, in random order; a last batch of a single image is left out."""
        order = torch.randperm(len(self), generator=generator)
        for batch in order.split(size):
            if len(batch) > 1:
                yield batch


def augment(images: torch.Tensor, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Randomly flip, move and brighten uint8 images [B, C, H, W]; returns float32 pixels 0..255."""
    x = images.float()
    B = x.shape[0]

    def uniform(limit: float) -> torch.Tensor:
        return (torch.rand(B, generator=generator) * 2 - 1) * limit

    angle, size = uniform(math.radians(how.rotate_degrees)), 1 + uniform(how.scale)
    flip_x = _signs(B, generator, flip=how.flip_horizontal)
    flip_y = _signs(B, generator, flip=how.flip_vertical)
    matrix = torch.zeros(B, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = angle.cos() * size * flip_x, -angle.sin() * size
    matrix[:, 1, 0], matrix[:, 1, 1] = angle.sin() * size, angle.cos() * size * flip_y
    matrix[:, 0, 2], matrix[:, 1, 2] = uniform(2 * how.shift), uniform(2 * how.shift)
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    contrast, brightness = 1 + uniform(how.brightness), uniform(how.brightness * 128)
    x = (x - 128) * contrast[:, None, None, None] + 128 + brightness[:, None, None, None]
    return x.clamp(0, 255).contiguous(memory_format=torch.channels_last)


def paste(images: torch.Tensor, share: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Paste a rectangle of the next image into a share of a batch [B, C, H, W] (CutMix: Yun et al., ICCV 2019).

    Returns the batch and which images were left alone, bool [B].
    """
    B, _, H, W = images.shape
    whole = torch.rand(B, generator=generator) >= share
    centre, half = torch.rand(B, 2, generator=generator), torch.rand(B, generator=generator).sqrt() / 2
    rows, columns = (torch.arange(H) + 0.5) / H, (torch.arange(W) + 0.5) / W
    inside_rows = (rows - centre[:, :1]).abs() < half[:, None]
    inside_columns = (columns - centre[:, 1:]).abs() < half[:, None]
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :] & ~whole[:, None, None, None]
    return torch.where(inside, images.roll(1, dims=0), images), whole


def _signs(count: int, generator: torch.Generator, *, flip: bool) -> torch.Tensor:
    signs = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1.0
    return signs if flip else torch.ones(count)
