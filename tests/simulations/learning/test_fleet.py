"""Virtual devices: shares are kept, traits are apart, and nothing grows with them but a few numbers."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="federated learning needs the extra [federated]")

from headwater.compression.errors import DataError
from headwater.compression.learning.partition import Shares
from headwater.simulations.learning.availability import Always, Sleepers, Trace
from headwater.simulations.learning.settings import LearningSettings
from tests.simulations.learning import toys


def test_shares_are_kept_and_follow_from_the_seed() -> None:
    told = LearningSettings(devices=10, widths="0.5:0.3,1.0:0.7", stragglers="0.2:5", liars="0.1:scaled", seed=3)
    fleet = toys.fleet(told)
    widths = [fleet.width(number) for number in range(10)]
    assert (widths.count(0.5), widths.count(1.0), int(fleet.hostile.sum())) == (3, 7, 1)
    assert sorted(fleet.takes_s(number, 1.0, 16) for number in range(10)) == [2.0] * 8 + [10.0] * 2
    assert [fleet.lie(number) for number in range(10)].count("scaled") == 1
    memory = [fleet.config(number)["memory-bytes"] for number in range(10)]
    assert [5 if width == 0.5 else 10 for width in widths] == memory
    assert widths == [toys.fleet(told).width(number) for number in range(10)]
    assert fleet.config(7)["partition-id"] == 7
    assert fleet.name(7) == "device-0007"


def test_sleepers_change_by_slots() -> None:
    sleepers = Sleepers(100, 0.3, 60.0, seed=1)
    first, same, later = (sleepers.awake(at).copy() for at in (0.0, 59.9, 60.0))
    assert first.sum() == same.sum() == later.sum() == 70
    assert (first == same).all()
    assert (first != later).any()
    assert sleepers.next_change(30.0) == 60.0
    device = int(np.flatnonzero(~first)[0])
    assert sleepers.wakes(device, 1.0) % 60.0 == 0
    assert Always(3).next_change(0.0) == math.inf
    odd = Sleepers(10, 0.3, 601.3, seed=1)
    edges = itertools.accumulate(range(2000), lambda at, _: odd.next_change(at), initial=0.0)
    assert all(later > earlier for earlier, later in itertools.pairwise(edges)), "time goes on, whatever is rounded"


def test_a_trace_begins_anew_and_serves_more_devices_than_it_names(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("device,from_s,to_s\na,0,10\na,30,40\nb,20,100\n")
    trace = Trace.read(file, 3)
    assert [trace.awake(at).tolist() for at in (5, 15, 35, 105)] == [
        [True, False, True],
        [False, False, False],
        [True, True, True],
        [True, False, True],
    ]
    assert [trace.wakes(0, at) for at in (5.0, 15.0, 60.0)] == [5.0, 30.0, 100.0]
    assert [trace.next_change(at) for at in (0.0, 40.0, 95.0, 130.0)] == [10.0, 100.0, 100.0, 140.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("device,from,to\n", "want device,from_s,to_s"),
        ("device,from_s,to_s\n", "names no device"),
        ("device,from_s,to_s\n0,5,1\n", "line 2"),
        ("device,from_s,to_s\n0,0,1\n0,x,1\n", "line 3"),
    ],
)
def test_a_trace_that_is_none_names_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        Trace.read(tmp_path / "trace.csv", 3)
    with pytest.raises(DataError, match="cannot be read"):
        Trace.read(tmp_path / "none.csv", 3)


def test_devices_draw_images_of_their_own_mixture_whatever_the_fleet_s_size() -> None:
    labels = np.repeat(np.arange(10), 100)
    domains = np.tile([0, 1], 500)
    few, many = (Shares(devices, alpha=0.3, seed=4, images=30) for devices in (10, 100_000))
    none = np.zeros_like(labels)
    drawn = [few.own(labels, none, device) for device in range(10)]
    assert all(len(set(own.tolist())) == 30 for own in drawn), "none twice, as long as there are enough"
    assert (many.own(labels, none, 3) == drawn[3]).all()
    assert np.mean([np.bincount(labels[own], minlength=10).max() for own in drawn]) > 10, "a strong skew"
    split = Shares(10, "kind", 5.0, 0, 30)
    assert {int(domains[split.own(labels, domains, device)].max()) for device in range(5)} == {0}
    assert {int(domains[split.own(labels, domains, device)].min()) for device in range(5, 10)} == {1}
    assert len(Shares(2, images=2500).own(labels, none, 0)) == 2500, "and again from the first where there are not"
    assert len(few.own(labels[:0], none[:0], 0)) == 0
