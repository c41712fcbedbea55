"""The smallest size of the benchmark runs: rounds through a server and two agents, and Flower's own where it starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import rounds


@pytest.mark.slow
def test_the_smallest_size_runs(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert rounds.main(["--quick", "--json", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert {one["benchmark"] for one in found} == {"rounds"}
    own, ratio, beside, unlimited = found
    assert own["value"] > 0
    assert beside["value"] is not None
    assert unlimited["value"] is not None
    assert ratio["value"] is not None or "did not run" in ratio["peer"]


def test_a_peer_that_cannot_start_is_said_and_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(rounds.sys, "executable", str(tmp_path / "python"))
    seconds, why = rounds.flower_rounds(tmp_path / "flower", 10, 2)
    assert seconds == []
    assert "flower-superlink" in why
