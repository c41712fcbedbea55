"""``headwater simulate fleet`` from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.testing import CliRunner

from headwater.simulations.fleet.outcome import Outcome
from headwater.simulations.simulate_cli import app

if TYPE_CHECKING:
    from pathlib import Path

SHORT = ("--hours", "0.02", "--jobs", "1")


def test_it_shows_and_writes_what_came_of_it(tmp_path: Path) -> None:
    path = tmp_path / "out" / "fleet.json"
    arguments = ["fleet", "factory-wifi", "--devices", "4", "--seed", "3", *SHORT, "--json", str(path)]
    result = CliRunner(env={"COLUMNS": "120"}).invoke(app, arguments)
    assert result.exit_code == 0, result.output
    outcome = Outcome.from_json(path.read_bytes())
    assert (outcome.scenario.seed, outcome.scenario.device_count, outcome.scenario.hours) == (3, 4, 0.02)
    for text in ("stations", "belts", "hall-1", "GB a month", f"{outcome.total.frames:,}", str(path)):
        assert text in result.output.replace("\n", "")
    assert outcome.total.joules


def test_recorded_links_take_the_place_of_the_scenario_s(tmp_path: Path) -> None:
    (tmp_path / "slow.up").write_text("".join(f"{ms}\n" for ms in range(0, 3000, 1000)))
    (tmp_path / "slow.down").write_text("".join(f"{ms}\n" for ms in range(0, 3000, 10)))
    arguments = ["fleet", "factory-wifi", "--devices", "2", *SHORT, "--trace", str(tmp_path)]
    result = CliRunner(env={"COLUMNS": "120"}).invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "stations" in result.output
