"""Slimmable layers: prefixes of one weight set, a norm a width, folding."""

import pytest
import torch

from headwater.compression.slimmable import Activation, ConvNorm, InvertedResidual, channels_at

WIDTHS = (0.25, 0.5, 1.0)


def _lived_in(module: torch.nn.Module) -> torch.nn.Module:
    """Give every norm statistics and weights of its own, as training would."""
    generator = torch.Generator().manual_seed(3)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor, low in (
                (layer.running_mean, -1),
                (layer.running_var, 0.5),
                (layer.weight, 0.5),
                (layer.bias, -1),
            ):
                assert tensor is not None
                tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator))
    return module.eval()


@pytest.mark.parametrize(
    ("full", "width", "channels"),
    [(32, 0.25, 8), (96, 0.25, 24), (144, 0.75, 112), (144, 1.0, 144), (8, 0.25, 8), (6, 0.5, 6)],
)
def test_channels_are_multiples_of_eight_and_never_more_than_there_are(full: int, width: float, channels: int) -> None:
    assert channels_at(full, width) == channels


def test_a_narrow_layer_uses_the_leading_channels_of_the_full_weight() -> None:
    layer = _lived_in(ConvNorm(16, 32, 3, activation=None, widths=(0.5, 1.0)))
    assert isinstance(layer, ConvNorm)
    x = torch.randn(2, 8, 9, 9)
    y = layer(x, 16, 0.5)
    assert y.shape == (2, 16, 9, 9)
    layer.conv.weight.data[16:].fill_(7.0)
    layer.conv.weight.data[:, 8:].fill_(7.0)
    assert torch.equal(layer(x, 16, 0.5), y)
    layer.conv.weight.data[0, 0].add_(1.0)
    assert not torch.equal(layer(x, 16, 0.5), y)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("depthwise", [False, True])
def test_folding_the_norm_leaves_the_function_as_it_was(width: float, depthwise: bool) -> None:
    layer = _lived_in(ConvNorm(32, 32, 3, stride=2, depthwise=depthwise, activation=None, widths=WIDTHS))
    assert isinstance(layer, ConvNorm)
    outputs = channels_at(32, width)
    inputs = outputs if depthwise else 24
    x = torch.randn(2, inputs, 10, 10)
    weight, bias = layer.folded(inputs, outputs, width)
    folded = torch.nn.functional.conv2d(x, weight, bias, 2, 1, groups=outputs if depthwise else 1)
    torch.testing.assert_close(folded, layer(x, outputs, width), rtol=1e-4, atol=1e-4)


def test_each_width_has_statistics_of_its_own() -> None:
    layer = ConvNorm(8, 16, 1, widths=(0.5, 1.0)).train()
    layer(torch.randn(8, 8, 4, 4) + 3, 8, 0.5)
    narrow, full = layer.norm(0.5).running_mean, layer.norm(1.0).running_mean
    assert narrow is not None
    assert full is not None
    assert narrow[:8].abs().sum() > 0
    assert narrow[8:].abs().sum() == 0, "channels that were not run keep their statistics"
    assert full.abs().sum() == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_a_block_keeps_all_channels_at_its_ends(width: float) -> None:
    block = InvertedResidual.make(16, 16, 3, 1, 6, WIDTHS)
    assert block(torch.randn(2, 16, 6, 6), width).shape == (2, 16, 6, 6)
    assert block.residual


def test_a_block_without_an_expansion_adds_nothing_however_many_channels_it_has() -> None:
    block = InvertedResidual.make(16, 16, 3, 1, 1, WIDTHS)
    assert not block.residual
    assert block(torch.randn(2, 8, 6, 6), WIDTHS[0]).shape == (2, 16, 6, 6)


@pytest.mark.parametrize("side", [1, 2, 3, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_small_maps_are_filtered_as_if_no_tap_had_been_left_out(side: int, stride: int) -> None:
    layer = _lived_in(ConvNorm(8, 8, 5, stride=stride, depthwise=True, activation=None))
    assert isinstance(layer, ConvNorm)
    x = torch.randn(2, 8, side, side)
    weight, bias = layer.folded(8, 8)
    whole = torch.nn.functional.conv2d(x, weight, bias, stride, 2, groups=8)
    torch.testing.assert_close(layer(x), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
def test_a_frozen_layer_s_gradients_are_those_of_torch_s_own_functions(activation: Activation | None) -> None:
    layer = _lived_in(ConvNorm(8, 16, 3, activation=activation, widths=WIDTHS))
    assert isinstance(layer, ConvNorm)
    frozen = layer.frozen(slim=True)
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    loss = frozen(x, 8, 0.5).square().sum()
    found = torch.autograd.grad(loss, [x, frozen.conv.weight])
    scale, shift = frozen.norm_factors(0.5)
    plain = torch.nn.functional.conv2d(x, frozen.conv.weight[:8] * scale[:, None, None, None], shift, padding=1)
    kinds = {None: torch.nn.Identity(), "relu": torch.nn.ReLU(), "relu6": torch.nn.ReLU6()}
    wanted = torch.autograd.grad(kinds[activation](plain).square().sum(), [x, frozen.conv.weight])
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(frozen(x, 8, 0.5), layer(x, 8, 0.5), rtol=1e-4, atol=1e-4)
