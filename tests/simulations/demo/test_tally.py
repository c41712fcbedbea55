"""What a link's records add up to."""

import math
from pathlib import Path

import pytest

from headwater.simulations.demo.tally import STAGES, Tally
from headwater.simulations.lane import Passage
from headwater.simulations.samples import Sample
from tests.simulations.demo import runs


@pytest.fixture
def made(tmp_path: Path) -> list[Sample]:
    return runs.samples(tmp_path / "pictures", 12)


def test_an_empty_tally_has_no_figures(made: list[Sample]) -> None:
    empty = runs.tally(made)
    assert all(map(math.isnan, (empty.accuracy, empty.error, empty.mean_bytes, empty.latency_ms(0.5))))
    assert all(map(math.isnan, (empty.connecting_s, empty.wire_bytes("up"), empty.added_bytes)))
    assert empty.stages_ms() == {}
    assert len(empty.first_of(5)[0]) == 0


def test_accuracy_is_of_the_answers_given(made: list[Sample]) -> None:
    tally = runs.tally(made)
    tally.add(runs.record(0, taken_s=0))
    tally.add(runs.record(1, taken_s=1, label="left"))  # it is "middle"
    tally.add(runs.record(2, taken_s=2, status="expired", source="none", results={}))
    assert tally.accuracy == 0.5
    assert tally.error == pytest.approx(math.sqrt(0.25 / 2))
    assert len(tally.answered) == 2
    assert tally.sources == {"edge": 2, "none": 1}
    assert not tally.right(tally.records[2])


def test_frames_that_waited_for_the_connection_are_not_in_the_latency(made: list[Sample]) -> None:
    tally = runs.tally(made)
    for index in range(4):  # the first answer comes at 2.0 s; those taken before it had to wait
        tally.add(runs.record(index, taken_s=index * 0.5, latency_ms=2000 - 100 * index))
    for index in range(4, 10):
        tally.add(runs.record(index, taken_s=index * 0.5, latency_ms=100.0 + index))
    assert tally.connecting_s == pytest.approx(2.0)
    assert [record.sequence for record in tally.steady] == [5, 6, 7, 8, 9, 10]
    assert tally.latency_ms(0.5) == pytest.approx(106)
    assert tally.latency_ms(0.95) == pytest.approx(109)


def _crossing(tally: Tally, index: int, taken_s: float) -> None:
    """A frame of 30 bytes and 40 of gRPC up, an answer of 90 bytes in two chunks down, 70 ms."""
    written_s, there_s = taken_s + 0.010, taken_s + 0.400
    tally.passages.append(Passage("up", 50, written_s, written_s + 0.1))
    tally.passages.append(Passage("up", 20, written_s, written_s + 0.2))
    tally.passages.append(Passage("down", 60, there_s - 0.070, there_s - 0.020))
    tally.passages.append(Passage("down", 30, there_s - 0.070, there_s))
    tally.add(runs.record(index, taken_s=taken_s))


def test_stages_sum_up_to_the_latency(made: list[Sample]) -> None:
    tally = runs.tally(made)
    for index in range(6):
        _crossing(tally, index, index * 0.5)
    stages = tally.stages_ms()
    assert list(stages) == list(STAGES)
    assert sum(stages.values()) == pytest.approx(400)
    assert (stages["queue"], stages["decode"], stages["run"]) == pytest.approx((1, 2, 3))
    assert stages["head"] == pytest.approx(3)
    assert stages["waiting"] == pytest.approx(400 - 390 - 3.5)
    assert stages["downlink"] == pytest.approx(70, abs=0.01)
    assert stages["uplink"] == pytest.approx(390 - 6 - 70, abs=0.01)


def test_what_the_device_answered_itself_has_no_share_in_the_link_s_and_the_server_s_time(made: list[Sample]) -> None:
    tally = runs.tally(made)
    tally.add(runs.record(0, taken_s=-1.0, latency_ms=10.0, source="local", action="local", bytes=0))
    for index in range(1, 5):
        _crossing(tally, index, index * 0.5)
    alone, added, connecting_s = tally.stages_ms(), tally.added_bytes, tally.connecting_s
    instead = {"source": "local", "detail": "no answer before the deadline", "round_trip_ms": 0.0}
    tally.add(runs.record(5, taken_s=4.0, latency_ms=900.0, **instead))
    whole = {"action": "whole", "head_ms": 0.0, "bytes": 0, "width": 1.0}
    tally.add(runs.record(6, taken_s=4.5, latency_ms=50.0, source="local", **whole))
    assert (tally.stages_ms(), tally.added_bytes, tally.connecting_s) == (alone, added, connecting_s)
    assert connecting_s == pytest.approx(1.5 + 0.4)
    assert tally.sources == {"edge": 4, "local": 3}
    assert tally.modes == {(0.25, 0): 6}
    assert tally.latency_ms(1.0) == 900.0
    assert (len(tally.served), len(tally.steady)) == (4, 6)


def test_the_wire_counts_everything_and_a_frame_its_own_write(made: list[Sample]) -> None:
    tally = runs.tally(made)
    tally.passages.append(Passage("up", 600, -1.0, -0.5))  # the greeting
    for index in range(6):
        _crossing(tally, index, index * 0.5)
    assert tally.wire_bytes("up") == pytest.approx(70 + 100)
    assert tally.wire_bytes("down") == pytest.approx(90)
    assert tally.added_bytes == pytest.approx(40)


def test_what_is_compared_is_in_the_pictures_order(made: list[Sample]) -> None:
    tally = runs.tally(made)
    for index in (5, 0, 3):
        tally.add(runs.record(index, taken_s=index, bytes=20 + index, label="left"))
    index, right, sizes = tally.first_of(5)
    assert (index.tolist(), right.tolist(), sizes.tolist()) == ([0, 3], [True, True], [20, 23])
    assert len(tally.first_of(6)[0]) == 3


def test_confusion_counts_true_against_answered(made: list[Sample]) -> None:
    tally = runs.tally(made)
    for index in range(6):
        tally.add(runs.record(index, taken_s=index, label="left"))
    assert tally.confusion(runs.LABELS).tolist() == [[2, 0, 0], [2, 0, 0], [2, 0, 0]]
