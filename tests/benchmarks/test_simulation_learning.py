"""The smallest size of the benchmark: both sides run, and what comes out repeats."""

import json
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Flower's simulation engine needs Ray, of the extra [simulate]")

from benchmarks import simulation_learning


@pytest.mark.slow
def test_its_smallest_size(tmp_path: Path) -> None:
    assert simulation_learning.main(["--quick", "--json", str(tmp_path / "bench.json")]) == 0
    found = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert [claim["value"] is not None for claim in found] == [True] * 3
    assert found[2]["holds"]
