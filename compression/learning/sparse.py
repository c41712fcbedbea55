"""Dynamic sparse training on a device, after FedMef (Huang et al., CVPR 2024).

:class:`Sparsity` is what `train` calls; :func:`sparsity_of` makes it from a plan. While it lasts,

- weights outside the masks are 0 and stay 0;
- *budget-aware extrusion*: of the active weights those due to be dropped at the next adjustment are pulled to 0, so
  that the others learn to do without them, while the step size falls to 0 over the steps there are:
  ``(2B - 2b) / (2B - b)`` after b of B. FedMef adds ``lambda * ||w||^2`` of these weights to the loss; as with weight
  decay (Loshchilov and Hutter, ICLR 2019) the pull is taken out of the gradient here, so that no optimiser rescales it:
  each step takes ``extrude`` of such a weight away, times the schedule (of plain descent, 2 * rate * lambda);
- *scaled activation pruning*: of what backward needs of a layer's input only the largest ``keep`` is kept, as a bit
  mask and values (:mod:`headwater.compression.learning.activation_pruning`);
- in a round that ends with an adjustment, the largest gradients of inactive weights are kept for the server.

    sparsity = sparsity_from(network, plan.sparse, masks, arrays)
    with sparsity.installed():
        for b, batch in enumerate(batches):
            sparsity.before_step(last=b == B - 1)
            loss(batch).backward()                    # rates are multiplied by sparsity.rate(b / B)
            sparsity.step(optimizer, longest)
    trained.gathered = sparsity.gathered()            # as a record "gathered" beside the update

Of a masked weight's gradient the values of active weights alone are kept, from the moment that backward has made it: at
a density of 0.3 that is a third of the memory of dense gradients. They are laid out again one array at a time, when it
is moved.

On the wire, the round's record has ``sparse``, a :class:`SparsePlan` as JSON ("" for a dense round). Masks belong to
versions: the *note* of a step from one version to the next, where it is not empty, gives the masks of the latter
(:func:`headwater.compression.learning.masks.from_bytes`, read before the step's update); the update is coded with those
masks, and the version is 0 outside them. A device keeps the masks of the version that it holds.
"""

from __future__ import annotations

import json
import math
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from headwater.compression.errors import LearningError
from headwater.compression.learning import masks as masking
from headwater.compression.slimmable import ConvNorm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from headwater.compression.learning.optimizers import Optimizer

CANDIDATES = 2
"""How many gradients a device reports for each weight that grows: no two devices have the same largest ones."""


class Sparsity(Protocol):
    """What training calls; all of it is on the network that it was made for."""

    def installed(self) -> AbstractContextManager[None]:
        """While it lasts, the network's layers keep less of their activations; at its start masks are applied."""

    def rate(self, done: float) -> float:
        """Factor of the learning rates when a share ``done`` of the steps is over."""

    def before_step(self, *, last: bool) -> None:
        """A step begins: gradients are made next. ``last``: no other step follows."""

    def step(self, optimizer: Optimizer, longest: float) -> None:
        """Move what is trained, its gradients together no longer than ``longest``; none of them are left."""

    def gathered(self) -> dict[str, NDArray[Any]]:
        """What the server needs for an adjustment: ``NAME:at`` uint32 and ``NAME:value`` float32 of each mask."""


