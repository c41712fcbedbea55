"""Norms with statistics for a tail that was read back from a bundle: a good start for another tail.

A bundle's graphs have their norms folded into the convolutions, so the tail that
:func:`headwater.compression.learning.reading.read_tail` gives has none. Training one anew goes better with them:
:func:`restore_norms` gives each layer a norm that knows the statistics of what it meets and undoes itself, so that
training starts from what the graph computes.

Legend: B batch, F features, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from headwater.compression.slimmable import norm_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.compression.learning.tail import Tail
    from headwater.compression.slimmable import ConvNorm


@torch.no_grad()
def restore_norms(tail: Tail, features: torch.Tensor) -> None:
    """Replace the shifts of a frozen tail by norms with the statistics of these features [B, F, H, W].

    What the tail computes stays the same; layer by layer, since a norm that is measuring changes what comes after it.
    """
    tail.eval()
    for layer in _layers(tail):
        _, shift = layer.norm_factors()
        norm = nn.BatchNorm2d(len(shift), eps=1e-3, momentum=1.0)
        layer.norms[norm_key(1.0)] = norm.train()
        tail(features)
        norm.eval()
        norm.momentum = 0.1
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.bias.copy_(shift + norm.running_mean)
        norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))


def _layers(tail: Tail) -> Iterator[ConvNorm]:
    """The layers with a norm, in the order in which they run."""
    for block in tail.typed_blocks():
        if block.expand is not None:
            yield block.expand
        yield block.depthwise
        yield block.project
    yield tail.top
