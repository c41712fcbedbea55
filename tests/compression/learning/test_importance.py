"""One contract for every importance method; a new one passes it or is not done."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from headwater.compression.errors import LearningError
from headwater.compression.learning.importance import METHODS, collecting, together
from headwater.compression.learning.network import SplitNetwork
from headwater.compression.learning.samples import normalise
from headwater.compression.learning.surgery import removed, units_of
from tests.compression.learning import small

UNIT = "tails.0.blocks.0"
every_method = pytest.mark.parametrize("method", METHODS)


def losses(network: SplitNetwork, images: torch.Tensor, width: float = 1.0) -> torch.Tensor:
    """Mean over the images; each image's class is told by its first pixel."""
    latent = network.head(normalise(images), width)
    mode = torch.full((len(images),), network.mode(width, -1))
    logits = next(network.typed_tails())(network.decoder(latent, mode))
    return functional.cross_entropy(logits, images[:, 0, 0, 0].long() % small.CLASSES)


def collect(network: SplitNetwork, method: str, *batches: torch.Tensor, width: float = 1.0) -> dict[str, np.ndarray]:
    with collecting(network, method) as collected:
        for images in batches:
            losses(network, images, width).backward()
    return collected.arrays()


def reading(network: SplitNetwork, unit: str) -> torch.Tensor:
    return dict(network.named_parameters())[units_of(network)[unit].reading_name].data


@every_method
def test_every_channel_of_every_unit_gets_a_finite_score(method: str) -> None:
    network = small.network()
    found = collect(network, method, small.images(8))
    for name, unit in units_of(network).items():
        score, seen = found[f"{name}:score"], found[f"{name}:seen"]
        assert score.shape == seen.shape == (unit.channels,)
        assert score.dtype == seen.dtype == np.float32
        assert np.isfinite(score).all()
        assert (score >= 0).all()
        assert score.max() > 0
        assert (seen == 8).all()


@every_method
@pytest.mark.parametrize("unit", ["head.blocks.1", UNIT, "tails.0.top"])
def test_a_channel_that_nothing_reads_is_worth_nothing(method: str, unit: str) -> None:
    network = small.network()
    reading(network, unit)[:, 5] = 0
    score = collect(network, method, small.images(8))[f"{unit}:score"]
    assert score[5] == pytest.approx(0, abs=1e-12)


@every_method
def test_a_channel_that_is_read_loudly_is_worth_most(method: str) -> None:
    network = small.network()
    alive = int(collect(network, method, small.images(8))[f"{UNIT}:score"].argmax())
    others = [c for c in range(96) if c != alive]
    reading(network, UNIT)[:, others] *= 0.01
    assert collect(network, method, small.images(8))[f"{UNIT}:score"].argmax() == alive


@every_method
def test_scores_follow_the_channels(method: str) -> None:
    network = small.network()
    order = np.random.default_rng(0).permutation(96)
    there = collect(network, method, small.images(8))[f"{UNIT}:score"]
    moved = collect(removed(network, {UNIT: order}), method, small.images(8))[f"{UNIT}:score"]
    np.testing.assert_allclose(moved, there[order], rtol=1e-2, atol=1e-7)


@every_method
def test_two_batches_are_as_good_as_one_and_two_devices_too(method: str) -> None:
    network, images = small.network(), small.images(12)
    whole = collect(network, method, images)
    parts = collect(network, method, images[:6], images[6:])
    apart = together([collect(network, method, images[:6]), collect(network, method, images[6:])])
    for name in units_of(network):
        np.testing.assert_allclose(parts[f"{name}:score"], whole[f"{name}:score"], rtol=1e-3, atol=1e-8)
        np.testing.assert_allclose(apart[name], whole[f"{name}:score"], rtol=1e-3, atol=1e-8)


@every_method
def test_what_a_width_does_not_use_is_not_seen(method: str) -> None:
    network = small.network()
    found = collect(network, method, small.images(8), width=0.25)
    for name, unit in units_of(network).items():
        used = unit.channels_at(0.25) if name.startswith("head") else unit.channels
        assert (found[f"{name}:seen"] > 0).sum() == used
        assert (found[f"{name}:score"][used:] == 0).all()


@every_method
def test_a_device_that_saw_nothing_does_not_count(method: str) -> None:
    network = small.network()
    wide = collect(network, method, small.images(8))
    narrow = collect(network, method, small.images(8, seed=1), width=0.25)
    both = together([wide, narrow])
    np.testing.assert_allclose(both["head.blocks.2"][16:], wide["head.blocks.2:score"][16:])


@every_method
def test_watching_changes_no_gradient_and_leaves_nothing_behind(method: str) -> None:
    watched, alone = small.network(), small.network()
    collect(watched, method, small.images(8))
    losses(alone, small.images(8)).backward()
    for (name, one), (_, other) in zip(watched.named_parameters(), alone.named_parameters(), strict=True):
        if other.grad is not None:
            assert torch.equal(one.grad, other.grad), name  # type: ignore[arg-type]
    assert not any(module._forward_hooks for module in watched.modules())


@every_method
def test_an_error_in_training_leaves_nothing_behind(method: str) -> None:
    network = small.network()
    with pytest.raises(ZeroDivisionError), collecting(network, method):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in network.modules())


@every_method
def test_a_score_grows_with_its_power_of_what_reads_the_channel(method: str) -> None:
    """The server clears scores of channels on their way out by it: see soft_masks.py."""
    network = small.network()
    before = collect(network, method, small.images(8))[f"{UNIT}:score"]
    quiet = int(np.argsort(before)[40])  # so little of the whole that the rest stays as it is
    reading(network, UNIT)[:, quiet] *= 0.5
    after = collect(network, method, small.images(8))[f"{UNIT}:score"]
    assert after[quiet] / before[quiet] == pytest.approx(0.5 ** METHODS[method].power, rel=0.25)


def test_the_taylor_score_is_what_closing_the_gate_changes() -> None:
    network, images = small.network(), small.images(1)
    score = collect(network, "gradients", images)[f"{UNIT}:score"]
    channel = int(score.argmax())
    weight, step = reading(network, UNIT), 1e-2
    with torch.no_grad():
        before = losses(network, images).item()
        weight[:, channel] *= 1 - step
        change = losses(network, images).item() - before
    assert abs(change) / step == pytest.approx(score[channel], rel=0.05)


def test_a_method_that_there_is_not() -> None:
    with (
        pytest.raises(LearningError, match="no importance method 'magic'; there are activations, gradients"),
        collecting(small.network(), "magic"),
    ):
        pass
