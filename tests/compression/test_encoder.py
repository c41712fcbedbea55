"""The head: sorted channels change nothing, widths share weights."""

import torch

from headwater.compression.encoder import Head, sort_channels
from headwater.compression.slimmable import ConvNorm, InvertedResidual

WIDTHS = (0.25, 1.0)


def _parts() -> tuple[ConvNorm, list[InvertedResidual]]:
    torch.manual_seed(0)
    blocks = [InvertedResidual.make(32, 16, 3, 1, 1, WIDTHS), InvertedResidual.make(16, 24, 3, 2, 6, WIDTHS)]
    return ConvNorm(1, 32, 3, stride=2, widths=WIDTHS), blocks


def test_sorting_channels_leaves_the_full_width_as_it_was() -> None:
    stem, blocks = _parts()
    head = Head(stem, blocks, 4, WIDTHS).eval()
    for norm in (m for m in head.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.1, 2.0)
    x = torch.randn(2, 1, 32, 32)
    before, narrow = head(x, 1.0), head(x, 0.25)
    sort_channels(stem, blocks)
    torch.testing.assert_close(head(x, 1.0), before, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(head(x, 0.25), narrow), "the prefix is made of other channels now"


def test_sorted_channels_fall_in_importance() -> None:
    stem, blocks = _parts()
    blocks[1].project.conv.weight.data[:, 50].mul_(100)
    sort_channels(stem, blocks)
    importance = blocks[1].project.conv.weight.abs().sum(dim=(0, 2, 3))
    assert importance.argmax() == 0
    assert (importance.diff() <= 1e-4).all()


def test_the_latent_has_the_same_shape_at_every_width() -> None:
    head = Head(*_parts(), 4, WIDTHS)
    assert {tuple(head(torch.randn(2, 1, 32, 32), width).shape) for width in WIDTHS} == {(2, 4, 8, 8)}
