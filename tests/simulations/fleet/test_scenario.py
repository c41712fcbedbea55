"""What a scenario file may say: names that fit, units in range, the nearest key named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from headwater.compression.errors import SettingsError
from headwater.simulations.fleet.scenario import Scenario

TEXT = """
name = "orchard"
hours = 2

[[devices]]
name = "trees"
count = 30
link = "lte-m"
times = { head_ms = { "0.25" = 20, "1.0" = 80 } }
settings = { deadline_ms = 2000, max_drop = 1.0 }
arrivals = { kind = "bursts", interval_s = 60, burst_frames = 3, day_from_h = 6 }

[[devices]]
name = "gate"
count = 10
link = "valley"
profile = "pi-4"

[[links]]
name = "valley"
like = "lte-m"
up_delay_ms = 80
levels = [{ up_bit_s = 50e3, down_bit_s = 50e3 }]

[[servers]]
name = "shed"
count = 2

[[outages]]
server = "shed-1"
from_h = 1
hours = 0.5

[[rollouts]]
at_h = 0.5
rules = { share = 0.2, frames = 100 }
"""


def load(folder: Path, text: str) -> Scenario:
    path = folder / "orchard.toml"
    path.write_text(text, encoding="utf-8")
    return Scenario.load(path)


def test_a_file_is_read_with_its_units(tmp_path: Path) -> None:
    scenario = load(tmp_path, TEXT)
    trees, gate = scenario.devices
    assert trees.times is not None
    assert trees.times.head_ms == {0.25: 20.0, 1.0: 80.0}
    assert trees.settings.deadline_ms == 2000
    assert scenario.radio(trees).awake_s == 10.0
    assert scenario.radio(gate).up_delay_ms == 80.0
    assert len(scenario.radio(gate).levels) == 1
    assert scenario.radio(gate).wake_ms == 300.0
    assert scenario.server_names == ("shed-1", "shed-2")
    assert scenario.rollouts[0].rules.frames == 100


def test_tables_give_the_same_scenario_back(tmp_path: Path) -> None:
    scenario = load(tmp_path, TEXT)
    assert Scenario.of(scenario.plain()) == scenario


def test_classes_keep_their_shares(tmp_path: Path) -> None:
    scenario = load(tmp_path, TEXT)
    for devices in (1, 7, 400, 100_001):
        scaled = scenario.scaled(devices)
        assert scaled.device_count == devices
        assert abs(scaled.devices[0].count - 0.75 * devices) <= 1


def test_recorded_links_take_the_place_of_rates_only(tmp_path: Path) -> None:
    scenario = load(tmp_path, TEXT).traced(tmp_path, 0.1)
    radio = scenario.radio(scenario.devices[1])
    assert (radio.trace, radio.trace_factor, radio.up_delay_ms, radio.levels) == (tmp_path, 0.1, 80.0, ())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hours = 2", "ours = 2", "did you mean hours"),
        ("burst_frames = 3", "burst_frame = 3", "did you mean burst_frames"),
        ("deadline_ms = 2000", "deadline_s = 2", "did you mean deadline_ms"),
        ("deadline_ms = 2000", 'server = ["a:1"]', "unknown key server"),
        ('link = "lte-m"', 'link = "lte-n"', "did you mean lte-m"),
        ('server = "shed-1"', 'server = "shed"', "did you mean shed"),
        ("count = 30", "count = -1", "count is -1"),
        ("count = 30", 'count = "many"', "must be an integer"),
        ('like = "lte-m"', 'like = "ltem"', "did you mean lte-m"),
        ("interval_s = 60", "interval_s = 0", "interval_s is 0.0"),
        ('profile = "pi-4"', "", "neither a profile nor times"),
        ('name = "gate"', 'name = "trees"', "trees is there twice"),
        ("share = 0.2", "share = 2", "share is 2.0"),
        ("[[servers]]", "[[server]]", "did you mean servers"),
        ("[[servers]]", "[servers]", "servers is .*; it must be a list of tables"),
        ("interval_s = 60", "interval_s = inf", "interval_s is inf; it must be a number"),
        ("interval_s = 60", f"interval_s = 1{'0' * 400}", "must be a number"),
        ("hours = ", f"x = {'[' * 3000}\nhours = ", "cannot be read as TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(tmp_path, TEXT.replace(old, new, 1))


def test_an_unknown_scenario_names_the_ready_ones() -> None:
    with pytest.raises(SettingsError, match="there is no scenario nowhere"):
        Scenario.load("nowhere")


def test_a_link_carries_bytes_in_one_way_only(tmp_path: Path) -> None:
    radio = load(tmp_path, TEXT).links[0]
    with pytest.raises(SettingsError, match="exactly one of levels, trace and lora"):
        replace(radio, trace=tmp_path)
