"""A tail of a finished bundle, trainable again: a good start for another tail that reads the same features.

A bundle keeps a tail as a graph only, with its norms folded into convolutions whose large weights are 8-bit integers.
:func:`read_tail` puts these into a :class:`Tail` whose norms do nothing but add the bias, and :func:`restore_norms`
gives each norm the statistics of what it meets, so that training starts from what the graph computes.

Legend: B batch, F features, H height, W width, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headwater.compression.errors import BundleError
from headwater.compression.slimmable import ConvNorm
from headwater.server.training.graphs import read_weights
from headwater.server.training.lite import Tail, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Task


@torch.no_grad()
def read_tail(bundle: Bundle, task: Task, cut: int) -> Tail:
    """The tail of a task with labels, of a network that was cut after ``cut`` blocks.

    Raises :class:`BundleError` for a graph that `headwater train` did not write.
    """
    weights = read_weights(bundle.read(task.tail_file))
    tail = Tail(blocks()[cut:], len(task.labels))

    def put(target: torch.Tensor, name: str) -> None:
        found = weights.get(f"tail.{name}")
        if found is None or found.shape != tuple(target.shape):
            got = "nothing" if found is None else f"{list(found.shape)}"
            raise BundleError(
                f"{task.tail_file} of the bundle {bundle.manifest.name} has {got} under tail.{name}, where a tail that "
                f"`headwater train` wrote for a cut after block {cut} has {list(target.shape)}"
            )
        target.copy_(torch.from_numpy(found.copy()))

    for name, layer in _layers(tail):
        norm = layer.norm(1.0)
        put(layer.conv.weight, f"{name}.weight")
        put(norm.bias, f"{name}.bias")
        assert norm.running_var is not None
        norm.running_var.fill_(1 - norm.eps)
    put(tail.classify.weight, "classify.weight")
    put(tail.classify.bias, "classify.bias")
    return tail.eval()


@torch.no_grad()
def restore_norms(tail: Tail, features: torch.Tensor) -> None:
    """Give a tail's norms, which must do nothing but add their bias, the statistics of these features [B, F, H, W].

    What the tail computes stays the same; layer by layer, since a norm that is measuring changes what comes after it.
    """
    tail.eval()
    for _, layer in _layers(tail):
        norm = layer.norm(1.0)
        momentum, norm.momentum = norm.momentum, 1.0
        norm.train()
        tail(features)
        norm.eval()
        norm.momentum = momentum
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.bias.add_(norm.running_mean)
        norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))


def _layers(tail: Tail) -> Iterator[tuple[str, ConvNorm]]:
    """The layers with a norm, in order, by the names that they have in a graph."""
    for index, block in enumerate(tail.typed_blocks()):
        if block.expand is not None:
            yield f"{index}.expand", block.expand
        yield f"{index}.depthwise", block.depthwise
        yield f"{index}.project", block.project
    yield "top", tail.top
