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

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

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
Move = Callable[[torch.nn.Parameter, torch.Tensor, float], None]
"""Moves an array, by its gradient and the step size."""


class Optimizer(Protocol):
    """What training needs of an optimiser; any of torch's is one."""

    param_groups: list[dict[str, Any]]
    """``params`` and ``lr``, the step size, of each."""

    def step(self) -> object:
        """Move every array that has a gradient."""

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's signature
        """Let go of the gradients."""


class Steps:
    """Moves each array by a function of it and its step size.

    Making one of torch's own optimisers imports torch's compiler, which costs a device seconds and 70 MB.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, move: Move) -> None:
        """Move ``parameters``."""
        self.param_groups: list[dict[str, Any]] = [{"params": list(parameters), "lr": lr}]
        self._move = move

    @torch.no_grad()
    def step(self) -> None:
        """Move every array that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"])

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's signature
        """Let go of the gradients, or fill them with zeros."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none or parameter.grad is None:
                    parameter.grad = None
                else:
                    parameter.grad.zero_()


def descend(parameter: torch.nn.Parameter, gradient: torch.Tensor, lr: float) -> None:
    """Along the gradient."""
    parameter.add_(gradient, alpha=-lr)


def scaled(parameter: torch.nn.Parameter, gradient: torch.Tensor, lr: float) -> None:
    """A step is ``lr`` times the array's own size, whatever the gradient's; where that is nothing, there is none."""
    if size := _size(gradient):
        parameter.sub_(gradient, alpha=lr * max(_size(parameter), FLOOR) / max(size, 1e-12))


class Adam:
    """Moments of each array's gradients, and the step that follows from them."""

    def __init__(self, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        """Begin with no moments."""
        self._betas, self._eps = betas, eps
        self._moments: dict[torch.nn.Parameter, tuple[torch.Tensor, torch.Tensor]] = {}
        self._count: Counter[torch.nn.Parameter] = Counter()

    def __call__(self, parameter: torch.nn.Parameter, gradient: torch.Tensor, lr: float) -> None:
        """Move an array."""
        first, second = self._betas
        if parameter not in self._moments:
            self._moments[parameter] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        mean, square = self._moments[parameter]
        self._count[parameter] += 1
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        steps = self._count[parameter]
        longest = (square.sqrt() / (1 - second**steps) ** 0.5).add_(self._eps)
        parameter.addcdiv_(mean, longest, value=-lr / (1 - first**steps))


def _size(x: torch.Tensor) -> float:
    """Root mean square."""
    return float(x.norm()) / x.numel() ** 0.5


def name_of(text: str) -> Name:
    """The optimiser of this name; raises :class:`LearningError` for another."""
    for name in NAMES:
        if name == text:
            return name
    raise LearningError(f"an optimiser is called {text!r}; want one of {', '.join(NAMES)}")


def make(name: Name, parameters: Iterable[torch.nn.Parameter], rate: float) -> Optimizer:
    """The optimiser of a name."""
    moves: dict[Name, Callable[[], Move]] = {"sgd": lambda: descend, "scaled": lambda: scaled, "adam": Adam}
    return Steps(parameters, rate, moves[name]())
