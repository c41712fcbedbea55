"""The benchmark of federated rounds: what its curves and claims say of figures that are made up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.federated import Fleet
from benchmarks.fleet.curve import Curve
from benchmarks.fleet.ground import SOLAR_FLEET

PEER = Curve([0.5] * 6, [0.5, 0.6, 0.7, 0.8, 0.8, 0.8], [0, 1, 2, 3, 4, 5000], [0, 1, 2, 3, 4, 6000])
OURS = Curve([0.5] * 6, [0.5, 0.79, 0.8, 0.8, 0.8, 0.7], [0, 10, 20, 30, 40, 50], [0, 100, 200, 300, 400, 500])


def kept(folder: Path, **curves: Curve) -> Fleet:
    fleet = Fleet(SOLAR_FLEET, folder)
    for name, curve in curves.items():
        fleet.keep({"piece": name.replace("_", "-"), "seed": 0, "result": asdict(curve)})
    return fleet


def test_an_accuracy_is_reached_when_three_rounds_have_it_on_average() -> None:
    assert PEER.final == pytest.approx(0.8)
    assert PEER.reaches(0.8) == 5
    assert OURS.reaches(0.795) == 3
    assert OURS.reaches(0.9) is None


def test_bytes_count_until_ours_is_half_a_point_behind_the_peer_s_end(tmp_path: Path) -> None:
    up, down, *rest = kept(tmp_path, peer=PEER, ours=OURS).claims([0])
    assert (up.value, up.holds) == (pytest.approx(5000 / 30, rel=1e-3), True)
    assert (down.value, down.holds) == (pytest.approx(6000 / 300), True)
    assert all(claim.value is None and "not run" in claim.peer for claim in rest)


def test_points_behind_are_of_the_ends(tmp_path: Path) -> None:
    slow = Curve([0.5] * 6, [0.5, 0.5, 0.5, 0.78, 0.78, 0.78], [0] * 6, [0] * 6)
    claims = {
        claim.claim: claim for claim in kept(tmp_path, peer=PEER, ours=OURS, weak=slow, hostile_sign=slow).claims([0])
    }
    weak = claims["points behind, a third at quarter width, a third asleep"]
    assert (weak.value, weak.holds) == (pytest.approx(2.0), False)
    sign = claims["points behind, a third of the devices hostile (sign)"]
    assert sign.value == pytest.approx(100 * (OURS.final - 0.78), abs=0.01)


def test_where_ours_never_gets_there_nothing_is_claimed(tmp_path: Path) -> None:
    never = Curve([0.5] * 6, [0.5] * 6, [0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1])
    up, down, *_ = kept(tmp_path, peer=PEER, ours=never).claims([0])
    assert up.value is None
    assert down.value is None
