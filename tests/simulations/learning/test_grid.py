"""Rounds over virtual devices in simulated time: who answers when, what is kept, and that a kill changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="federated learning needs the extra [federated]")

from headwater.compression.errors import LearningError
from headwater.simulations.learning.grid import BEGIN
from headwater.simulations.learning.settings import LearningSettings
from headwater.simulations.learning.shelf import Shelf
from tests.simulations.learning import toys
from tests.simulations.learning.toys import Killed, ToyCrew, came_out

TROUBLED = LearningSettings(devices=12, asleep=0.25, slot_s=40.0, dropout=0.1, stragglers="0.25:4", seed=5)


def test_time_passes_by_steps_and_pace_alone(tmp_path: Path) -> None:
    found = toys.run(tmp_path, LearningSettings(devices=8, step_s=3.0), images=[32, 16])
    assert [each.states for each in found.rounds] == [{"believed": 8}] * 2
    assert [each.began - BEGIN for each in found.rounds] == [0.0, 6.0], "two steps of 16 images, 3 s each"
    assert found.rounds[-1].ended == BEGIN + 12.0


def test_whoever_is_slow_is_late_and_has_not_learnt(tmp_path: Path) -> None:
    crew = ToyCrew()
    found = toys.run(tmp_path, LearningSettings(devices=8, stragglers="0.25:50"), crew, deadline_s=30.0)
    assert [each.states for each in found.rounds] == [{"believed": 6, "late": 2}] * 2
    assert found.rounds[0].ended == pytest.approx(BEGIN + 30.0, abs=0.1)
    shelf = Shelf(tmp_path)
    assert shelf.sizes()["devices"] == 6, "only who was heard has learnt"
    shelf.close()


def test_more_are_asked_and_the_first_count(tmp_path: Path) -> None:
    slow = LearningSettings(devices=10, stragglers="0.3:9")
    found = toys.run(tmp_path, slow, share=0.5, over=2.0)
    assert [each.states for each in found.rounds] == [{"believed": 7, "late": 3}] * 2
    assert found.rounds[-1].ended == BEGIN + 4.0, "nobody waits for the slow ones"


def test_sleepers_are_not_asked_and_drop_outs_never_answer(tmp_path: Path) -> None:
    found = toys.run(tmp_path, LearningSettings(devices=20, asleep=0.5, dropout=0.4), deadline_s=60.0)
    assert all(sum(each.states.values()) == 10 for each in found.rounds)
    assert all(each.states["late"] > 0 for each in found.rounds)


def test_who_falls_asleep_answers_when_it_wakes(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("device,from_s,to_s\n0,0,1\n0,100,200\n1,0,200\n")
    told = LearningSettings(devices=2, availability=trace, step_s=5.0)
    found = toys.run(tmp_path / "out", told, rounds=1)
    assert found.rounds[0].states == {"believed": 2}
    assert found.rounds[0].ended == BEGIN + 100.0


def test_the_round_waits_for_enough_to_wake_and_says_so_where_they_never_are(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("device,from_s,to_s\n0,0,200\n1,50,200\n")
    found = toys.run(tmp_path / "out", LearningSettings(devices=2, availability=trace), rounds=1)
    assert found.rounds[0].began == BEGIN + 50.0
    with pytest.raises(LearningError, match="more than these 2 virtual devices"):
        toys.run(tmp_path / "few", LearningSettings(devices=2), least=3)


def test_progress_is_told_from_the_moment_that_a_round_begins(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    toys.run(tmp_path, LearningSettings(devices=8), progress=lambda *how: said.append(how))
    first, second = ([each for each in said if each[0] == group] for group in "12")
    assert (first[0], second[0]) == (("1", 0, 8), ("2", 0, 8))
    assert (first[-1], second[-1]) == (("1", 8, 8), ("2", 8, 8))
    assert said == [*first, *second]


def test_how_actors_work_changes_nothing(tmp_path: Path) -> None:
    one, many = ToyCrew(1), ToyCrew(5)
    toys.run(tmp_path / "one", TROUBLED, one, rounds=3, deadline_s=30.0, evaluate_every=2)
    toys.run(tmp_path / "many", TROUBLED, many, rounds=3, deadline_s=30.0, evaluate_every=2)
    assert came_out(tmp_path / "one") == came_out(tmp_path / "many")
    assert max(one.batches) > 1, "devices share a call"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_killed_at_any_transaction_it_goes_on_to_the_same_result(tmp_path: Path, asynchronous: bool) -> None:
    told = {"rounds": 2, "deadline_s": 30.0, "evaluate_every": 2, "asynchronous": asynchronous, "buffer": 5}
    names: list[str] = []
    toys.run(tmp_path / "whole", TROUBLED, at=names.append, **told)
    kills, count = 0, len(names)

    def kill(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    left = 7
    while True:  # each life is a few transactions longer than what it finds done
        try:
            toys.run(tmp_path / "killed", TROUBLED, ToyCrew(2), at=kill, **told)
            break
        except Killed:
            kills, left = kills + 1, 7
    assert kills > 2, f"{count} transactions"
    assert came_out(tmp_path / "killed") == came_out(tmp_path / "whole")


def test_asynchronous_rounds_repeat_too(tmp_path: Path) -> None:
    told = {"asynchronous": True, "buffer": 4, "rounds": 4, "at_once": 8}
    for name, actors in (("a", 1), ("b", 3)):
        toys.run(tmp_path / name, TROUBLED, ToyCrew(actors), **told)
    assert came_out(tmp_path / "a") == came_out(tmp_path / "b")


def test_what_is_out_is_kept_for_those_who_are_asked_alone(tmp_path: Path) -> None:
    crew = ToyCrew()
    toys.run(tmp_path, LearningSettings(devices=5000), crew, share=0.002, rounds=2)
    assert crew.calls == 20
    shelf = Shelf(tmp_path)
    assert shelf.sizes() == {"devices": 20, "shared": 0, "messages": 0}
    shelf.close()
