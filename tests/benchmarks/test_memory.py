"""The smallest size of the benchmark runs: a device reads what it is asked, and every claim has a figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import memory


@pytest.mark.slow
def test_the_smallest_size_runs(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert memory.main(["--quick", "--json", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found
    assert all(one["value"] is not None for one in found)
