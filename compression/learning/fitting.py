"""The widest sub-network that a device's memory takes: first fewer images at once, then narrower, then the head alone.

What training needs above the idle process, in bytes, for P bytes of weights, T of which are trained:

    weights      2 P + C        the network, what its arrays were, the C bytes that code as they came; and FIXED
    gradients    T
    optimiser    T x its states
    activations  images at once x what autograd keeps of one, counted in a pass of this very network, x SLACK
    or, when training is over and the update of the sub-network of U bytes is made: 2 P + UPDATE x U, if that is more

Fewer images at once cost time and nothing else: nothing in the network looks at more than one. So a batch is split
down to single images before a width is given up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from headwater.compression.errors import LearningError
from headwater.compression.learning.layout import PARTS, layout_of
from headwater.compression.learning.optimizers import STATES

if TYPE_CHECKING:
    from headwater.compression.image import InputSpec
    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.plan import Plan

SLACK = 2.5
"""What torch and its kernels hold beside what autograd keeps: gradients of activations, packed weights, scratch."""
FIXED = 24_000_000
"""Of threads, kernels and the allocator, whatever the network."""
UPDATE = 5
"""Copies of what is sent while an update is made: after, delta, with what is owed, coded, decoded."""
_FLOAT = 4


@dataclass(frozen=True)
class Needs:
    """Bytes that training takes above the idle process."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    update: int

    @property
    def peak(self) -> int:
        """The most at any time."""
        return FIXED + self.weights + max(self.gradients + self.optimizer + self.activations, self.update)


def needs(network: SplitNetwork, spec: InputSpec, plan: Plan) -> Needs:
    """What a plan takes."""
    every = sum(parameter.numel() for parameter in network.parameters()) * _FLOAT
    layout = layout_of(network, plan.part)
    trained, sent = layout.size * _FLOAT, layout.at(plan.width).size * _FLOAT
    at_once = min(plan.at_once or plan.batch, plan.batch)
    activations = int(SLACK * at_once * _kept(network, spec, plan))
    coding = sum(p.numel() for part in (network.head, network.gains, network.prior) for p in part.parameters()) * _FLOAT
    return Needs(2 * every + coding, trained, STATES[plan.optimizer] * trained, activations, UPDATE * sent)


def fitting(network: SplitNetwork, spec: InputSpec, plan: Plan, memory_bytes: int) -> Plan:
    """The plan that fits, as near to what is asked as can be; raises :class:`LearningError` if not even the least does.

    The width that is asked for is the widest that is tried.
    """
    least: Needs | None = None
    for part in PARTS[PARTS.index(plan.part) :]:
        if part == "head" and network.exit is None:
            continue
        for width in sorted((width for width in network.widths if width <= plan.width), reverse=True):
            tried = replace(plan, part=part, width=width, at_once=1)
            least = needs(network, spec, tried)
            if least.peak <= memory_bytes:
                return _most_at_once(network, spec, tried, memory_bytes)
    if least is None:
        raise LearningError(f"there is no width of at most {plan.width:g} to train; there are {network.widths}")
    raise LearningError(
        f"training the narrowest head takes {least.peak / 1e6:.0f} MB and {memory_bytes / 1e6:.0f} MB are allowed; "
        "give --train-memory-mb more"
    )


def _most_at_once(network: SplitNetwork, spec: InputSpec, plan: Plan, memory_bytes: int) -> Plan:
    """As many images at once, a power of two of them or the batch, as fit."""
    best = plan
    while best.at_once < plan.batch:
        more = replace(best, at_once=min(2 * best.at_once, plan.batch))
        if needs(network, spec, more).peak > memory_bytes:
            break
        best = more
    return best


def _kept(network: SplitNetwork, spec: InputSpec, plan: Plan) -> int:
    """Bytes that autograd keeps for one image: of the widest width, since the narrower ones come after it."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    trained = layout_of(network, plan.part).shapes
    alive = []  # or a later tensor would be taken for one that is gone
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mode = torch.full((1,), network.mode(plan.width, -1))
        groups = torch.tensor([len(network.group_ends)])
        coded = network.code(torch.zeros(1, *spec.shape), plan.width, mode, groups, torch.Generator())
        alive.append(coded)
        if plan.part == "all":
            alive += [tail(network.decoder(coded.latent, mode)) for tail in network.typed_tails()]
        if network.exit is not None:
            alive.append(network.exit(coded.latent, plan.width))
    network.requires_grad_(requires_grad=True)
    return sum(seen.values())
