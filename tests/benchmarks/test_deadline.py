"""The smallest size of the deadline benchmark runs, all of it, and leaves what it says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from benchmarks import deadline
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.compression.bundle import Bundle


@pytest.mark.slow
def test_the_smallest_size_runs(tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "shapes"
    for seed in range(48):
        file = source / tiny.TASKS[0].labels[tiny.labels(seed)[0]] / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny.image(seed)[0]).save(file)
    where = {"bundle": tiny_bundle.save(tmp_path / "tiny"), "source": source, "out": tmp_path / "out"}
    flags = [word for name, value in where.items() for word in (f"--{name}", str(value))]
    assert deadline.main([*flags, "--quick", "--plots", "--jobs", "3", "--json", str(tmp_path / "bench.json")]) == 0
    found = {one["claim"]: one for one in json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))}
    assert len(found) == 12
    assert {one["benchmark"] for one in found.values()} == {"deadline"}
    # What no slowness of the machine can change: each kept frame is in the server's archive once.
    assert found["kept frames lost or stored twice, 1 kills of the server"]["value"] == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert len(results["runs"]) == len(results["rows"]) == 10
    assert all(len(run["fates"]) == 8 for run in results["runs"])
    assert len(list((tmp_path / "out" / "plots").iterdir())) == 1
    assert "JPEG 32 q75" in capsys.readouterr().out
