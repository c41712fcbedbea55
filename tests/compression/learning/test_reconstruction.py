"""A network that surgery has left computes nearly what the whole one did, at every width, without a label."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from headwater.compression.learning.network import SplitNetwork
from headwater.compression.learning.reconstruction import reconstruct
from headwater.compression.learning.surgery import choose, removed, units_of
from tests import learnable


def halved(network: SplitNetwork) -> SplitNetwork:
    """With every second channel of each unit, by no importance at all."""
    kept = {}
    for name, unit in units_of(network).items():
        scores = np.arange(unit.channels, dtype=np.float32) % 2
        kept[name] = choose(scores, max(8, unit.channels // 16 * 8), unit.widths)
    return removed(network, kept)


@torch.no_grad()
def errors(network: SplitNetwork, whole: SplitNetwork, images: torch.Tensor) -> list[float]:
    """Of the logits, as a share of their spread in the whole network, by width."""
    found = []
    for width in whole.widths:
        wanted, got = (each(images, width, -1)[0] for each in (whole, network))
        found.append(float((got - wanted).square().mean() / (wanted - wanted.mean(dim=0)).square().mean()))
    return found


@pytest.fixture(scope="module")
def whole() -> SplitNetwork:
    return learnable.network().eval()


@pytest.mark.parametrize(("count", "share"), [(12, 0.7), (128, 0.5)])
def test_what_is_left_says_nearly_what_the_whole_said(whole: SplitNetwork, count: int, share: float) -> None:
    smaller, unseen = halved(whole), learnable.held_out().images
    before = errors(smaller, whole, unseen)
    reconstruct(smaller, whole, learnable.on_devices().images[:count])
    for bad, good in zip(before, errors(smaller, whole, unseen), strict=True):
        assert good < share * bad


def test_what_has_lost_nothing_stays_as_it_is(whole: SplitNetwork) -> None:
    same = copy.deepcopy(whole)
    reconstruct(same, whole, learnable.on_devices().images[:16])
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, dict(same.named_parameters())[name])
