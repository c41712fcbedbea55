"""``headwater simulate fleet`` from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from headwater.compression.errors import BundleError
from headwater.simulations.cli import app
from headwater.simulations.fleet.outcome import Outcome
from tests import tiny

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


def test_another_bundle_takes_the_place_of_the_scenario_s(tmp_path: Path) -> None:
    bundle = tiny.bundle()
    bundle.save(tmp_path / "mine.zip")
    (tmp_path / "yard.toml").write_text(
        'name = "yard"\nbundle = "nowhere.zip"\n[[servers]]\nname = "edge"\n'
        '[[devices]]\nname = "gates"\ncount = 2\nlink = "wifi"\nprofile = "pi-4"\nsettings = { tasks = ["shape"] }\n'
    )
    written = tmp_path / "fleet.json"
    arguments = ["fleet", str(tmp_path / "yard.toml"), *SHORT, "--json", str(written)]
    with pytest.raises(BundleError, match=r"nowhere\.zip"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    result = CliRunner().invoke(app, [*arguments, "--bundle", str(tmp_path / "mine.zip")])
    assert result.exit_code == 0, result.output
    outcome = Outcome.from_json(written.read_bytes())
    assert outcome.bundle == f"{bundle.manifest.name} {bundle.short_id}"
    assert outcome.scenario.bundle == tmp_path / "mine.zip"  # so that a report of it finds the same
