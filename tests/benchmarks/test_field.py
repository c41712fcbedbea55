"""The benchmark runs; what it counts holds on any machine."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import field


def test_it_runs_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert field.main(["--quick", "--json", str(path)]) == 0
    left, exposure, unhashed = json.loads(path.read_text(encoding="utf-8"))
    assert left["holds"]
    assert int(left["claim"].split()[-1]) > 15, "there was something to take out"
    assert exposure["holds"] in {True, None}
    assert unhashed["holds"]


def test_what_was_left_would_be_seen() -> None:
    before = {"etc": b"", "etc/passwd": b"root"}
    assert field._differs(before, {"etc": b"", "etc/passwd": b"other", "var": b""}) == ["etc/passwd", "var"]
    assert field._differs(before, {"etc": b""}) == ["etc/passwd"]
