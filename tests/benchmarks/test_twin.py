"""The smallest size of the benchmark: every picture is compared, and every error is a number."""

import json
from pathlib import Path

import pytest

from benchmarks import twin
from headwater.simulations.fleet.traffic import Traffic
from headwater.simulations.trace import LinkTrace


def test_calibrating_runs_are_spread_among_the_others() -> None:
    link = LinkTrace.constant("any", 1e6)
    plan = [Traffic(name, link) for name in ("A", "B")]
    wanted = [Traffic(name, link) for name in "wxyz"]
    assert "".join(traffic.name for traffic in twin.in_turns(plan, wanted)) == "AwxByz"


@pytest.mark.slow
def test_its_smallest_size(tmp_path: Path) -> None:
    assert twin.main(["--quick", "--json", str(tmp_path / "bench.json"), "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert [claim["claim"] for claim in found] == [
        "error of the median answer time",
        "error of the 95th percentile",
        "error of the misses",
        "error of the bytes on the wire",
        "runs held against",
    ]
    rows = json.loads((tmp_path / "errors.json").read_text("utf-8"))
    assert [row["frames"] for row in rows] == [24, 24]
    assert "polyline" in (tmp_path / "report.html").read_text("utf-8")
    assert (tmp_path / "calibration.toml").is_file()
