"""Local training helps: on images that nobody has learnt from, at every width, one at a time, from skewed shares."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from headwater.compression.errors import LearningError
from headwater.compression.learning.arrays import arrays_of, load
from headwater.compression.learning.layout import layout_of
from headwater.compression.learning.losses import label_shift
from headwater.compression.learning.network import SplitNetwork
from headwater.compression.learning.optimizers import NAMES
from headwater.compression.learning.plan import Plan, Trained
from headwater.compression.learning.samples import Samples
from headwater.compression.learning.sparse import SparsePlan, sparsity_from
from headwater.compression.learning.terms import Terms
from headwater.compression.learning.train import evaluate, train
from tests import learnable

TERMS = Terms.of(learnable.bundle().manifest)
PLAN = Plan(rate=5e-3, batch=16, seed=1, distil=0.3)


def accuracy(network: SplitNetwork, width: float = 1.0) -> float:
    return evaluate(network, learnable.held_out(), width, -1)["accuracy"]


def trained(plan: Plan, samples: Samples, terms: Terms = TERMS) -> tuple[SplitNetwork, Trained]:
    network = learnable.network()
    return network, train(network, samples, plan, terms)


def few(count: int = 320) -> Samples:
    samples = learnable.on_devices()
    return Samples(samples.images[:count], {task: labels[:count] for task, labels in samples.labels.items()})


@pytest.fixture(scope="module")
def before() -> SplitNetwork:
    return learnable.network()


def test_every_width_gets_better_and_frames_stay_as_small(before: SplitNetwork) -> None:
    network, found = trained(replace(PLAN, epochs=2.0), few())
    for width in learnable.WIDTHS:
        assert accuracy(network, width) > accuracy(before, width) + 0.02
    assert found.metrics["steps"] == 40
    assert found.metrics["num-examples"] == 320
    untouched, same = trained(replace(PLAN, rate=0.0), few())
    assert accuracy(untouched) == accuracy(before)
    assert not any(delta.any() for delta in same.delta.values())
    assert found.metrics["bytes"] < 1.1 * same.metrics["bytes"]


def test_bytes_have_a_price_only_where_frames_grow() -> None:
    nothing_else = replace(TERMS, task_weight=0.0, exit_weight=0.0, rate_weights=(1.0,) * len(TERMS.rate_weights))
    _, found = trained(replace(PLAN, distil=0.0), few(64), nothing_else)
    assert not any(delta.any() for delta in found.delta.values())
    free = replace(TERMS, rate_weights=())
    plan = replace(PLAN, epochs=4.0)
    assert trained(plan, few(64))[1].metrics["bytes"] < trained(plan, few(64), free)[1].metrics["bytes"]


@pytest.mark.parametrize("optimizer", NAMES)
def test_a_step_of_any_optimiser_lowers_the_loss(optimizer: str) -> None:
    rate = {"sgd": 0.02, "scaled": 5e-3, "adam": 2e-3}[optimizer]
    plan = replace(PLAN, optimizer=optimizer, rate=rate, epochs=4.0)  # type: ignore[arg-type]  # one of NAMES
    samples = few(32)
    network, _ = trained(plan, samples)
    assert evaluate(network, samples, 1.0, -1)["loss"] < evaluate(learnable.network(), samples, 1.0, -1)["loss"]


def test_batches_of_one_are_as_good(before: SplitNetwork) -> None:
    network, found = trained(replace(PLAN, batch=1, rate=2e-3), few(120))
    assert found.metrics["steps"] == 120
    assert accuracy(network) > accuracy(before) + 0.01


@contextmanager
def drawing() -> Iterator[list[torch.Tensor]]:
    """A thread that draws from torch's own generator all the time; what it drew, from where the generator is now."""
    done, drawn = threading.Event(), list[torch.Tensor]()

    def draw() -> None:
        while not done.is_set():
            drawn.append(torch.rand(16))

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield drawn
    finally:
        done.set()
        thread.join()


@torch.random.fork_rng(devices=[])
def test_the_same_seed_gives_the_same_bits_whoever_else_draws_from_torch_s_generator() -> None:
    torch.set_num_threads(1)
    networks = [learnable.network() for _ in range(3)]
    first = train(networks[0], few(48), PLAN, TERMS).delta
    torch.manual_seed(3)
    with drawing() as drawn:
        second = train(networks[1], few(48), PLAN, TERMS).delta
    assert all(np.array_equal(first[name], second[name]) for name in first)
    torch.manual_seed(3)
    assert all(torch.equal(torch.rand(16), one) for one in drawn), "training draws nothing from it"
    other = train(networks[2], few(48), replace(PLAN, seed=2), TERMS).delta
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_a_narrow_device_changes_nothing_of_wider_ones(before: SplitNetwork) -> None:
    network, found = trained(replace(PLAN, width=0.5), few(160))
    layout = layout_of(network)
    assert {name: delta.shape for name, delta in found.delta.items()} == dict(layout.at(0.5).shapes)
    was, now = arrays_of(before), arrays_of(network)
    inside = {name: np.zeros(array.shape, np.bool_) for name, array in was.items()}
    for part in layout.cut(inside, 0.5).values():
        part[...] = True
    assert all(np.array_equal(now[name][~inside[name]], was[name][~inside[name]]) for name in was)
    assert accuracy(network, 0.5) > accuracy(before, 0.5) + 0.01


