"""Channels taken out: widths stay nested, and what is left computes what it did."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwater.compression.errors import LearningError
from headwater.compression.learning.samples import normalise
from headwater.compression.learning.surgery import choose, removed, units_of, worth
from headwater.compression.slimmable import CHANNEL_MULTIPLE, channels_at
from headwater.server.training.graphs import head_graph, tail_graph
from tests.compression.learning import small

UNITS = {"head.blocks.0": 32, "head.blocks.1": 48, "head.blocks.2": 64, "tails.0.blocks.0": 96, "tails.0.top": 64}


def some(channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 1, channels).astype(np.float32)


def test_every_expansion_the_stem_and_the_top_are_units() -> None:
    units = units_of(small.network())
    assert {name: unit.channels for name, unit in units.items()} == UNITS
    assert units["head.blocks.0"].widths == small.WIDTHS
    assert units["tails.0.top"].widths == (1.0,)


def test_the_array_that_reads_a_unit_is_found_by_its_name() -> None:
    network = small.network()
    parameters = dict(network.named_parameters())
    for unit in units_of(network).values():
        array = parameters[unit.reading_name]
        assert array.shape[1] == unit.channels
        assert torch.equal(array.reshape(len(array), -1), unit.reading())


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 1000))
def test_the_prefix_of_each_width_comes_from_its_old_prefix(full: int, fewer: int, seed: int) -> None:
    C, count = 8 * max(full, fewer), 8 * min(full, fewer)
    scores = some(C, seed)
    kept = choose(scores, count, small.WIDTHS)
    assert len(set(kept.tolist())) == len(kept) == count
    for width in small.WIDTHS:
        assert kept[: channels_at(count, width)].max() < channels_at(C, width)
    narrowest = kept[: channels_at(count, small.WIDTHS[0])]
    others = np.setdiff1d(np.arange(channels_at(C, small.WIDTHS[0])), narrowest)
    assert not len(others) or scores[narrowest].min() >= scores[others].max()


def test_all_channels_kept_is_the_order_of_before() -> None:
    assert choose(some(64), 64, small.WIDTHS).tolist() == list(range(64))


def test_one_width_keeps_the_best() -> None:
    scores = some(40)
    assert set(choose(scores, 16, (1.0,)).tolist()) == set(np.argsort(-scores)[:16].tolist())
    counts = [8, 16, 40]
    assert worth(scores, counts, (1.0,)) == pytest.approx([np.sort(scores)[-n:].sum() for n in counts], rel=1e-5)


@pytest.mark.parametrize("width", small.WIDTHS)
def test_without_channels_that_nothing_reads_the_answers_are_the_same(width: float) -> None:
    network = small.network()
    kept = {n: choose(some(u.channels), u.channels // 16 * 8, u.widths) for n, u in units_of(network).items()}
    with torch.no_grad():
        for name, unit in units_of(network).items():
            silent = np.setdiff1d(np.arange(unit.channels), kept[name][: channels_at(len(kept[name]), width)])
            dict(network.named_parameters())[unit.reading_name][:, silent] = 0
    smaller = removed(network, kept)
    torch.testing.assert_close(small.logits(smaller, width), small.logits(network, width), rtol=1e-4, atol=1e-5)


def test_the_network_itself_is_left_alone() -> None:
    network = small.network()
    before = small.logits(network, 1.0)
    removed(network, {"tails.0.top": np.arange(8)})
    assert torch.equal(small.logits(network, 1.0), before)


def test_what_is_left_has_the_counts_asked_for_at_every_width_and_exports() -> None:
    network = small.network()
    kept = {n: choose(some(u.channels), u.channels // 16 * 8, u.widths) for n, u in units_of(network).items()}
    smaller = removed(network, kept)
    for name, unit in units_of(smaller).items():
        assert unit.channels == len(kept[name])
        assert all(unit.channels_at(width) % CHANNEL_MULTIPLE == 0 for width in unit.widths)
    for width in small.WIDTHS:
        graph, _ = head_graph(smaller.head, width, small.SPEC)
        image = small.images(1)
        (latent,) = ort.InferenceSession(graph).run(["latent"], {"image": image.numpy()})
        with torch.no_grad():
            wanted = smaller.head(normalise(image), width)
        np.testing.assert_allclose(latent, wanted.numpy(), rtol=1e-3, atol=1e-4)
    old, new = (tail_graph(next(each.typed_tails()), 16, 8) for each in (network, smaller))
    assert new[1].macs < 0.6 * old[1].macs
    assert len(new[0]) < len(old[0])


def test_a_stem_that_is_left_with_as_many_channels_as_its_block_makes_is_not_added_to_it() -> None:
    smaller = removed(small.network(), {"head.blocks.0": np.arange(8)})
    for width in small.WIDTHS:
        session = ort.InferenceSession(head_graph(smaller.head, width, small.SPEC)[0])
        (latent,) = session.run(["latent"], {"image": small.images(1).numpy()})
        with torch.no_grad():
            wanted = smaller.head(normalise(small.images(1)), width)
        np.testing.assert_allclose(latent, wanted.numpy(), rtol=1e-3, atol=1e-3)


def test_it_can_be_trained_on_and_pruned_again() -> None:
    network = removed(small.network(), {"head.blocks.2": np.arange(40), "tails.0.blocks.0": np.arange(64)})
    features = network.decoder(network.head(normalise(small.images()), 0.5), torch.full((8,), 3))
    next(network.typed_tails())(features).sum().backward()
    assert units_of(network)["head.blocks.2"].reads.conv.weight.grad is not None  # type: ignore[union-attr]
    again = removed(network, {"head.blocks.2": np.arange(16)})
    assert units_of(again)["head.blocks.2"].channels == 16


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"head.blocks.9": np.arange(8)}, "no unit 'head.blocks.9'"),
        ({"head.blocks.1": np.arange(0)}, "cannot keep"),
        ({"head.blocks.1": np.array([0, 0, 1, 2, 3, 4, 5, 6])}, "cannot keep"),
        ({"head.blocks.1": np.arange(45, 53)}, "cannot keep"),
        ({"head.blocks.1": np.arange(40, 48)}, "at width 0.25 uses its first 16 channels"),
    ],
)
def test_what_would_break_a_width_is_refused(kept: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(LearningError, match=message):
        removed(small.network(), kept)
