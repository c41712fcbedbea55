"""The smallest size of the benchmark runs, and what it measures is what it says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import serving

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.compression.bundle import Bundle


@pytest.mark.slow
def test_the_smallest_size_runs(tiny_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    bundle = tiny_bundle.save(tmp_path / "tiny")
    assert serving.main(["--bundle", str(bundle), "--quick", "--json", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert len(found) == 5
    assert {claim["benchmark"] for claim in found} == {"serving"}
    # The tiny bundle is so quick that the load generator may be the limit: then nothing is refused.
    assert all(claim["value"] is not None for claim in found if "refusal" not in claim["claim"])
    # That every frame of theirs is answered in time is for a machine of its own; that each has an outcome, for any.
    (streams,) = [claim for claim in found if "500 connected streams" in claim["claim"]]
    assert 0 < streams["value"] <= 100
