from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks import update_peers, updates

if TYPE_CHECKING:
    from pathlib import Path


def test_the_smallest_size_runs_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("not installed")

    monkeypatch.setattr(update_peers, "deepcabac", missing)
    path = tmp_path / "bench.json"
    assert updates.main(["--quick", "--json", str(path)]) == 0
    found = {entry["claim"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    assert {entry["benchmark"] for entry in found.values()} == {"updates"}
    assert found["noise: bytes of int8"]["holds"] is True
    assert found["sign mask, half pruned, of noise"]["value"] < 1.05
    absent = found["int8, bytes against DeepCABAC"]
    assert (absent["value"], absent["holds"], absent["peer"]) == (None, None, "DeepCABAC: not installed")


def test_entropies() -> None:
    assert updates.sparse_entropy(1000, 500) == pytest.approx((1000 + 500) / 8)
    assert updates.histogram_entropy([np.array([1, 1, 2, 2], np.int8), np.array([3], np.int8)]) == pytest.approx(0.5)
