"""The smallest size of the benchmark: every frame is answered, every version used."""

import json
from pathlib import Path

import pytest

from benchmarks import rollout


@pytest.mark.slow
def test_its_smallest_size(tmp_path: Path) -> None:
    assert rollout.main(["--quick", "--json", str(tmp_path / "bench.json")]) == 0
    lost, slower, smaller = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert lost["value"] == 0
    assert slower["value"] > 0
    assert smaller["holds"]
