"""Times of layers: the graphs are right, and the curves never fall. How long things take is no matter here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.compression.inference import session
from headwater.compression.learning.surgery import units_of
from headwater.server.federation.pruning.latency import Curve, _rising, _unit_graph, beside, curves, least_ms, measure
from tests.compression.learning import small


def test_every_unit_is_timed_with_the_layers_that_it_has() -> None:
    network, seen = small.network(), {}
    for name, unit in units_of(network).items():
        unit.gives.register_forward_hook(lambda _, __, y, name=name: seen.__setitem__(name, tuple(y.shape[1:])))
    network(small.images(1), 1.0, -1)
    for name, unit in units_of(network).items():
        loaded = session(_unit_graph(network, name, small.SPEC))
        (given,) = loaded.get_inputs()
        (result,) = loaded.run(None, {"x": np.zeros(given.shape, np.float32)})
        if name == "tails.0.top":
            assert result.shape == (1, small.CLASSES)
        else:
            stride = unit.filters.stride  # type: ignore[union-attr]
            side = seen[name][1]
            assert result.shape == (1, len(unit.reading()), side, side)
            assert given.shape[2] == (32 if name == "head.blocks.0" else side * stride)


def test_a_units_graph_computes_what_its_block_does() -> None:
    network = small.network()
    block = list(network.head.inverted_residuals())[1]
    x = torch.rand(1, 8, 16, 16)
    (found,) = session(_unit_graph(network, "head.blocks.1", small.SPEC)).run(None, {"x": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, block(x, 1.0).numpy(), rtol=1e-3, atol=1e-4)


def test_curves_start_at_the_least_and_end_at_all_channels() -> None:
    network = small.network()
    found = curves(network, small.SPEC, ["head.blocks.1", "tails.0.top"], rounds=1)
    assert found["head.blocks.1"].channels[0] == 8
    assert found["head.blocks.1"].channels[-1] == 48
    assert all(np.diff(curve.ms).min() >= 0 and curve.ms[0] > 0 for curve in found.values())


def test_a_curve_never_falls_and_is_straight_between_points() -> None:
    curve = _rising([8, 16, 32], [1.0, 0.5, 3.0])
    assert curve == Curve((8, 16, 32), (1.0, 1.0, 3.0))
    assert curve.at(24) == pytest.approx(2.0)


def test_whole_networks_are_timed_at_every_width() -> None:
    times = measure(small.network(), small.SPEC, rounds=1)
    assert set(times.heads) == set(small.WIDTHS)
    assert len(times.tails) == 1
    assert min(*times.heads.values(), *times.tails) > 0
    assert len(beside([small.network(), small.network()], small.SPEC, rounds=1)) == 2


def test_the_least_of_all_turns_counts() -> None:
    class Scripted:
        def __init__(self, *times: float) -> None:
            self.times = list(times)

        def ms(self) -> float:
            return self.times.pop(0)

    runs = {"a": Scripted(3, 1, 2), "b": Scripted(5, 6, 4)}
    assert least_ms(runs, 3) == {"a": 1, "b": 4}  # type: ignore[arg-type]
