"""The smallest size of the benchmark: every frame is answered, every version used."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import rollout


def test_the_spread_of_a_ratio_is_that_of_its_frames() -> None:
    def frames(*times_ms: float) -> Any:  # noqa: ANN401 - what is read of a record
        return [SimpleNamespace(latency_ms=time_ms) for time_ms in times_ms]

    assert rollout.spread(frames(*[10.0] * 50), frames(*[12.0] * 50)).startswith("1.20 to 1.20 in")
    low, high = map(
        float, rollout.spread(frames(*range(1, 200)), frames(*range(1, 200))).split(" in ")[0].split(" to ")
    )
    assert 0.8 < low < 1 < high < 1.2


def test_swaps_take_turns_with_calm() -> None:
    made: list[Any] = list(range(5))
    released: list[Any] = []
    spans = rollout.take_turns(rollout.Plan(5, 2, 0.0, 0.0), made, released.append)
    assert released == made
    ends = [end for calm, swapping in zip(spans[False], spans[True], strict=True) for end in (*calm, *swapping)]
    assert ends == sorted(ends)
    assert len(ends) == 8, "two turns, each calm and then swapping"
    taken = [SimpleNamespace(taken=end.isoformat()) for end in ends]
    assert not rollout.within(taken[-1:], spans[True]), "what is taken at the end is no more of it"
    assert rollout.within(taken[2:3], spans[True]) == taken[2:3]


@pytest.mark.slow
def test_its_smallest_size(tmp_path: Path) -> None:
    assert rollout.main(["--quick", "--json", str(tmp_path / "bench.json")]) == 0
    lost, slower, smaller = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert lost["value"] == 0
    assert slower["value"] > 0
    assert smaller["holds"]
