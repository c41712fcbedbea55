"""When a release goes on and when back: figures made up, nothing else."""

import math

import numpy as np
import pytest

from headwater.compression.errors import SettingsError
from headwater.server.rollout.canary import LEAST_FRAMES, LONGER, Figures, Rules, judge, ranked, trouble

RULES = Rules(frames=500)
GOOD = Figures(10_000, 10, 8_000, 7_600, 9_000.0)


def figures(frames: int, *, failed: float = 0.001, agreement: float = 0.95, confidence: float = 0.9) -> Figures:
    lost = round(failed * frames)
    answered = frames - lost
    return Figures(answered, lost, answered, round(agreement * answered), confidence * answered)


def test_it_waits_for_enough_frames_and_then_widens() -> None:
    for frames in (0, LEAST_FRAMES - 1, LEAST_FRAMES, 499):
        assert judge(figures(frames), GOOD, RULES).do == "wait"
    verdict = judge(figures(500), GOOD, RULES)
    assert verdict.do == "widen"
    assert "agreement 95" in verdict.why
    assert judge(figures(900), GOOD, RULES, from_frames=500).do == "wait", "each stage counts its own"
    assert judge(figures(1000), GOOD, RULES, from_frames=500).do == "widen"


@pytest.mark.parametrize(
    ("worse", "why"),
    [({"agreement": 0.7}, "agreement 70"), ({"confidence": 0.6}, "confidence 60"), ({"failed": 0.3}, "failures 30")],
)
def test_what_is_much_worse_goes_back_early(worse: dict[str, float], why: str) -> None:
    verdict = judge(figures(100, **worse), GOOD, RULES)
    assert verdict.do == "back"
    assert why in verdict.why


def test_what_is_a_little_worse_is_watched_for_longer() -> None:
    doubtful = {"agreement": 0.89}  # 6 points down where 5 are allowed: chance, at first
    assert judge(figures(600, **doubtful), GOOD, RULES).do == "wait"
    assert "may be chance" in judge(figures(600, **doubtful), GOOD, RULES).why
    assert judge(figures(LONGER * 500, **doubtful), GOOD, Rules(frames=500)).do == "back"
    assert judge(figures(600, agreement=0.91), GOOD, RULES).do == "widen", "what is allowed is allowed"


def test_nothing_to_compare_with() -> None:
    assert judge(figures(500), Figures(), RULES).do == "widen"
    assert judge(Figures(500), Figures(), RULES).do == "widen"
    assert judge(figures(100, failed=0.5), Figures(), RULES).do == "back", "the one before has not failed"


def test_how_often_chance_alone_sends_a_good_bundle_back() -> None:
    rng, back = np.random.default_rng(0), 0
    for _ in range(300):
        agreed = int(rng.binomial(500, 0.95))
        new = Figures(500, 0, 500, agreed, 450.0)
        back += judge(new, GOOD, RULES).do == "back"
    assert back == 0


def test_a_bundle_that_lost_ten_points_does_not_pass() -> None:
    rng, widened = np.random.default_rng(0), 0
    for _ in range(300):
        new = Figures(500, 0, 500, int(rng.binomial(500, 0.85)), 450.0)
        widened += judge(new, GOOD, RULES).do == "widen"
    assert widened <= 2


def test_devices_that_will_not_have_it() -> None:
    assert not trouble(0, 0, RULES)
    assert trouble(1, 1, RULES)
    assert trouble(4, 1, RULES)
    assert not trouble(20, 4, RULES)
    assert trouble(20, 5, RULES)


def test_reports_that_contradict_themselves_do_not_count() -> None:
    rows = [(10, 1, 5, 4, 8.0), (10, 0, 5, 6, 8.0), (10, 0, 20, 5, 8.0), (10, -1, 5, 4, 8.0), (10, 0, 0, 0, 11.0)]
    assert Figures.total(rows) == Figures(10, 1, 5, 4, 8.0)
    assert Figures.total([(1, 0, 0, 0, math.nan)]) == Figures()


def test_each_release_reaches_other_devices_first() -> None:
    devices = [f"cam{number}" for number in range(40)]
    orders = {tuple(ranked(devices, serial)[:4]) for serial in range(20)}
    assert len(orders) == 20
    assert ranked(reversed(devices), 3) == ranked(devices, 3)
    assert sorted(ranked(devices, 3)) == sorted(devices)


def test_rules_that_make_no_sense() -> None:
    for wrong in ({"share": 0.0}, {"frames": 1}, {"wider": 1.0}, {"agreement": -1.0}):
        with pytest.raises(SettingsError):
            Rules(**wrong)  # type: ignore[arg-type]
