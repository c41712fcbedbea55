"""Sparse training on a device: what is masked stays 0, what is due is emptied, what may grow is reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from headwater.compression.errors import LearningError
from headwater.compression.learning import masks as masking
from headwater.compression.learning.arrays import arrays_of
from headwater.compression.learning.network import SplitNetwork
from headwater.compression.learning.samples import normalise
from headwater.compression.learning.sparse import SparsePlan, Sparsity, keeping, maskable, sparsity_of
from headwater.compression.slimmable import ConvNorm
from tests.compression.learning import small

STEPS = 6


def masks_of(network: SplitNetwork, density: float = 0.5) -> dict[str, np.ndarray]:
    return masking.first(arrays_of(network), maskable(network), density)


def trained(network: SplitNetwork, sparsity: Sparsity) -> list[float]:
    """A few steps; the learning rates that they had."""
    optimizer, rates = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9), []
    with sparsity.installed():
        for step in range(STEPS):
            sparsity.before_step(last=step == STEPS - 1)
            latent = network.head(normalise(small.images(6, seed=step)), 1.0)
            logits = next(network.typed_tails())(network.decoder(latent, torch.full((6,), 5)))
            functional.cross_entropy(logits, torch.arange(6) % small.CLASSES).backward()
            rates.append(sparsity.rate(step / STEPS))
            sparsity.step(optimizer, 1e9)
    return rates


def test_weights_outside_the_masks_are_0_and_stay_0() -> None:
    network = small.network()
    masks, before = masks_of(network), arrays_of(network)
    trained(network, sparsity_of(network, SparsePlan(keep=0.3), masks))
    after = arrays_of(network)
    for name, mask in masks.items():
        assert not after[name][~mask].any()
    assert any(not np.array_equal(after[name][mask], before[name][mask]) for name, mask in masks.items())


def test_norms_biases_gains_and_priors_stay_dense() -> None:
    names = maskable(small.network())
    assert "tails.0.classify.weight" in names
    assert "head.blocks.1.expand.conv.weight" in names
    assert not [name for name in names if "norms" in name or "bias" in name or "gains" in name or "prior" in name]


def test_extrusion_empties_what_is_due_and_nothing_else() -> None:
    plan = SparsePlan(density=0.5, extrude=0.5, due=0.2)
    pulled, left = small.network(), small.network()
    masks = masks_of(pulled)
    name = "tails.0.blocks.0.expand.conv.weight"
    due = masking.due(arrays_of(pulled)[name], masks[name], 0.2)
    rates = trained(pulled, sparsity_of(pulled, plan, masks))
    trained(left, sparsity_of(left, SparsePlan(density=0.5, due=0.2), masks))
    with_it, without = arrays_of(pulled)[name], arrays_of(left)[name]
    assert np.abs(with_it[due]).mean() < 0.2 * np.abs(without[due]).mean()
    rest = masks[name] & ~due
    assert np.abs(with_it[rest]).mean() > 0.9 * np.abs(without[rest]).mean()
    assert rates == [pytest.approx((2 * STEPS - 2 * b) / (2 * STEPS - b)) for b in range(STEPS)]


def test_what_is_due_is_what_the_server_will_drop() -> None:
    network = small.network()
    masks = masks_of(network, 0.3)
    trained(network, sparsity_of(network, SparsePlan(density=0.3, extrude=0.6, due=0.2), masks))
    start = masking.apply(arrays_of(small.network()), masks)
    everywhere = {name: np.ones_like(array) for name, array in start.items()}
    _, after = masking.adjust(arrays_of(network), masks, everywhere, 0.2)
    for name, mask in masks.items():
        due = masking.due(start[name], mask, 0.2)
        if due.sum() > 20 and not mask.all():
            dropped = mask & ~after[name]
            assert (dropped & due).sum() > 0.9 * dropped.sum()


def test_without_extrusion_steps_keep_their_size() -> None:
    network = small.network()
    assert trained(network, sparsity_of(network, SparsePlan(), masks_of(network))) == [1.0] * STEPS


def test_gradients_of_what_may_grow_are_reported_at_the_end() -> None:
    network = small.network()
    masks = masks_of(network, 0.3)
    sparsity = sparsity_of(network, SparsePlan(density=0.3, due=0.2, grow=True), masks)
    trained(network, sparsity)
    found = sparsity.gathered()
    for name, mask in masks.items():
        at, value = found[f"{name}:at"], found[f"{name}:value"]
        assert at.dtype == np.uint32
        assert value.dtype == np.float32
        assert len(at) == len(value) <= max(2 * int(0.2 * mask.sum()), 0)
        assert not mask.reshape(-1)[at].any()
    assert any(len(array) for array in found.values())


def test_masks_of_another_network_are_refused() -> None:
    network = small.network()
    with pytest.raises(LearningError, match="no weights of the network have the masks of nothing"):
        sparsity_of(network, SparsePlan(), {"nothing": np.ones((2, 2), np.bool_)})


def test_keeping_ends_with_the_training_also_by_an_error() -> None:
    network = small.network()
    with pytest.raises(ZeroDivisionError), keeping(network, 0.2):  # noqa: PT012 - looked at on the way
        assert all(layer.keep == 0.2 for layer in network.modules() if isinstance(layer, ConvNorm))
        raise ZeroDivisionError
    assert all(layer.keep == 1 for layer in network.modules() if isinstance(layer, ConvNorm))


def test_a_plan_survives_the_wire() -> None:
    plan = SparsePlan(0.2, 0.4, 0.1, 0.15, grow=True)
    assert SparsePlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "text", ["", "[]", '{"dense": 1}', '{"density": 0}', '{"keep": 2}', '{"extrude": -1}', '{"density": NaN}', "5"]
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(LearningError):
        SparsePlan.from_json(text)
