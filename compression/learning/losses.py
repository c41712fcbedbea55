"""Losses that training on a server and rounds on devices share.

Legend: B batch, C H W channels, height and width, K classes.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def distillation(logits: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """Divergence of softened answers [B, K] from those wanted, mean over the batch (Hinton et al., 2015)."""
    learnt = functional.log_softmax(logits / temperature, dim=1)
    target = functional.log_softmax(wanted / temperature, dim=1)
    return functional.kl_div(learnt, target, log_target=True, reduction="batchmean") * temperature**2


def relative_error(features: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared error of each sample as a share of the wanted features' variance over the batch: [B]."""
    return (features - wanted).square().mean(dim=(1, 2, 3)) / wanted.var().clamp_min(1e-6)
