"""Pruning in rounds with headwater's own ClientApp, on a real bundle: devices and server hold the same, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.compression.errors import SettingsError
from headwater.compression.learning.arrays import version_of
from headwater.compression.learning.network import SplitNetwork
from headwater.compression.learning.reading import network_of
from headwater.compression.learning.sparse import maskable
from headwater.compression.learning.surgery import units_of
from headwater.device.federated.app import app
from headwater.protos.flower import acting_as
from headwater.server.federation.app import rounds_of
from headwater.server.federation.inprocess import InProcessGrid
from headwater.server.federation.pruning.latency import Curve, Times
from headwater.server.federation.pruning.soft_masks import Allotment, SoftMasks, StructuredSettings
from headwater.server.federation.pruning.sparse import Sparse, SparseSettings
from headwater.server.federation.pruning.structured import carve
from headwater.server.federation.settings import RoundSettings
from headwater.server.federation.survey import survey
from headwater.server.federation.versions import FOLDER, Versions
from tests import learnable

TOLD = RoundSettings(rounds=3, epochs=0.2, least=3)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learnable.bundle().save(tmp_path_factory.mktemp("bundle") / "digits")


def _grid(bundle: Path) -> InProcessGrid:
    shared = {"bundle": str(bundle), "data": "digits", "num-partitions": 24, "partition-alpha": 100.0}
    return InProcessGrid(app, {f"pi-{i}": {**shared, "partition-id": i} for i in range(3)})


def _run(state: Path, grid: InProcessGrid, told: RoundSettings = TOLD, **how: Any) -> Any:  # noqa: ANN401
    rounds = rounds_of(learnable.bundle(), state, told, **how)
    with acting_as(1):
        rounds.over(grid)
    rounds.strategy.journal.close()
    return survey(state)


def _sparse(network: SplitNetwork) -> Sparse:
    return Sparse(SparseSettings(density=0.4, keep=0.3, every=2, until=4), maskable(network))


def test_sparse_rounds_leave_all_with_the_same_masks_and_arrays(bundle: Path, tmp_path: Path) -> None:
    grid = _grid(bundle)
    found = _run(tmp_path, grid, companion=_sparse)
    assert [each.states for each in found.rounds] == [{"believed": 3}] * 3
    held = Versions(tmp_path / FOLDER).load(1, 2)
    shapes = maskable(network_of(learnable.bundle()))
    active = sum(int(np.count_nonzero(held.arrays[name])) for name in shapes)
    total = sum(held.arrays[name].size for name in shapes)
    assert active / total < 0.41
    for node in grid.nodes.values():
        state = node.context.state
        arrays = {name: array.numpy() for name, array in state["arrays"].items()}
        assert version_of(arrays) == held.version  # what the third round was trained from
        for name in shapes:
            mask = np.unpackbits(state["masks"][name].numpy().reshape(-1), count=arrays[name].size)
            assert not arrays[name].reshape(-1)[mask == 0].any()


def test_a_dense_run_can_become_sparse(bundle: Path, tmp_path: Path) -> None:
    grid = _grid(bundle)
    _run(tmp_path, grid, RoundSettings(rounds=1, epochs=0.2, least=3))
    grid.set_run(type(grid.run).create_empty(2))  # or it would find the first run's messages again
    found = _run(tmp_path, grid, companion=_sparse)
    assert [each.states for each in found.rounds] == [{"believed": 3}] * 3


def test_a_sparse_run_can_become_dense(bundle: Path, tmp_path: Path) -> None:
    grid = _grid(bundle)
    _run(tmp_path, grid, replace(TOLD, rounds=2, sparse=0.4, sparse_every=2, sparse_until=4))
    grid.set_run(type(grid.run).create_empty(2))
    with pytest.raises(SettingsError, match=r"of another density than 0\.3"):
        _run(tmp_path, grid, replace(TOLD, rounds=2, sparse=0.3))
    found = _run(tmp_path, grid, replace(TOLD, rounds=3))
    assert [each.states for each in found.rounds] == [{"believed": 3}] * 3
    shapes = maskable(network_of(learnable.bundle()))
    versions = Versions(tmp_path / FOLDER)
    before, after = (versions.load(found.run, number).arrays for number in (0, 3))
    active = [sum(int(np.count_nonzero(held[name])) for name in shapes) for held in (before, after)]
    assert active[1] > active[0] + 100, "weights come back"
    for node in grid.nodes.values():
        assert "masks" not in node.context.state


@pytest.mark.parametrize("method", ["gradients", "sensitivity", "activations"])
def test_channels_fade_by_what_devices_say_and_are_removed(bundle: Path, tmp_path: Path, method: str) -> None:
    made: list[SoftMasks] = []

    def companion(network: SplitNetwork) -> SoftMasks:
        units = units_of(network)
        curves = {name: Curve((0, unit.channels), (0.0, unit.channels / 1e6)) for name, unit in units.items()}
        times = Times(dict.fromkeys(network.widths, 1.0), (1.0,) * len(network.tails))
        # All times but the channels' are the same whatever is removed, so that nothing depends on this machine.
        settings = StructuredSettings(1.0, 1.0, method, 3)
        made.append(SoftMasks(network, Allotment(network, times, curves, settings), settings))
        return made[-1]

    found = _run(tmp_path, _grid(bundle), companion=companion)
    assert [each.states for each in found.rounds] == [{"believed": 3}] * 3
    assert all(np.isfinite(score).all() and score.max() > 0 for score in made[0].scores.values())
    network = network_of(learnable.bundle())
    arrays = Versions(tmp_path / FOLDER).load(1, 3).exact()
    kept = {name: np.arange(8) for name in made[0].scores}
    made[0].allotment.kept = lambda _: kept  # type: ignore[method-assign]
    made[0].allotment.scaled = lambda _: made[0].allotment  # type: ignore[method-assign]
    made[0].settings = StructuredSettings(1.0, 1.0, method, 3)
    carved = carve(network, arrays, made[0], learnable.bundle().manifest.input)
    assert all(unit.channels == 8 for unit in units_of(carved.network).values())