@dataclass(frozen=True)
class SparsePlan:
    """What a server asks of a sparse round; JSON on the wire."""

    density: float = 0.5
    """Share of the maskable weights that are active."""
    keep: float = 1.0
    """Share of each layer's input that is kept for backward; 1 keeps all."""
    extrude: float = 0.0
    """Share of a weight due to be dropped that the first step takes away; 0 leaves extrusion and its schedule out."""
    due: float = 0.0
    """Share of each layer's active weights that the next adjustment replaces."""
    grow: bool = False
    """Whether an adjustment follows this round, so that gradients are wanted."""

    def __post_init__(self) -> None:
        """Raise :class:`LearningError` for a share that is none."""
        shares = {"density": self.density, "keep": self.keep}
        if wrong := [f"{name} = {value}" for name, value in shares.items() if not 0 < value <= 1]:
            raise LearningError(f"of a sparse plan {', '.join(wrong)} has to be above 0 and at most 1")
        if not 0 <= self.due < 1 or self.extrude < 0:
            raise LearningError(
                f"of a sparse plan due = {self.due} has to be in 0..1 and extrude = {self.extrude} >= 0"
            )

    def coded(self, arrays: masking.Arrays, masks: masking.Masks) -> dict[str, NDArray[np.bool_]]:
        """What an update codes of a version with these arrays and masks: nothing of what goes when the round ends.

        Extrusion changes those weights more than learning does all others, and in ways that have no strong components:
        coded, it would take the place of what was learnt, and what did not fit would come back in later rounds.
        """
        if not self.grow:
            return dict(masks)
        return {name: mask & ~masking.due(arrays[name], mask, self.due) for name, mask in masks.items()}

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> SparsePlan:
        """Read :meth:`to_json`; raises :class:`LearningError` for anything else."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            names = ", ".join(field.name for field in fields(cls))
            raise LearningError(f"{text[:80]!r} is no sparse plan, an object of {names}: {error}") from error


def maskable(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that may be sparse, by their names in ``named_parameters``: convolutions and linear layers.

    Norms, biases, gains and priors stay dense.
    """
    layers = ((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    return {f"{name}.weight".removeprefix("."): tuple(layer.weight.shape) for name, layer in layers}


def sparsity_from(
    network: nn.Module, plan: str, masks: masking.Masks | None, arrays: masking.Arrays
) -> Sparsity | None:
    """What a round asks of training, None for a dense one.

    Args:
        network: that is trained, with the arrays of this round's version.
        plan: the round's ``sparse``.
        masks: those that came with that version; None where no version has had any yet.
        arrays: of that version.

    Raises :class:`LearningError` for a plan that is none, or masks that are not of this network.
    """
    if not plan:
        return None
    known = SparsePlan.from_json(plan)
    return sparsity_of(network, known, masks or masking.first(arrays, maskable(network), known.density))


def sparsity_of(network: nn.Module, plan: SparsePlan, masks: masking.Masks) -> Sparsity:
    """Make a network train sparse by a plan; raises :class:`LearningError` if masks and network do not fit."""
    shapes = maskable(network)
    if wrong := [name for name, mask in masks.items() if shapes.get(name) != mask.shape]:
        raise LearningError(f"no weights of the network have the masks of {', '.join(wrong)}; has the model changed?")
    return _FedMef(network, plan, masks)


class _FedMef:
    def __init__(self, network: nn.Module, plan: SparsePlan, masks: masking.Masks) -> None:
        self._network, self._plan, self._masks = network, plan, masks
        parameters = dict(network.named_parameters())
        self._weights = {name: parameters[name] for name in masks}
        self._active: dict[str, torch.Tensor] = {name: torch.from_numpy(mask) for name, mask in masks.items()}
        self._due: dict[str, NDArray[np.uint8]] = {}
        self._gradients: dict[str, torch.Tensor] = {}
        self._gathered: dict[str, NDArray[Any]] = {}
        self._schedule, self._last = 1.0, False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While it lasts, the network's layers keep less of their activations; at its start masks are applied."""
        self._clear()
        if self._plan.extrude and self._plan.due:
            for name, mask in self._masks.items():
                due = masking.due(self._weights[name].detach().numpy(), mask, self._plan.due)
                self._due[name] = np.packbits(due)
        with keeping(self._network, self._plan.keep), ExitStack() as hooks:
            for name, weight in self._weights.items():
                hooks.callback(weight.register_post_accumulate_grad_hook(partial(self._take, name)).remove)
            yield

    def rate(self, done: float) -> float:
        """Factor of the learning rates when a share ``done`` of the steps is over."""
        self._schedule = (2 - 2 * done) / (2 - done) if self._due else 1.0
        return self._schedule

    def before_step(self, *, last: bool) -> None:
        """A step begins: gradients are made next."""
        self._last = last

    def _take(self, name: str, weight: torch.Tensor) -> None:
        """Keep of a gradient, as soon as it is there, what is wanted of it."""
        assert weight.grad is not None
        if self._last and self._plan.grow:
            self._gather(name, weight.grad.numpy())
        values = weight.grad[self._active[name]]
        self._gradients[name] = self._gradients[name].add_(values) if name in self._gradients else values
        weight.grad = None

    def _gather(self, name: str, gradient: NDArray[np.float32]) -> None:
        """What may grow is what has the largest gradients in the first pass of the step; the other passes add to it."""
        at = self._gathered.get(f"{name}:at")
        if at is not None:
            self._gathered[f"{name}:value"] += gradient.reshape(-1)[at]
            return
        mask = self._masks[name]
        count = CANDIDATES * int(self._plan.due * int(mask.sum()))
        for part, array in masking.top_gradients(gradient, mask, count).items():
            self._gathered[f"{name}:{part}"] = array

    @torch.no_grad()
    def step(self, optimizer: Optimizer, longest: float) -> None:
        """Move the dense arrays, then each masked one by the gradient of its active weights."""
        dense = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        every = [*dense, *self._gradients.values()]
        factor = min(1.0, longest / (math.hypot(*(float(gradient.norm()) for gradient in every)) + 1e-6))
        for gradient in every:
            gradient.mul_(factor)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for name in list(self._gradients):
            weight = self._weights[name]
            weight.grad = torch.zeros_like(weight).masked_scatter_(self._active[name], self._gradients.pop(name))
            optimizer.step()
            weight.grad = None
        self._clear()

    @torch.no_grad()
    def _clear(self) -> None:
        """Put weights outside the masks back to 0, wherever the optimiser moved them; pull at those that are due."""
        for name, weight in self._weights.items():
            weight.masked_fill_(self._active[name].logical_not(), 0)
            if name in self._due:
                due = np.unpackbits(self._due[name], count=weight.numel()).reshape(weight.shape)
                weight.sub_(weight * torch.from_numpy(due), alpha=self._plan.extrude * self._schedule)

    def gathered(self) -> dict[str, NDArray[Any]]:
        """What the server needs for an adjustment."""
        return self._gathered


@contextmanager
def keeping(network: nn.Module, keep: float) -> Iterator[None]:
    """While it lasts, layers whose norm is frozen keep only a share of their input for backward."""
    layers = [layer for layer in network.modules() if isinstance(layer, ConvNorm)]
    for layer in layers:
        layer.keep = keep
    try:
        yield
    finally:
        for layer in layers:
            layer.keep = 1.0
