"""docs/simulation.md knows every key of a scenario, every ready link and board, every command."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from headwater.server.rollout.canary import Rules
from headwater.simulations.cli import app
from headwater.simulations.fleet import profiles, scenario
from headwater.simulations.fleet.radios import READY, Level, LoRa, Radio
from headwater.simulations.fleet.scenario import Scenario

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "simulation.md").read_text()
TABLES = (
    *(Scenario, scenario.DeviceClass, scenario.Arrivals, scenario.Times, scenario.Server, Radio, Level, LoRa),
    *(scenario.Outage, scenario.BlackOut, scenario.Round, scenario.Rollout, scenario.Protocol, Rules),
)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_every_key_is_there(table: type) -> None:
    missing = [field.name for field in fields(table) if field.init and f"`{field.name}`" not in PAGE]
    assert not missing


def test_every_setting_link_board_and_scenario_is_there() -> None:
    names = {*scenario.SETTINGS, *READY, *profiles.ready(), *scenario.ready()}
    assert not [name for name in names if f"`{name}`" not in PAGE]


def test_every_command_is_there() -> None:
    command = typer.main.get_command(app)
    names = set(command.commands) - {"learning"}  # type: ignore[attr-defined]
    assert not [name for name in names if f"| `{name}" not in PAGE]


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "scale").glob("*.toml")), ids=lambda file: file.stem)
def test_the_scenarios_of_the_page_on_scale_can_be_read(file: Path) -> None:
    assert Scenario.load(file).device_count > 0


def test_the_scenarios_of_the_page_can_be_read() -> None:
    written = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert written
    assert all(Scenario.of(tomllib.loads(text), "the page").device_count > 0 for text in written)
