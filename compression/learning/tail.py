"""The tail: the blocks after the cut and the classifier of one task. It runs on the server and is trained at both ends.

Legend: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from headwater.compression.slimmable import ConvNorm, InvertedResidual

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Tail(nn.Module):
    """Features [B, C, H, W] at the cut to logits [B, K]."""

    def __init__(
        self, later: Sequence[InvertedResidual], top: ConvNorm, classify: nn.Linear, dropout: float = 0.2
    ) -> None:
        """Take the blocks after the cut, the last convolution and the classifier (they are not copied)."""
        super().__init__()
        self.blocks = nn.ModuleList(later)
        self.top = top
        self.dropout = nn.Dropout(dropout)
        self.classify = classify

    def typed_blocks(self) -> Iterator[InvertedResidual]:
        """The blocks, typed."""
        return typed(self.blocks)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features at the cut to logits."""
        return self.intermediate(features)[1]

    def intermediate(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The last feature map [B, C, H, W], for distillation, and the logits [B, K]."""
        x = features
        for block in self.typed_blocks():
            x = block(x)
        pooled = self.top(x).mean(dim=(2, 3))
        return x, self.classify(self.dropout(pooled))

    def frozen(self) -> Tail:
        """A copy of frozen layers, see :meth:`ConvNorm.frozen`."""
        classify = nn.Linear(self.classify.in_features, self.classify.out_features)
        classify.load_state_dict(self.classify.state_dict())
        return Tail([block.frozen() for block in self.typed_blocks()], self.top.frozen(), classify, self.dropout.p)


def typed(modules: nn.ModuleList) -> Iterator[InvertedResidual]:
    """The blocks of a list, typed."""
    for module in modules:
        assert isinstance(module, InvertedResidual)
        yield module


def channels_last(model: nn.Module) -> None:
    """Store convolution weights channels last, in place: on a CPU that halves the time of training."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
