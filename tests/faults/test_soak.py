"""A minute of the soak with its 500 streams: every frame accounted for, and nothing falls over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import soak


@pytest.mark.slow
def test_a_minute_of_everything_that_goes_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--minutes", "1", "--out", str(tmp_path / "soak"), "--json", str(tmp_path / "bench.json")]
    status = soak.main(words)
    assert status == 0, capsys.readouterr().out
    found = {one["claim"]: one for one in json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))}
    assert found["frames accounted for by id"]["value"] == 100
    assert found["frames lost, there twice or unknown"]["value"] == 0
    assert found["processes that ended by themselves, and tracebacks in their logs"]["value"] == 0
    (faults,) = (one for claim, one in found.items() if claim.startswith("faults brought about"))
    kinds = {"black-out", "clock", "freeze", "full disk", "kill", "read-only", "reset", "stall", "stop"}
    assert all(kind in faults["peer"] for kind in kinds)
