"""The fuzzer itself: it finds what is planted, counts what it tries, and says where a finding lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fuzz import run

pytest.importorskip("atheris", reason=run.MISSING)
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["planted.fault", "planted.bomb"])
def test_what_is_planted_is_found(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([name, "--minutes", "1", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path}/{name}/crash-" in said
    assert ("ZeroDivisionError" if name == "planted.fault" else "MemoryError") in said


def test_a_run_counts_what_it_tries(tmp_path: Path) -> None:
    claims = tmp_path / "bench.json"
    assert run.main(["frame", "parts", "--minutes", "0.1", "--out", str(tmp_path), "--json", str(claims)]) == 0
    inputs, size, findings = (entry["value"] for entry in json.loads(claims.read_text(encoding="utf-8")))
    assert inputs > 100
    assert size > 0
    assert findings == 0
