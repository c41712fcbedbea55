"""How much each channel matters, from the training that a device does anyway.

    with collecting(network, "gradients") as collected:
        ...                                         # any number of losses and their gradients
    collected.arrays()                              # NAME:score and NAME:seen of each unit, float32 [C]

A method looks at what a channel gives, y [B, C, H, W], and at the loss's gradient g there. With y_c = 0 the channel is
gone, so the loss changes by -sum(y_c * g_c), to first order:

    activations   energy that the channel adds to the block's output, as a share of that output's: forward alone
    gradients     mean over images of |sum(y * g)|     (Molchanov et al., "Importance Estimation for Neural Network
                  Pruning", CVPR 2019, at a gate for each channel)
    sensitivity   mean over images of sum(y * g)^2     (Fisher pruning: Theis et al., 2018: the expected rise of a
                  log-likelihood loss)

A channel that a width does not use is not seen there: scores are means over what was seen, and the server averages
them over devices with the images seen as weights.

Legend: B batch, C channels of a unit, H height, W width, O outputs of the layer that reads them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from headwater.compression.errors import LearningError
from headwater.compression.learning.surgery import Unit, units_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch.utils.hooks import RemovableHandle

    from headwater.compression.learning.network import SplitNetwork

SCORE, SEEN = "score", "seen"


class Method(Protocol):
    """One way to tell how much channels matter."""

    power: int
    """Of a factor on what a channel is multiplied by where it is read, in the channel's score."""

    def watch(self, unit: Unit, into: Tally) -> list[RemovableHandle]:
        """Add to the tally whatever the network does from now on; the hooks are removed by whoever asked for them."""


class Tally:
    """Sums of a unit's channels."""

    def __init__(self, channels: int) -> None:
        """Start with nothing seen."""
        self._sum, self._seen = torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)

    def add(self, scores: torch.Tensor) -> None:
        """Count scores [B, c] of the first c channels."""
        B, c = scores.shape
        self._sum[:c] += scores.detach().double().sum(dim=0)
        self._seen[:c] += B

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The mean score of each channel and how many images it is of, [C] each; 0 for what was not seen."""
        mean = self._sum / self._seen.clamp_min(1)
        return {SCORE: mean.float().numpy(), SEEN: self._seen.float().numpy()}


class _Activations:
    """Share of the energy of the block's output that each channel adds."""

    power = 2

    def watch(self, unit: Unit, into: Tally) -> list[RemovableHandle]:
        """Two hooks: what the channels give, and what it adds up to."""
        read = unit.reading().square().sum(dim=0)  # [C]
        latest: list[torch.Tensor] = []

        def given(_module: torch.nn.Module, _inputs: object, y: torch.Tensor) -> None:
            y = y.detach()
            energy = y.square().mean(dim=(2, 3)) if unit.filters is not None else y.mean(dim=(2, 3)).square()
            latest[:] = [energy * read[: y.shape[1]]]

        def whole(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
            total = output.detach().square().flatten(2).mean(dim=2) if output.ndim == 4 else output.detach().square()
            if latest:
                into.add(latest.pop() / total.sum(dim=1, keepdim=True).clamp_min(1e-12))

        return [unit.gives.register_forward_hook(given), unit.whole.register_forward_hook(whole)]


class _Gates:
    """What closing a channel would change, to first order, from the gradient where it is read."""

    def __init__(self, power: int) -> None:
        self.power = power

    def watch(self, unit: Unit, into: Tally) -> list[RemovableHandle]:
        """One hook on what the channels give, which leaves one on its gradient."""

        def given(_module: torch.nn.Module, _inputs: object, y: torch.Tensor) -> None:
            if y.requires_grad:
                kept = y.detach()
                y.register_hook(lambda g: into.add((len(g) * (kept * g).sum(dim=(2, 3))).abs().pow(self.power)))

        return [unit.gives.register_forward_hook(given)]


METHODS: Mapping[str, Method] = {"activations": _Activations(), "gradients": _Gates(1), "sensitivity": _Gates(2)}
"""By the name that a round asks for."""


class Collected:
    """Importance of all channels of a network, as far as training has shown it."""

    def __init__(self, tallies: Mapping[str, Tally]) -> None:
        """Take a tally for each unit."""
        self._tallies = tallies

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """``NAME:score`` and ``NAME:seen`` of each unit, float32 [C]."""
        return {f"{name}:{part}": a for name, tally in self._tallies.items() for part, a in tally.arrays().items()}


@contextmanager
def collecting(network: SplitNetwork, method: str) -> Iterator[Collected]:
    """While it lasts, note how much each channel matters; raises :class:`LearningError` for a method there is not."""
    if method not in METHODS:
        raise LearningError(f"there is no importance method {method!r}; there are {', '.join(METHODS)}")
    units = units_of(network)
    tallies = {name: Tally(unit.channels) for name, unit in units.items()}
    handles = [handle for name, unit in units.items() for handle in METHODS[method].watch(unit, tallies[name])]
    try:
        yield Collected(tallies)
    finally:
        for handle in handles:
            handle.remove()


def together(gathered: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[np.float32]]:
    """Scores [C] of each unit over several devices' :meth:`Collected.arrays`, weighted by the images that they saw."""
    found: dict[str, NDArray[np.float32]] = {}
    for name in dict.fromkeys(key.rpartition(":")[0] for arrays in gathered for key in arrays):
        total = sum(_double(arrays, name, SCORE) * _double(arrays, name, SEEN) for arrays in gathered)
        seen = sum(_double(arrays, name, SEEN) for arrays in gathered)
        found[name] = np.asarray(total / np.maximum(seen, 1), np.float32)
    return found


def _double(arrays: Mapping[str, NDArray[Any]], name: str, part: str) -> NDArray[np.float64]:
    return np.asarray(arrays[f"{name}:{part}"], np.float64)
