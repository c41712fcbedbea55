"""Pictures with two labels each, made in no time: a texture (dots, stripes) and a light (dark, bright)."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from headwater.compression.datasets import Dataset, Item
from headwater.compression.learning.augmentation import Augmentation
from headwater.compression.manifest import Task
from headwater.server.training.recipe import Recipe

TEXTURE, LIGHT = Task("texture", ("dots", "stripes")), Task("light", ("dark", "bright"))
RECIPE = Recipe(
    colour="L",
    side=32,
    cut=4,
    skip=(),
    latent_channels=6,
    groups=3,
    widths=(0.5, 1.0),
    start_gains=(1.0, 5.0),
    rate_weights=(4e-4, 5e-5),
    teacher_epochs=2,
    match_epochs=1,
    tune_epochs=1,
    task_epochs=40,
    batch=16,
    teacher_rate=2e-3,
    augmentation=Augmentation(brightness=0.0),
)
"""Two widths, two gains, an epoch or two of everything but an added tail: for the way, not for figures."""


def textures(count: int = 64) -> Dataset:
    """Two pictures in four are bright, two have stripes, in every combination."""
    items = tuple(
        Item(f"{n:03}", {"texture": n % 2, "light": n // 2 % 2}, partial(_draw, n, n % 2, n // 2 % 2))
        for n in range(count)
    )
    return Dataset("textures", (TEXTURE, LIGHT), items, "none")


def _draw(seed: int, texture: int, light: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 60, (32, 32), dtype=np.uint8) + np.uint8(70 * light)
    pixels[:: 4 if texture else 1, :: 1 if texture else 7] += 100
    return Image.fromarray(pixels)
