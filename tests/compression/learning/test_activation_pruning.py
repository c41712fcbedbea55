"""Activations that are kept as a bit mask and values: exact where they must be, and really smaller."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from headwater.compression.learning.activation_pruning import Kept, pack, pruned_conv, threshold, unpack


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
def test_the_largest_come_back_and_the_others_are_zero(keep: float, memory_format: torch.memory_format) -> None:
    x = normal(3, 16, 41, 43).contiguous(memory_format=memory_format)  # more than a block, no multiple of 8
    kept = pack(x, keep)
    back = unpack(kept)
    chosen = back != 0
    assert chosen.float().mean() == pytest.approx(keep, abs=0.015)
    assert torch.equal(back[chosen], x[chosen].half().float())
    assert x[~chosen].abs().max() <= x[chosen].abs().min() if keep < 1 else chosen.all()
    assert back.stride() == x.stride()


def test_a_kept_activation_is_a_bit_and_its_share_of_halves() -> None:
    x = normal(4, 32, 32, 32)
    for keep in (0.1, 0.3, 0.5):
        kept = pack(x, keep)
        assert kept.size == x.numel() // 8 + 2 * len(kept.values)
        assert kept.size / x.nbytes == pytest.approx(1 / 32 + keep / 2, rel=0.05)


def test_zeros_are_never_kept() -> None:
    x = normal(2, 8, 16, 16).relu()
    kept = pack(x, 0.9)
    assert len(kept.values) == (x > 0).sum()
    assert torch.equal(unpack(kept), x.half().float())


def test_nothing_but_zeros() -> None:
    kept = pack(torch.zeros(1, 3, 5, 7), 0.3)
    assert len(kept.values) == 0
    assert torch.equal(unpack(kept), torch.zeros(1, 3, 5, 7))


def test_a_value_beyond_half_precision_stays_finite() -> None:
    assert unpack(pack(torch.full((1, 1, 2, 2), -1e9), 1.0)).isfinite().all()


def test_the_threshold_is_the_same_every_time() -> None:
    x = normal(100_000)
    assert threshold(x, 0.25) == threshold(x.clone(), 0.25)
    assert (x.abs() > threshold(x, 0.25)).float().mean() == pytest.approx(0.25, abs=0.01)


CASES = [
    pytest.param({"stride": 1, "groups": 1}, (24, 8, 1, 1), id="expand"),
    pytest.param({"stride": 2, "groups": 8}, (8, 1, 3, 3), id="depthwise"),
    pytest.param({"stride": 2, "groups": 1}, (16, 8, 3, 3), id="stem"),
]


def gradients(
    how: dict[str, int], shape: tuple[int, ...], *, keep: float | None, ceiling: float | None
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    x = (2 * normal(2, 8, 9, 9)).relu().contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = normal(*shape, seed=1).requires_grad_(), (3 * normal(shape[0], seed=2)).requires_grad_()
    if keep is None:
        y = functional.conv2d(x, weight, bias, how["stride"], shape[-1] // 2, groups=how["groups"])
        y = y if ceiling is None else y.clamp(0, ceiling)
    else:
        y = pruned_conv(x, weight, bias, keep=keep, ceiling=ceiling, **how)
    y.backward(normal(*y.shape, seed=3))
    return y.detach(), [each.grad for each in (x, weight, bias) if each.grad is not None]


@pytest.mark.parametrize(("how", "shape"), CASES)
@pytest.mark.parametrize("ceiling", [None, 6.0, math.inf])
def test_forward_and_the_gradients_that_go_on_are_exact_whatever_is_kept(
    how: dict[str, int], shape: tuple[int, ...], *, ceiling: float | None
) -> None:
    wanted, (wanted_x, wanted_weight, wanted_bias) = gradients(how, shape, keep=None, ceiling=ceiling)
    for keep in (0.05, 1.0):
        y, (x, weight, bias) = gradients(how, shape, keep=keep, ceiling=ceiling)
        torch.testing.assert_close(y, wanted)
        torch.testing.assert_close(x, wanted_x)
        torch.testing.assert_close(bias, wanted_bias)
    torch.testing.assert_close(weight, wanted_weight, rtol=2e-3, atol=2e-2)  # all kept: to half precision


def test_the_weights_gradient_is_that_of_the_kept_input() -> None:
    x, weight, bias = 2 * normal(2, 8, 9, 9), normal(4, 8, 3, 3, seed=1).requires_grad_(), torch.zeros(4)
    y = pruned_conv(x, weight, bias, keep=0.3)
    up = normal(*y.shape, seed=3)
    (found,) = torch.autograd.grad(y, weight, up)
    wanted = torch.nn.grad.conv2d_weight(unpack(pack(x, 0.3)), weight.shape, up, padding=1)
    torch.testing.assert_close(found, wanted)
    full = torch.nn.grad.conv2d_weight(x, weight.shape, up, padding=1)
    assert torch.cosine_similarity(found.flatten(), full.flatten(), dim=0) > 0.7


@pytest.mark.parametrize(("ceiling", "most", "gate"), [(6.0, 6, 0), (math.inf, 7, 1)])
def test_the_gates_are_open_between_0_and_the_ceiling_only(ceiling: float, most: float, gate: float) -> None:
    x = torch.tensor([-1.0, 0.5, 5.5, 7.0]).view(1, 1, 2, 2).requires_grad_()
    y = pruned_conv(x, torch.ones(1, 1, 1, 1), torch.zeros(1), keep=0.25, ceiling=ceiling)
    assert y.flatten().tolist() == [0, 0.5, 5.5, most]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 1, 1, gate]


def saved_bytes(layers: int, keep: float | None) -> int:
    """Bytes of tensors that a chain of layers leaves alive for backward, its input and output not counted."""
    x = normal(4, 16, 32, 32).requires_grad_()
    weight, bias = normal(16, 16, 1, 1, seed=1).mul_(0.3).requires_grad_(), torch.zeros(16, requires_grad=True)
    y = x
    for _ in range(layers):
        if keep is None:
            y = functional.relu6(functional.conv2d(y, weight, bias), inplace=True)
        else:
            y = pruned_conv(y, weight, bias, keep=keep, ceiling=6.0)
    return _reachable(y)


def _reachable(y: torch.Tensor) -> int:
    """Bytes of the tensors that the graph behind ``y`` has saved, each storage once."""
    sizes: dict[int, int] = {}
    nodes, seen = [y.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        for tensor in _saved(node):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _saved(node: torch.autograd.graph.Node) -> list[torch.Tensor]:
    if hasattr(node, "saved_tensors"):  # a function of ours
        return list(node.saved_tensors)
    found = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    return [each for each in found if isinstance(each, torch.Tensor)]


def test_what_is_saved_really_takes_less() -> None:
    dense = saved_bytes(6, None)
    pruned = saved_bytes(6, 0.3)
    one = 4 * 16 * 32 * 32 * 4
    assert dense > 5.9 * one  # a map a layer, in place
    # A bit for the mask, a bit for the gate, two bytes for each value that is kept: at most 0.3 of them.
    assert pruned < 6 * one * (2 / 32 + 0.3 / 2) * 1.15


def test_nothing_is_saved_for_a_weight_that_is_not_trained() -> None:
    x = normal(1, 4, 8, 8).requires_grad_()
    y = pruned_conv(x, normal(4, 4, 1, 1), torch.zeros(4), keep=0.5)
    assert _reachable(y) < x.nbytes / 8
    y.sum().backward()
    assert x.grad is not None


def test_kept_is_plain_data() -> None:
    kept = pack(normal(1, 2, 3, 3), 0.5)
    assert isinstance(kept, Kept)
    assert kept.bits.dtype == torch.uint8
    assert kept.values.dtype == torch.float16
