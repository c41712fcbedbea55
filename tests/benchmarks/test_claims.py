from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import claims
from benchmarks.__main__ import HERE, names

if TYPE_CHECKING:
    from pathlib import Path

FASTER = claims.at_least("one", "speed", 1.23456, unit="x", target=1.2, peer="peer 1.0")
SLOWER = claims.at_least("one", "speed", 1.1, unit="x", target=1.2, peer="peer 1.0")
MISSING = claims.at_most("two", "size", None, unit="bytes", target=4, peer="peer is not installed")


def test_a_claim_has_exactly_the_agreed_keys() -> None:
    agreed = ["benchmark", "claim", "value", "unit", "target", "direction", "holds", "peer"]
    assert [field.name for field in fields(claims.Claim)] == agreed


@pytest.mark.parametrize("name", names())
def test_every_benchmark_reports_by_claims_alone(name: str) -> None:
    text = (HERE / f"{name}.py").read_text(encoding="utf-8")
    assert "claims.report(" in text
    assert "claims.options(" in text or "claims.Options(" in text
    assert ".json.write" not in text, "rows have other keys where they are not made by claims"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    claims.merge([FASTER, SLOWER, MISSING], tmp_path / "bench.json")
    assert claims.read(tmp_path / "bench.json") == [FASTER, SLOWER, MISSING]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peer": ...}, "the row of one, speed has benchmark, .*; want .*, peer"),
        ({"extra": 1}, "has .*, extra; want"),
        ({"direction": "up"}, "holds True, up"),
        ({"value": None}, "value None, holds True"),
        ({"holds": None}, "value 1.235, holds None"),
    ],
)
def test_a_row_that_is_no_claim_is_an_error(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    row = {key: value for key, value in (asdict(FASTER) | change).items() if value is not ...}
    (tmp_path / "bench.json").write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        claims.read(tmp_path / "bench.json")


def test_whether_a_claim_holds() -> None:
    assert (FASTER.holds, SLOWER.holds, MISSING.holds) == (True, False, None)
    assert claims.at_most("b", "c", 4.0, unit="x", target=4, peer="p").holds is True
    assert claims.at_most("b", "c", 4.00001, unit="x", target=4, peer="p").holds is False
    assert (FASTER.value, MISSING.value) == (1.235, None)


def test_merging_replaces_the_same_benchmark_only(tmp_path: Path) -> None:
    path = tmp_path / "out" / "bench.json"
    claims.merge([SLOWER, MISSING], path)
    claims.merge([FASTER], path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [(entry["benchmark"], entry["value"], entry["holds"]) for entry in found] == [
        ("two", None, None),
        ("one", 1.235, True),
    ]
    assert list(path.parent.iterdir()) == [path]


def test_the_table_tells_the_three_outcomes_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert claims.report("Title", [FASTER, SLOWER, MISSING], claims.options("Doc.", [])) == 0
    printed = capsys.readouterr().out
    for text in ("Title", "yes", "NO", "not", "measured", "peer is not"):
        assert text in printed


def test_options(tmp_path: Path) -> None:
    assert claims.options("Doc.", ["--quick", "--json", str(tmp_path)]) == (True, tmp_path, False)
    assert claims.options("Doc.", []) == (False, None, False)
    assert claims.options("Doc.", ["--full"], full="the whole of it").full
    with pytest.raises(SystemExit):  # not every benchmark has one
        claims.options("Doc.", ["--full"])


def test_directions_are_the_words_of_the_agreed_format() -> None:
    assert (FASTER.direction, MISSING.direction) == ("min", "max")
