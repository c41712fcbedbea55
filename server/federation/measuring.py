"""What a version is worth on the server's own images: accuracy and loss at the widest and the narrowest head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from headwater.compression.learning.arrays import load

if TYPE_CHECKING:
    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.samples import Samples
    from headwater.server.federation.averaging import Arrays

_BATCH = 64


def measure(network: SplitNetwork, samples: Samples, task: str) -> Callable[[Arrays], Mapping[str, float]]:
    """A function of arrays that measures them on images that no device has; the network is overwritten by it.

    It gives `accuracy` and `loss` at the widest head and the finest gain, and `accuracy-narrow` at the narrowest and
    coarsest, of the bundle's first task.
    """

    def measured(arrays: Arrays) -> dict[str, float]:
        load(network, arrays)
        accuracy, loss = _scored(network, samples, task, network.widths[-1], network.steps - 1)
        narrow, _ = _scored(network, samples, task, network.widths[0], 0)
        return {"accuracy": accuracy, "loss": loss, "accuracy-narrow": narrow}

    return measured


@torch.no_grad()
def _scored(network: SplitNetwork, samples: Samples, task: str, width: float, gain: int) -> tuple[float, float]:
    """Share of right answers, and the mean cross entropy."""
    right, loss = 0, 0.0
    for start in range(0, len(samples), _BATCH):
        labels = samples.labels[task][start : start + _BATCH]
        logits = network(samples.images[start : start + _BATCH], width, gain)[0]
        right += int((logits.argmax(dim=1) == labels).sum())
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
    return right / len(samples), loss / len(samples)
