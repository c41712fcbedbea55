"""The head's times on this machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from headwater.compression.bundle import Bundle
from headwater.device import measuring
from headwater.device.hardware import head_key
from headwater.device.profile import profile
from headwater.simulations.fleet import profiles


def test_every_width_and_the_whole_model(tiny_bundle: Bundle) -> None:
    rows, whole_ms = profile(tiny_bundle, rounds=5)
    assert [row.width for row in rows] == [0.25, 0.5, 0.75, 1.0]
    assert all(0 < row.head_ms <= row.head_p95_ms and row.code_ms > 0 for row in rows)
    assert whole_ms is not None
    assert whole_ms > 0


def test_a_bundle_without_the_whole_model(tiny_bundle: Bundle) -> None:
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files if name != "local.onnx"}
    _, whole_ms = profile(Bundle.build(tiny_bundle.manifest, files), rounds=2)
    assert whole_ms is None


def test_all_that_a_simulated_fleet_has_to_know(tiny_bundle: Bundle, tmp_path: Path) -> None:
    measured = measuring.measure(tiny_bundle, seconds=0.05)
    assert [head_key(width) for width in (0.25, 0.5, 0.75, 1.0)] == [key for key in measured if key.startswith("head")]
    assert {"prepare_ms", "exit_ms", "code_ms", "whole_ms", "busy_factor", "agent_mb"} < set(measured)
    powers = {"idle_w": 2.0, "core_w": None}
    text = measuring.to_text(tiny_bundle, measured, powers, name="here", like="pi-4")
    (tmp_path / "here.toml").write_text(text)
    board = profiles.load("here.toml", tmp_path)
    assert (board.name, board.bundle, board.idle_w.mid) == ("here", tiny_bundle.short_id, 2.0)
    assert board.core_w == profiles.load("pi-4").core_w
    heads = board.heads(tiny_bundle.manifest.modes)
    assert {width: head.mid for width, head in heads.items()} == pytest.approx(
        {width: measured[head_key(width)].mid for width in heads}, rel=1e-5
    )


def test_what_a_bundle_lacks_is_not_measured(tiny_bundle: Bundle) -> None:
    manifest = replace(tiny_bundle.manifest, exit=None)
    files = {name: tiny_bundle.read(name) for name in manifest.files if not name.startswith(("local", "exit"))}
    measured = measuring.measure(Bundle.build(manifest, files), seconds=0.05)
    assert "whole_ms" not in measured
    assert "exit_ms" not in measured
