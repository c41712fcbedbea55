from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("simpy", reason="the peer is not installed")

from benchmarks import simulation

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow  # processes are started three times
def test_the_smallest_size_runs_and_checks_itself(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert simulation.main(["--quick", "--json", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [claim["benchmark"] for claim in found] == ["simulation"] * 5


def test_both_loops_do_every_event() -> None:
    assert min(simulation.timers(20, 3)) > 0
