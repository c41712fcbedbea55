"""The smallest size of the benchmark runs, and what it measures is what it says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks import footprint

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.compression.bundle import Bundle


def test_the_smallest_size_runs(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle, path = tmp_path / "tiny", tmp_path / "bench.json"
    tiny_bundle.save(bundle)
    assert footprint.main(["--bundle", str(bundle), "--quick", "--json", str(path)]) == 0
    found = {entry["claim"].partition(",")[0]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    assert {entry["benchmark"] for entry in found.values()} == {"footprint"}
    assert found["resident memory of the agent"]["holds"] is True
    assert found["change of the mode"]["holds"] is True
    assert 50 < found["installed size of the core"]["value"] < 400
    assert found["time of the head of width 1"]["value"] > 0


def test_the_core_has_neither_torch_nor_flwr() -> None:
    core = footprint.closure("headwater")
    assert {"numpy", "onnxruntime", "grpcio"} <= core
    assert not core & {"torch", "flwr", "onnx", "scikit-learn", "opencv-python-headless"}
