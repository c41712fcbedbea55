"""Losses that training on a server and rounds on devices share.

Legend: B batch, C H W channels, height and width, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

STEEP = 0.1
"""Growth of a batch's frames from which on each further bit has its full price."""


def distillation(logits: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """Divergence of softened answers [B, K] from those wanted, mean over the batch (Hinton et al., 2015)."""
    learnt = functional.log_softmax(logits / temperature, dim=1)
    target = functional.log_softmax(wanted / temperature, dim=1)
    return functional.kl_div(learnt, target, log_target=True, reduction="batchmean") * temperature**2


def relative_error(features: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared error of each sample as a share of the wanted features' variance over the batch: [B]."""
    return (features - wanted).square().mean(dim=(1, 2, 3)) / wanted.var().clamp_min(1e-6)


def price_of_growth(before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """What frames cost more than before, of each one's price [B] then and now; frames that shrink cost nothing.

    The first bytes more are nearly free: a batch's price rises with the square of its growth, up to :data:`STEEP`, and
    from there on with the growth itself.
    """
    whole = before.mean()
    growth = functional.relu(now.mean() - whole)
    knee = STEEP * whole
    return torch.where(growth < knee, growth.square() / (2 * knee).clamp_min(1e-12), growth - knee / 2)


def label_shift(labels: torch.Tensor, classes: int, usual: Sequence[int]) -> torch.Tensor:
    """What to add to logits before the cross-entropy of labels whose shares are not the usual ones: float32 [K].

    A device that sees nine defects in ten cells would teach the network that cells are defective. The log of the share
    here, less that where the answers will be asked for, takes this out of the loss (logit adjustment: Menon et al.,
    ICLR 2021; per device: Zhang et al., "FedLC", ICML 2022). A class counts one image more than there are.

    Args:
        labels: of all the images that are learnt from, int64 [N].
        classes: K.
        usual: images of each class where the answers will be asked for, [K]; empty: all alike.
    """
    here = torch.bincount(labels, minlength=classes).float() + 1
    there = torch.tensor(usual, dtype=torch.float32) + 1 if usual else torch.ones(classes)
    return (here / here.sum()).log() - (there / there.sum()).log()
