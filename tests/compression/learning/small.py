"""A split network of a few thousand weights whose norms have seen something, for tests of what changes its shape."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import nn

from headwater.compression.decoder import Decoder
from headwater.compression.encoder import Head
from headwater.compression.entropy import FactorizedPrior, GainUnit
from headwater.compression.image import InputSpec
from headwater.compression.learning.network import Parts, SplitNetwork
from headwater.compression.learning.samples import normalise
from headwater.compression.learning.tail import Tail
from headwater.compression.slimmable import ConvNorm, InvertedResidual

SPEC = InputSpec("L", 32, 32)
WIDTHS = (0.25, 0.5, 1.0)
CLASSES = 3


def images(count: int = 8, seed: int = 0) -> torch.Tensor:
    """Pixels, uint8 [B, 1, 32, 32]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *SPEC.shape), dtype=torch.uint8, generator=generator)


def network(seed: int = 0) -> SplitNetwork:
    """Frozen; units of 32 channels (with the stem), 48, 64 and 96 (a tail's block) and 64 (its top); a copy."""
    return copy.deepcopy(_made(seed))


@cache
@torch.random.fork_rng(devices=[])
def _made(seed: int) -> SplitNetwork:
    torch.manual_seed(seed)
    blocks = [
        InvertedResidual.make(32, 8, 3, 1, 1, WIDTHS),
        InvertedResidual.make(8, 16, 3, 2, 6, WIDTHS),
        InvertedResidual.make(16, 16, 5, 1, 4, WIDTHS),
    ]
    head = Head(ConvNorm(1, 32, 3, stride=2, widths=WIDTHS), blocks, 6, WIDTHS)
    modes = 2 * len(WIDTHS)
    tail = Tail([InvertedResidual.make(16, 24, 3, 2, 6)], ConvNorm(24, 64, 1), nn.Linear(64, CLASSES))
    parts = Parts(
        head,
        GainUnit([1.0, 4.0] * len(WIDTHS), 6),
        FactorizedPrior(modes, 6),
        Decoder(6, 16, modes, 24),
        [tail],
        None,
        (2, 4, 6),
        tasks=("shape",),
    )
    made = SplitNetwork(parts)
    with torch.no_grad():
        made.train()
        for width in WIDTHS:
            for step in range(3):
                made(images(seed=step), width, 1)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):  # no two channels alike
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.4)
    return made.eval().frozen().eval()


def logits(made: SplitNetwork, width: float) -> torch.Tensor:
    """Of the only task, at the finest gain, without quantising, [B, K]."""
    with torch.no_grad():
        mode = torch.full((8,), made.mode(width, -1))
        latent = made.gains.unscale(made.gains.scale(made.head(normalise(images()), width), mode), mode)
        return next(made.typed_tails())(made.decoder(latent, mode))
