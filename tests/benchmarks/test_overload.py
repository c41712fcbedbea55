"""The smallest size of the benchmark runs; what it counts holds on any machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import overload

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.compression.bundle import Bundle


@pytest.mark.slow
def test_the_smallest_size_runs(tiny_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    bundle = tiny_bundle.save(tmp_path / "tiny")
    assert overload.main(["--bundle", str(bundle), "--quick", "--json", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert len(found) == 7
    assert {claim["benchmark"] for claim in found} == {"overload"}
    counted = [claim for claim in found if claim["target"] == 0]
    assert len(counted) == 4
    assert all(claim["holds"] for claim in counted), counted
