"""The benchmark of bytes and accuracy, at its smallest, with the shipped bundle."""

import json
from pathlib import Path

import pytest

from benchmarks import rate_accuracy


def test_it_states_its_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_accuracy, "QUICK_IMAGES", 8)
    monkeypatch.setattr(rate_accuracy, "QUICK_PIECES", ())  # test_study_pieces runs them
    out = tmp_path / "bench.json"
    assert rate_accuracy.main(["--quick", "--json", str(out), "--threads", "1"]) == 0
    stated = {claim["claim"]: claim for claim in json.loads(out.read_text(encoding="utf-8"))}
    now = {name: claim for name, claim in stated.items() if name.endswith(", shipped bundle")}
    assert len(now) >= 6
    assert all("measured now" in claim["peer"] for claim in now.values())
    assert now["largest over smallest mean frame of one bundle, shipped bundle"]["value"] > 1, "modes differ in bytes"
    assert any(name not in now for name in stated), "what is not measured now is stated beside, or said to be missing"
