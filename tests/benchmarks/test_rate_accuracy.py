"""The benchmark of bytes and accuracy, at its smallest, with the shipped bundle."""

import json
from pathlib import Path

import pytest

from benchmarks import rate_accuracy


def test_it_states_its_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_accuracy, "QUICK_IMAGES", 8)
    out = tmp_path / "bench.json"
    assert rate_accuracy.main(["--quick", "--json", str(out)]) == 0
    stated = json.loads(out.read_text(encoding="utf-8"))
    assert len(stated) >= 4
    assert stated[0]["value"] > 1, "modes differ in bytes"
