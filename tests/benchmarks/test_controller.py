from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks import controller

if TYPE_CHECKING:
    from pathlib import Path


def test_the_smallest_size_runs_and_every_picture_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert controller.main(["--quick", "--json", str(path)]) == 0
    (claim,) = json.loads(path.read_text(encoding="utf-8"))
    assert (claim["benchmark"], claim["unit"], claim["target"]) == ("controller", "µs", controller.TARGET_US)
    assert claim["value"] > 0
    assert "mean-based" in claim["peer"]