def test_a_head_alone_learns_by_the_exit_and_its_tail_goes_on_reading_it(before: SplitNetwork) -> None:
    network, found = trained(replace(PLAN, part="head", epochs=2.0), few())
    assert not any(name.startswith(("tails", "decoder")) for name in found.delta)
    was, now = arrays_of(before), arrays_of(network)
    assert all(np.array_equal(was[name], now[name]) for name in was if name.startswith(("tails", "decoder")))
    held_out = learnable.held_out()
    assert exit_accuracy(network, held_out) > exit_accuracy(before, held_out)
    assert accuracy(network) > accuracy(before) - 0.02, "the tail has not moved, and still reads what the head says"


@torch.no_grad()
def exit_accuracy(network: SplitNetwork, samples: Samples) -> float:
    from headwater.compression.learning.samples import normalise

    assert network.exit is not None
    logits = network.exit(network.head(normalise(samples.images), 1.0), 1.0)
    return float((logits.argmax(dim=1) == samples.labels[learnable.TASK.name]).float().mean())


def dull(images: torch.Tensor) -> torch.Tensor:
    """The other domain: grey on grey."""
    return (images // 2 + 60).to(torch.uint8)


def on_both(network: SplitNetwork) -> float:
    samples = learnable.held_out()
    other = evaluate(network, replace(samples, images=dull(samples.images)), 1.0, -1)["accuracy"]
    return (accuracy(network) + other) / 2


@pytest.mark.slow
def test_two_skewed_domains_averaged_are_better_than_either(before: SplitNetwork) -> None:
    """One device has black pictures of five digits, the other grey ones of the others; both one at a time."""
    samples = learnable.on_devices()
    labels = samples.labels[learnable.TASK.name]
    deltas, alone = [], []
    for low in (0, 5):
        mine = ((labels >= low) & (labels < low + 5)).nonzero()[:100, 0]
        images = samples.images[mine] if low == 0 else dull(samples.images[mine])
        plan = replace(PLAN, batch=1, rate=2e-3, seed=low)
        network, found = trained(plan, Samples(images, {learnable.TASK.name: labels[mine]}))
        deltas.append(found.delta)
        alone.append(on_both(network))
    arrays = arrays_of(before)
    network = learnable.network()
    load(network, {name: array + (deltas[0][name] + deltas[1][name]) / 2 for name, array in arrays.items()})
    assert on_both(network) > max(alone)
    assert on_both(network) > on_both(before)


def test_shares_of_labels_are_taken_out_of_the_loss() -> None:
    shift = label_shift(torch.tensor([0] * 8 + [1] * 1), 3, (29, 29, 29))
    np.testing.assert_allclose(shift.exp() / 3, [9 / 12, 2 / 12, 1 / 12], rtol=1e-5)
    assert label_shift(torch.tensor([0, 1, 1]), 2, ()).argmax() == 1
    same = label_shift(torch.arange(100) % 2, 2, (500, 500))
    assert same.abs().max() < 1e-6


def test_a_device_of_one_class_teaches_that_class_only_without_logit_adjustment(before: SplitNetwork) -> None:
    samples = few()
    mine = samples.labels[learnable.TASK.name] == 0
    share = Samples(samples.images[mine], {learnable.TASK.name: samples.labels[learnable.TASK.name][mine]})
    images = learnable.held_out().images

    @torch.no_grad()
    def says(network: SplitNetwork) -> float:
        return float((network(images, 1.0, -1)[0].argmax(dim=1) == 0).float().mean())

    adjusted, plain = (says(trained(replace(PLAN, epochs=8.0, logit_adjustment=a), share)[0]) for a in (1.0, 0.0))
    assert plain > 2 * says(before)
    assert adjusted < plain


def test_a_sparse_round_leaves_zeros_where_there_is_no_weight() -> None:
    network = learnable.network()
    plan = SparsePlan(density=0.4, keep=0.5, due=0.1, extrude=0.2, grow=True)
    sparsity = sparsity_from(network, plan.to_json(), None, arrays_of(network))
    found = train(network, few(48), replace(PLAN, gather="gradients"), TERMS, sparsity)
    weights = {name: array for name, array in arrays_of(network).items() if name.endswith("conv.weight")}
    share = sum((array != 0).sum() for array in weights.values()) / sum(array.size for array in weights.values())
    assert 0.3 < share < 0.5
    assert any(name.endswith(":at") for name in found.gathered)
    assert any(name.endswith(":score") for name in found.gathered)


@pytest.mark.parametrize(
    ("change", "text"),
    [({"width": 0.3}, "no width 0.3 to train"), ({"part": "head"}, "no local exit"), ({"rate": 1e30}, "loss became")],
)
def test_what_cannot_be_trained_says_why(change: dict[str, object], text: str) -> None:
    network = learnable.network()
    if "part" in change:
        network.exit = None
    with pytest.raises(LearningError, match=text):
        train(network, few(32), replace(PLAN, **change), TERMS)  # type: ignore[arg-type]
    with pytest.raises(LearningError, match="no images to train on"):
        train(learnable.network(), few(0), PLAN, TERMS)
    with pytest.raises(LearningError, match="trains nothing"):
        Plan(epochs=0)
    with pytest.raises(LearningError, match="rate = nan"):
        Plan(rate=float("nan"))


def test_with_little_time_it_stops_after_a_step() -> None:
    _, found = trained(replace(PLAN, seconds=1e-9), few(64))
    assert found.metrics["steps"] == 1
    assert found.metrics["num-examples"] == 16
