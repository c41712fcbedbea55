"""What training takes is known before it starts, and what fits is the most that does."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from headwater.compression.errors import LearningError
from headwater.compression.learning.fitting import fitting, needs
from headwater.compression.learning.meter import Meter
from headwater.compression.learning.plan import Plan
from tests import learnable

PLAN = Plan(batch=16)


def test_memory_buys_images_at_once_then_width_then_the_tail() -> None:
    network = learnable.network()
    ways = [
        replace(PLAN, width=width, part=part, at_once=at_once)
        for part in ("all", "head")
        for width in (1.0, 0.5)
        for at_once in (16, 8, 1)
    ]
    for way in ways:
        found = fitting(network, learnable.SPEC, PLAN, needs(network, learnable.SPEC, way).peak)
        assert needs(network, learnable.SPEC, found).peak <= needs(network, learnable.SPEC, way).peak
        order = [(each.part, each.width) for each in ways]
        assert order.index((found.part, found.width)) <= order.index((way.part, way.width))
    assert fitting(network, learnable.SPEC, PLAN, 1 << 40) == replace(PLAN, at_once=16)


def test_no_more_than_was_asked_for_is_tried() -> None:
    network = learnable.network()
    narrow = fitting(network, learnable.SPEC, replace(PLAN, width=0.5, part="head"), 1 << 40)
    assert (narrow.width, narrow.part) == (0.5, "head")
    with pytest.raises(LearningError, match=r"no width of at most 0\.3"):
        fitting(network, learnable.SPEC, replace(PLAN, width=0.3), 1 << 40)


def test_too_little_memory_says_how_much_is_wanted() -> None:
    network = learnable.network()
    with pytest.raises(LearningError, match=r"the narrowest head takes \d+ MB and 0 MB are allowed"):
        fitting(network, learnable.SPEC, PLAN, 1000)
    network.exit = None
    with pytest.raises(LearningError, match="--train-memory-mb"):
        fitting(network, learnable.SPEC, PLAN, 1000)


def test_each_thing_counts() -> None:
    network = learnable.network()
    dense = needs(network, learnable.SPEC, PLAN)
    assert needs(network, learnable.SPEC, replace(PLAN, at_once=4)).activations * 4 == pytest.approx(dense.activations)
    assert needs(network, learnable.SPEC, replace(PLAN, optimizer="adam")).optimizer == 2 * dense.gradients
    assert dense.optimizer == 0
    assert needs(network, learnable.SPEC, replace(PLAN, width=0.5)).activations < dense.activations
    assert needs(network, learnable.SPEC, replace(PLAN, part="head")).gradients < dense.gradients
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_meter_sees_what_was_taken_and_given_back() -> None:
    with Meter() as meter:
        array = np.ones(8_000_000)
        del array
    assert 60e6 < meter.peak_bytes < 80e6
    with Meter() as meter:
        pass
    assert meter.peak_bytes < 5e6


MEASURE = """
import json, sys, torch
torch.set_num_threads(1)
from headwater.compression.bundle import Bundle
from headwater.compression.learning.fitting import needs
from headwater.compression.learning.meter import Meter
from headwater.compression.learning.plan import Plan
from headwater.compression.learning.reading import network_of
from headwater.compression.learning.samples import Samples
from headwater.compression.learning.terms import Terms
from headwater.compression.learning.train import train
bundle = Bundle.load("simulations/bundles/solar")
samples = Samples(torch.randint(0, 256, (16, 1, 128, 128), dtype=torch.uint8), {"defect": torch.arange(16) % 2})
plan = Plan(**json.loads(sys.argv[1]))
train(network_of(bundle), samples, Plan(batch=1, epochs=0.05), Terms.of(bundle.manifest))  # libraries come to rest
with Meter() as meter:
    network = network_of(bundle)
    train(network, samples, plan, Terms.of(bundle.manifest))
print(json.dumps({"peak": meter.peak_bytes, "needs": needs(network, bundle.manifest.input, plan).peak}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [
        {"batch": 16, "optimizer": "scaled"},
        {"batch": 16, "optimizer": "adam"},
        {"batch": 16, "width": 0.25},
        {"batch": 16, "at_once": 1},
        {"batch": 16, "part": "head"},
        {"batch": 16, "part": "head", "at_once": 1, "width": 0.25},
    ],
)
def test_the_model_of_memory_holds_for_the_real_network(plan: dict[str, object]) -> None:
    """In a process of its own, with the bundle of the demo: what was foretold is enough, and not far more."""
    command = [sys.executable, "-c", MEASURE, json.dumps(plan)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    found = json.loads(result.stdout.splitlines()[-1])
    assert 0.4 * found["needs"] < found["peak"] <= 1.05 * found["needs"], found
