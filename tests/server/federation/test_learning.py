"""Rounds of a real bundle with headwater's own ClientApp: what is learnt, what it costs, and that it repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from headwater.compression.errors import SettingsError
from headwater.compression.learning.arrays import version_of
from headwater.compression.learning.fitting import needs
from headwater.compression.learning.plan import Plan
from headwater.device.federated.app import app
from headwater.protos.flower import acting_as
from headwater.server.federation import app as rounds_app
from headwater.server.federation.app import rounds_of, settings_from
from headwater.server.federation.inprocess import InProcessGrid
from headwater.server.federation.settings import RoundSettings
from headwater.server.federation.survey import survey
from headwater.server.federation.versions import FOLDER, Versions, latest
from tests import learnable
from tests.server.federation import fleets

TOLD = RoundSettings(rounds=2, epochs=0.3, least=2, evaluate_every=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learnable.bundle().save(tmp_path_factory.mktemp("bundle") / "digits")


def _grid(bundle: Path, devices: int = 3) -> InProcessGrid:
    shared = {"bundle": str(bundle), "data": "digits", "num-partitions": 12, "partition-alpha": 100.0}
    return InProcessGrid(app, {f"pi-{i}": {**shared, "partition-id": i} for i in range(devices)})


def _run(state: Path, grid: InProcessGrid, told: RoundSettings = TOLD, **how: Any) -> Any:  # noqa: ANN401
    rounds = rounds_of(learnable.bundle(), state, told, **how)
    with acting_as(1):
        rounds.over(grid)
    rounds.strategy.journal.close()
    return survey(state)


@pytest.mark.slow
def test_a_fleet_learns_from_a_few_kilobytes_and_repeats_to_the_byte(bundle: Path, tmp_path: Path) -> None:
    grid = _grid(bundle)
    found = _run(tmp_path / "one", grid, data="digits")
    dense = 4 * sum(array.size for array in Versions(tmp_path / "one" / FOLDER).load(1, 0).arrays.values())
    assert [each.states for each in found.rounds] == [{"believed": 3}] * 2
    assert found.bytes_up * 50 < dense * 3 * 2
    assert {"accuracy", "accuracy-narrow", "loss"} == found.rounds[1].facts["measured"].keys()
    assert 0.3 < found.rounds[1].facts["evaluated"]["accuracy"] <= 1
    held = Versions(tmp_path / "one" / FOLDER).load(1, 2)
    for node in grid.nodes.values():
        assert version_of({n: a.numpy() for n, a in node.context.state["arrays"].items()}) == held.version
    _run(tmp_path / "again", _grid(bundle))
    assert fleets.bytes_of(latest(tmp_path / "one").arrays) == fleets.bytes_of(latest(tmp_path / "again").arrays)


@pytest.mark.slow
def test_a_device_of_little_memory_trains_a_part_and_counts(bundle: Path, tmp_path: Path) -> None:
    grid = _grid(bundle, devices=4)
    least = Plan(width=learnable.WIDTHS[0], part="head", batch=TOLD.batch, at_once=1)
    head = needs(learnable.network(), learnable.SPEC, least).peak
    grid.named("pi-0").context.node_config["memory-bytes"] = head
    grid.named("pi-3").context.node_config["memory-bytes"] = 1
    devices = {each.device: each for each in _run(tmp_path, grid).devices}
    assert (devices["pi-0"].states, devices["pi-0"].part) == ({"believed": 2}, "head")
    assert (devices["pi-1"].states, devices["pi-1"].part) == ({"believed": 2}, "all")
    assert devices["pi-3"].refusals == {"error": 2}
    assert "--train-memory-mb" in devices["pi-3"].last_refusal


@pytest.mark.slow
def test_flower_s_own_way_to_start_runs_the_same_rounds(bundle: Path, tmp_path: Path) -> None:
    config = {"bundle": str(bundle), "state": str(tmp_path / "flower"), "rounds": 2, "epochs": 0.3, "evaluate-every": 2}
    context = Context(1, 1, {}, RecordDict(), config)
    with acting_as(1):
        rounds_app.app(_grid(bundle), context)
    _run(tmp_path / "ours", _grid(bundle))
    assert latest(tmp_path / "flower").version == latest(tmp_path / "ours").version


def test_the_run_s_config_has_flower_s_dashes_and_types() -> None:
    told = settings_from({"server-rate": 1, "evaluate_every": 3, "asynchronous": True, "bundle": "x", "rate": 0.5})
    assert (told.server_rate, told.evaluate_every, told.asynchronous, told.rate) == (1.0, 3, True, 0.5)
    assert isinstance(told.server_rate, float)


def test_a_run_without_a_bundle_says_what_it_lacks() -> None:
    with pytest.raises(SettingsError, match="lacks bundle and state"):
        rounds_app.main(InProcessGrid(app, {}), Context(1, 1, {}, RecordDict(), {}))
