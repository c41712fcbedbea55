"""The benchmark of federated rounds: what its curves and claims say of figures that are made up, and what it keeps."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.federated import committed, stated
from benchmarks.fleet.contests import HOSTILE, OURS, PARTS, PEER, PRUNED, SPARSE, START, WEAK, Study
from benchmarks.fleet.curve import Curve
from benchmarks.fleet.ground import SOLAR_FLEET
from benchmarks.fleet.stated import Statement
from benchmarks.study.runner import key_of

PEERS = Curve([0.5, 0.6, 0.7, 0.8, 0.8, 0.8], [0, 1, 2, 3, 4, 5000], [0, 1, 2, 3, 4, 6000])
OWN = Curve([0.5, 0.79, 0.8, 0.8, 0.8, 0.7], [0, 10, 20, 30, 40, 50], [0, 100, 200, 300, 400, 500])


def statement(**curves: Curve) -> Statement:
    found = {(name.replace("_", "-"), 0): curve for name, curve in curves.items()}
    return Statement(found, "made up, 2 devices")


def test_an_accuracy_is_reached_when_three_rounds_have_it_on_average() -> None:
    assert PEERS.final == pytest.approx(0.8)
    assert PEERS.reaches(0.8) == 5
    assert OWN.reaches(0.795) == 3
    assert OWN.reaches(0.9) is None


def test_bytes_count_until_ours_is_half_a_point_behind_the_peer_s_end() -> None:
    up, down, *rest = statement(peer=PEERS, ours=OWN).all(HOSTILE, tuple(PARTS))
    assert (up.value, up.holds) == (pytest.approx(5000 / 30, rel=1e-3), True)
    assert (down.value, down.holds) == (pytest.approx(6000 / 300), True)
    assert "50.0% at the start, 80.0% it, 76.7% ours" in up.peer
    assert all(claim.value is None and "not run" in claim.peer for claim in rest)


def test_a_peer_that_was_there_early_had_sent_little() -> None:
    early = Curve([0.5, 0.8, 0.8, 0.8, 0.8, 0.8], [0, 1, 2, 300, 400, 5000], [0, 1, 2, 600, 700, 6000])
    up, down = statement(peer=early, ours=OWN).savings()
    assert (up.value, down.value) == (pytest.approx(300 / 30), pytest.approx(600 / 300))


def test_points_behind_are_of_the_ends() -> None:
    slow = Curve([0.5, 0.5, 0.5, 0.78, 0.78, 0.78], [0] * 6, [0] * 6)
    found = statement(peer=PEERS, ours=OWN, weak=slow, hostile_sign=slow).all(HOSTILE, ())
    claims = {claim.claim.removesuffix(", made up, 2 devices"): claim for claim in found}
    weak = claims["points behind, a third at quarter width, a third asleep"]
    assert (weak.value, weak.holds) == (pytest.approx(2.0), False)
    sign = claims["points behind, a third of the devices hostile (sign)"]
    assert sign.value == pytest.approx(100 * (OWN.final - 0.78), abs=0.01)


def test_where_ours_never_gets_there_the_claim_is_missed() -> None:
    never = Curve([0.5] * 6, [0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1])
    for claim in statement(peer=PEERS, ours=never).savings():
        assert (claim.value, claim.holds) == (0.0, False)
        assert "never there on split 0" in claim.peer
    assert [claim.holds for claim in statement(peer=PEERS).savings()] == [None, None]


def test_a_study_has_a_piece_for_every_claim_and_those_that_are_done_are_stated(tmp_path: Path) -> None:
    study = Study(SOLAR_FLEET, tmp_path / "study")
    names = [piece.name for piece in study.pieces(1)]
    hostile, sparse = (f"hostile-{kind}" for kind in HOSTILE), (f"{SPARSE}-without-{part}" for part in PARTS)
    assert names == [START, PEER, OURS, WEAK, *hostile, SPARSE, PRUNED, *sparse]
    for piece, result in {START: {"bundle": "00"}, PEER: asdict(PEERS), OURS: {**asdict(OWN), "facts": {}}}.items():
        study.keep(record_of(study, piece, result))
    records = study.records([1, 2])
    (tmp_path / "results.json").write_text(json.dumps({"pieces": records}), encoding="utf-8")
    up, *_ = committed(tmp_path / "results.json")
    assert up.value == stated(records, SOLAR_FLEET.where)[0].value == pytest.approx(5000 / 30, rel=1e-3)
    assert "study of 2026-01-02, commit 1234567890" in up.peer


def test_contests_of_another_machine_count_until_another_first_bundle_is_here(tmp_path: Path) -> None:
    there = Study(SOLAR_FLEET, tmp_path / "there")
    for piece, result in {START: {"bundle": "00"}, PEER: asdict(PEERS)}.items():
        there.keep(record_of(there, piece, result))
    here = Study(SOLAR_FLEET, tmp_path / "here", there.records([1]))
    assert [record["piece"] for record in here.records([1])] == [START, PEER]
    here.keep(record_of(here, START, {"bundle": "00"}))
    assert [record["piece"] for record in here.records([1])] == [START, PEER]
    here.keep(record_of(here, START, {"bundle": "01"}))
    assert [record["piece"] for record in here.records([1])] == [START]


def test_what_was_done_with_other_settings_is_not_stated(tmp_path: Path) -> None:
    study = Study(SOLAR_FLEET, tmp_path)
    for piece, result in {START: {"bundle": "00"}, PEER: asdict(PEERS)}.items():
        study.keep(record_of(study, piece, result))
    assert [record["piece"] for record in Study(replace(SOLAR_FLEET, rate=0.5), tmp_path).records([1])] == [START]


def record_of(study: Study, name: str, result: dict[str, Any]) -> dict[str, Any]:
    piece = next(piece for piece in study.pieces(1) if piece.name == name)
    made = {"seed": 1, "commit": "1234567890", "date": "2026-01-02"}
    return {"piece": name, "result": result, "key": key_of(piece, study), **made}


def test_without_results_nothing_is_stated(tmp_path: Path) -> None:
    assert committed(tmp_path / "none.json") == []
