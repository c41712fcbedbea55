"""A fleet whose times are drawn from a calibration that its scenario names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from headwater.compression.errors import SettingsError
from headwater.simulations.fleet.calibration import Calibration, Frames, Wire
from headwater.simulations.fleet.engine import run
from headwater.simulations.fleet.scenario import Scenario

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.compression.bundle import Bundle

ROW = (2.0, 1.0, 4.0, 0.5, 0.25, 3.0, 5.0)


def calibration(widths: tuple[float, ...], row: tuple[float, ...] = ROW) -> Calibration:
    """Every frame takes the same."""
    return Calibration(
        bundle="0123456789",
        machine="one that is always as quick",
        made="2026-11-22T01:00:00+00:00",
        task="shape",
        wire=Wire(383, 208, 51, 52, 90, 60),
        slack_ms=20.0,
        batch_ms={1: 5.0, 8: 20.0},
        server_start_s=1.0,
        device_start_s=1.0,
        frames=tuple(Frames.of(width, action, 5.0, [row]) for width in widths for action in ("send", "local")),
    )


def tables(**of_devices: object) -> dict[str, object]:
    devices = {"name": "cameras", "count": 3, "link": "cable", "calibration": "c.toml", **of_devices}
    return {
        "name": "calibrated",
        "hours": 0.01,
        "devices": [{**devices, "settings": {"width": 0.5, "gain": 1, "tasks": ["shape"]}}],
        "servers": [{"name": "edge", "calibration": "c.toml"}],
    }


def scenario(folder: Path, **of_devices: object) -> Scenario:
    """As a file beside the calibration would give it."""
    made = Scenario.of(tables(**of_devices))
    file = folder / "c.toml"
    devices = tuple(replace(each, calibration=file) for each in made.devices)
    return replace(made, devices=devices, servers=tuple(replace(each, calibration=file) for each in made.servers))


def test_frames_take_what_was_measured(tiny_bundle: Bundle, tmp_path: Path) -> None:
    calibration(tiny_bundle.manifest.widths).save(tmp_path / "c.toml")
    outcome = run(scenario(tmp_path), bundle=tiny_bundle)
    (cameras,) = outcome.classes
    assert cameras.server == cameras.frames > 0
    stages_ms = 2.0 + 1.0 + 4.0 + 0.25 + 3.0 + 5.0  # no exit runs without a deadline
    cable_ms = 1.0  # its delays
    median_ms = cameras.latency.quantile(0.5)
    assert median_ms == pytest.approx(stages_ms + cable_ms, rel=0.03)  # a bin is 2.3 % wide
    assert cameras.busy_s["head"] == pytest.approx(4e-3 * cameras.frames)
    assert outcome.servers[0].total.busy_s == pytest.approx(5e-3 * cameras.frames)


def test_the_same_whatever_processes_do_it(tiny_bundle: Bundle, tmp_path: Path) -> None:
    calibration(tiny_bundle.manifest.widths).save(tmp_path / "c.toml")
    one, other = (run(scenario(tmp_path), bundle=tiny_bundle).to_json() for _ in range(2))
    assert one == other


def test_devices_need_one_of_three(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="neither a profile nor times nor a calibration"):
        Scenario.of(tables(calibration=None))
    assert scenario(tmp_path).devices[0].calibration == tmp_path / "c.toml"


def test_a_width_that_was_not_measured_is_named(tiny_bundle: Bundle, tmp_path: Path) -> None:
    calibration((0.25,)).save(tmp_path / "c.toml")
    with pytest.raises(SettingsError, match=r"head_ms says nothing of width 0\.5"):
        run(scenario(tmp_path), bundle=tiny_bundle)
