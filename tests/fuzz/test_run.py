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


def test_one_that_stands_still_is_ended_and_its_input_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "STALL_S", 60.0)  # of which it imports what it needs
    assert run.main(["planted.stall", "--minutes", "0.1", "--out", str(tmp_path)]) == 1
    (kept,) = (tmp_path / "planted.stall").glob("stall-*")
    assert kept.read_bytes() == b"abcdef"
    assert str(kept) in capsys.readouterr().out


def test_a_run_counts_what_it_tries(tmp_path: Path) -> None:
    claims = tmp_path / "bench.json"
    others = [{"benchmark": "coder", "claim": "speed"}]
    claims.write_text(json.dumps(others), encoding="utf-8")
    assert run.main(["frame", "parts", "--minutes", "0.1", "--out", str(tmp_path), "--json", str(claims)]) == 0
    kept, *own = json.loads(claims.read_text(encoding="utf-8"))
    assert [kept] == others, "the rows of others stay"
    inputs, size, findings = (entry["value"] for entry in own)
    assert inputs > 100
    assert size > 0
    assert findings == 0
