"""When: budgets, exploring, trying, doubt."""

import random
from itertools import pairwise
from statistics import fmean

import pytest

from headwater.device.control.pacing import FIRST_TRY, Budget, Climber, Doubt, Explorer


def test_a_budget_is_full_at_first_and_fills_with_time() -> None:
    budget = Budget(100.0, 200.0)
    budget.picture(50.0)
    assert budget.left == 200
    budget.spend(250)
    budget.picture(51.0)
    assert budget.left == 50
    budget.picture(99.0)
    assert budget.left == 200
    budget.picture(98.0)
    assert budget.left == 200


def test_what_a_budget_has_for_each_picture() -> None:
    budget = Budget(100.0, 200.0)
    assert budget.each == float("inf"), "nothing is known of the pictures yet"
    for step in range(200):
        budget.picture(step / 5)
    assert budget.each == pytest.approx(20)


def test_without_a_limit_anything_may_be_sent() -> None:
    budget = Budget()
    budget.picture(0.0)
    budget.spend(1e12)
    budget.picture(1.0)
    assert budget.left == float("inf")
    assert budget.each == float("inf")


def explored(explorer: Explorer, seconds: float, unanswered: int = 0) -> list[float]:
    times = []
    for step in range(int(seconds * 50)):
        if explorer.due(step / 50, unanswered):
            explorer.sent(step / 50)
            times.append(step / 50)
    return times


def test_exploring_pauses_longer_and_longer_up_to_a_second() -> None:
    times = explored(Explorer(), 10)
    pauses = [later - sooner for sooner, later in pairwise(times)]
    assert pauses[:4] == pytest.approx([0.2, 0.4, 0.8, 1.0], abs=0.021)
    assert max(pauses) <= 1.021


def test_one_frame_at_a_time_explores() -> None:
    assert len(explored(Explorer(), 10, unanswered=1)) <= 11


def test_a_link_that_is_back_is_used_at_once() -> None:
    explorer = Explorer()
    explored(explorer, 5)
    last = 4.99
    explorer.sent(last)
    explorer.late(last + 0.01, 300.0)
    assert not explorer.due(last + 0.02, 0), "slow, but not away"
    explorer.late(last + 4.01, 4000.0)
    assert explorer.due(last + 4.01, 0)
    explorer.sent(last + 4.01)
    explorer.late(last + 4.2, 4000.0)
    assert not explorer.due(last + 4.2, 0), "one of the same queue: that it took so long says nothing more"


def test_trying_is_rarer_each_time_that_it_does_not_help() -> None:
    climber, tried = Climber(), []
    for frame in range(1000):
        if climber.due:
            climber.tried()
            tried.append(frame)
        climber.same()
    assert tried[0] == FIRST_TRY
    gaps = [later - sooner for sooner, later in pairwise(tried)]
    assert gaps[:3] == [2 * FIRST_TRY, 4 * FIRST_TRY, 8 * FIRST_TRY]
    climber.moved()
    assert not climber.due


def test_doubt_is_one_on_average_and_highest_where_the_exit_is_least_sure() -> None:
    rng, doubt = random.Random(0), Doubt()
    assert doubt.factor(0.1) == 1.0
    factors = []
    for _ in range(4000):
        confidence = rng.betavariate(5, 1)
        factors.append(doubt.factor(confidence))
        doubt.add(confidence)
    assert fmean(factors[100:]) == pytest.approx(1.0, abs=0.05)
    assert doubt.factor(0.0) == 3.0
    assert doubt.factor(1.0) == 0.0
    assert doubt.factor(None) == 1.0
