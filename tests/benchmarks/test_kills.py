"""Rounds among kills, as the benchmark runs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import kills

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_rounds_among_kills_end_with_the_hash_of_an_undisturbed_run(tmp_path: Path) -> None:
    assert kills.main(["--json", str(tmp_path / "bench.json")]) == 0
    (claim,) = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert claim["holds"]
    assert "8 kills -9 (server 3, devices 2, rounds 3)" in claim["claim"]


def test_every_kill_is_of_a_process_that_there_is_and_in_the_order_of_the_rounds() -> None:
    assert {who for _, who, _ in kills.KILLS} == {kills.SERVER, kills.LEARNING, *kills.NAMES}
    assert all(state in kills.STATES for *_, state in kills.KILLS)
    moments = [(round_, kills.STATES.index(state)) for round_, _, state in kills.KILLS]
    assert [round_ for round_, _ in moments] == sorted(round_ for round_, _ in moments)
    assert max(moments)[0] == kills.ROUNDS
