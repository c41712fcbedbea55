"""The smallest size of the benchmark runs; what it counts holds on any machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import attacks


@pytest.mark.slow
def test_the_smallest_size_runs(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert attacks.main(["--quick", "--json", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (len(found), {claim["benchmark"] for claim in found}) == (4, {"attacks"})
    assert all(claim["holds"] for claim in found), found
