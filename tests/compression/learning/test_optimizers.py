"""Steps are torch's own, to the last bit, and take none of its compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable

import pytest
import torch

from headwater.compression.learning.optimizers import Name, make

TORCHS: dict[Name, Callable[[Iterable[torch.nn.Parameter], float], torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
}
ALONE = """
import sys, torch
from torch.nn.utils import clip_grad_norm_
from headwater.compression.learning.optimizers import NAMES, make
for name in NAMES:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = make(name, [weight], 0.1)
    (weight * 2).sum().backward()
    clip_grad_norm_([weight], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    assert weight.grad is None and float(weight[0]) < 1
print("torch._dynamo" in sys.modules)
"""


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7,), (3, 5), (2,))]


def gradients(those: Iterable[torch.nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in those:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("name", TORCHS)
def test_steps_are_torchs_to_the_last_bit(name: Name) -> None:
    own, theirs = parameters(), parameters()
    stepping, reference = make(name, own, 0.1), TORCHS[name](theirs, 0.1)
    for step in range(5):
        for optimizer, those in ((stepping, own), (reference, theirs)):
            gradients(those[: 2 + step % 2], step)  # the last array is not moved in every step
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        assert all(map(torch.equal, own, theirs))
    assert not torch.equal(own[2], parameters()[2])


def test_a_scaled_step_is_a_share_of_the_array() -> None:
    (weight,) = own = [torch.nn.Parameter(torch.full((4,), 3.0))]
    weight.grad = torch.tensor([1.0, -1.0, 1.0, -1.0]) * 1e-6
    make("scaled", own, 0.1).step()
    torch.testing.assert_close(weight.detach(), torch.tensor([2.7, 3.3, 2.7, 3.3]))


def test_gradients_may_stay_as_zeros() -> None:
    own = parameters()[:1]
    gradients(own, 0)
    make("sgd", own, 0.1).zero_grad(set_to_none=False)
    assert own[0].grad is not None
    assert not own[0].grad.any()


def test_no_step_imports_torchs_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
