"""How a step follows from gradients, by the memory that it takes beside them.

| name     | memory | a step                                                                                           |
|----------|--------|--------------------------------------------------------------------------------------------------|
| `sgd`    | none   | along the gradient                                                                               |
| `scaled` | none   | along the gradient of each array, as long as a share of the array itself: every layer moves      |
|          |        | alike, whatever its scale (LARS without momentum: You et al., 2017, arXiv:1708.03888)            |
| `adam`   | 2 x    | Kingma and Ba, ICLR 2015                                                                         |

Memory is in multiples of what is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch

from headwater.compression.errors import LearningError

if TYPE_CHECKING:
    from collections.abc import Iterable

Name = Literal["sgd", "scaled", "adam"]
NAMES: tuple[Name, ...] = get_args(Name)
STATES: dict[Name, int] = {"sgd": 0, "scaled": 0, "adam": 2}
"""Copies of what is trained that an optimiser keeps."""
FLOOR = 1e-2
"""An array of zeros moves like one of this root mean square."""


class Scaled(torch.optim.Optimizer):
    """A step of each array is ``lr`` times its own size."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> None:
        """Move ``parameters``."""
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Move every array that has a gradient."""
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    size = max(_size(parameter), FLOOR)
                    parameter.sub_(parameter.grad, alpha=group["lr"] * size / max(_size(parameter.grad), 1e-12))


def _size(x: torch.Tensor) -> float:
    """Root mean square."""
    return float(x.norm()) / x.numel() ** 0.5


def name_of(text: str) -> Name:
    """The optimiser of this name; raises :class:`LearningError` for another."""
    for name in NAMES:
        if name == text:
            return name
    raise LearningError(f"an optimiser is called {text!r}; want one of {', '.join(NAMES)}")


def make(name: Name, parameters: Iterable[torch.nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """The optimiser of a name."""
    if name == "scaled":
        return Scaled(parameters, rate)
    return torch.optim.SGD(parameters, rate) if name == "sgd" else torch.optim.Adam(parameters, rate)
