from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks import coder, contenders

if TYPE_CHECKING:
    from pathlib import Path


def test_the_smallest_size_runs_and_its_bytes_hold(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert coder.main(["--quick", "--json", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert {entry["benchmark"] for entry in found} == {"coder"}
    bytes_claim, *speed_claims = found
    assert bytes_claim["holds"] is True
    assert [entry["target"] for entry in speed_claims] == [1.3, 10, 4, 4]
    against_constriction = speed_claims[0]
    assert against_constriction["value"] > 0
    assert "constriction" in against_constriction["peer"]


def test_a_missing_peer_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> None:
        raise ImportError("not installed")

    monkeypatch.setattr(contenders, "compressai_ans", missing)
    path = tmp_path / "bench.json"
    coder.main(["--quick", "--json", str(path)])
    found = [entry for entry in json.loads(path.read_text(encoding="utf-8")) if "compressai" in entry["claim"]]
    assert [(entry["value"], entry["holds"], entry["peer"]) for entry in found] == [
        (None, None, "compressai: not installed")
    ] * 2


@pytest.mark.parametrize("shape", coder.FULL[:2], ids=str)
def test_frames_are_as_large_as_they_are_said_to_be(shape: coder.Shape) -> None:
    sample = coder.draw(shape, 8)
    sizes = [sample.ideal_bytes(frame) for frame in sample.frames]
    assert np.mean(sizes) == pytest.approx(shape.payload_bytes, rel=0.1)
