"""What peers that are trained have in common: the loss on answers, exact norm statistics, answers in batches.

Letters: B batch, C H W channels and sides of the input, N images, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from headwater.compression.slimmable import ConvNorm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from headwater.server.training.recipe import Recipe

BATCH = 64


def answers_loss(
    logits: torch.Tensor,
    wanted: torch.Tensor,
    labels: torch.Tensor,
    whole: torch.Tensor,
    weight: torch.Tensor,
    recipe: Recipe,
) -> torch.Tensor:
    """Task and distillation of logits [B, K], weighed as our own student's are; labels count where ``whole`` [B]."""
    smoothing = recipe.label_smoothing
    each = functional.cross_entropy(logits, labels, weight, label_smoothing=smoothing, reduction="none")
    task = (each * whole).sum() / (weight[labels] * whole).sum().clamp_min(1e-6)
    T = recipe.distill_temperature
    learnt, target = functional.log_softmax(logits / T, dim=1), functional.log_softmax(wanted / T, dim=1)
    distill = functional.kl_div(learnt, target, log_target=True, reduction="batchmean") * T**2
    return recipe.task_weight * task + recipe.distill_weight * distill


@torch.no_grad()
def recalibrate(network: torch.nn.Module, batches: Iterable[Callable[[], object]]) -> None:
    """Give all norms exact statistics over training images, as our own student gets; each of `batches` runs a batch."""
    norms = [layer.norm(1.0) for layer in network.modules() if isinstance(layer, ConvNorm)]
    network.train()
    for n, run in enumerate(batches, start=1):
        for norm in norms:
            norm.momentum = 1 / n
        run()
    network.eval()


@torch.no_grad()
def answers(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> NDArray[np.float32]:
    """Logits [N, K] of what `network` makes of inputs [N, ...], a batch at a time."""
    return np.concatenate([network(batch).numpy() for batch in images.split(BATCH)])
