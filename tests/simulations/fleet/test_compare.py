"""Two fleets side by side."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from headwater.compression.errors import DataError, SettingsError
from headwater.simulations.fleet import compare
from headwater.simulations.fleet.outcome import Outcome
from tests.simulations.fleet.fleets import one, told


def sides() -> tuple[list[Outcome], list[Outcome]]:
    zero = replace(one(), devices=(replace(one().devices[0], profile="pi-zero-2"),))
    a, b = ([told(replace(each, seed=seed)) for seed in range(3)] for each in (one(), zero))
    return a, b


def test_a_difference_is_held_against_the_spread_of_seeds() -> None:
    a, b = sides()
    lines = {(line.devices, line.what): line for line in compare.lines(a, b)}
    right = lines["all", "right"]
    assert (right.a, right.b, right.difference) == pytest.approx((0.8701, 0.8201, -0.05))
    assert right.error == pytest.approx((2 * 1e-8 / 3) ** 0.5)
    assert right.clear is True
    assert lines["all", "p95 ms"].clear is False
    assert {devices for devices, _ in lines} == {"all"}


def test_one_seed_tells_nothing_of_chance() -> None:
    a, b = sides()
    lines = compare.lines(a[:1], b)
    assert all(line.error is None and line.clear is None for line in lines)
    plain = compare.as_plain(a[:1], b, lines)
    assert plain["a"] == {"scenario": "one", "seeds": 1}
    assert plain["lines"][0]["clear"] is None
    console = Console(record=True, width=160)
    console.print(compare.table(a[:1], b, lines))
    assert "one, 3 seeds" in console.export_text()


def test_sides_are_scenarios_or_files(tmp_path: Path) -> None:
    a, _ = sides()
    for number, outcome in enumerate(a):
        (tmp_path / f"{number}.json").write_bytes(outcome.to_json())
    files = ",".join(str(tmp_path / f"{number}.json") for number in range(3))
    assert compare.gather(files, 9, told) == a
    with pytest.raises(SettingsError, match="is not there"):
        compare.gather(str(tmp_path / "none.json"), 1, told)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError):
        compare.gather(str(tmp_path / "bad.json"), 1, told)
    (tmp_path / "s.toml").write_text(
        'name = "s"\n[[devices]]\nname = "c"\ncount = 10\nlink = "wifi"\nprofile = "pi-4"\n[[servers]]\nname = "e"\n'
    )
    assert [each.scenario.seed for each in compare.gather(str(tmp_path / "s.toml"), 2, told)] == [0, 1]
