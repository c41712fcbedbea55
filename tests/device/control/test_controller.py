"""What every controller must do, whatever it goes by."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError
from headwater.device.control.controller import (
    Action,
    Controller,
    Decision,
    FixedController,
    Observation,
    Outcome,
    Situation,
)
from headwater.device.control.deadline import DeadlineController
from headwater.device.control.policy import Policy
from tests.device.control.twins import EXIT, MODES, WHOLE

EVERY: dict[str, Callable[[], Controller]] = {
    "fixed": lambda: FixedController(2),
    "deadline": lambda: DeadlineController(MODES),
    "exit and whole": lambda: DeadlineController(MODES, exit_accuracy=EXIT, whole_accuracy=WHOLE),
    "bytes": lambda: DeadlineController(MODES, Policy("bytes"), exit_accuracy=EXIT),
    "energy": lambda: DeadlineController(MODES, Policy("energy"), exit_accuracy=EXIT, whole_accuracy=WHOLE),
    "budget": lambda: DeadlineController(MODES, Policy(max_bytes_per_s=500), exit_accuracy=EXIT),
}


def any_situation(rng: random.Random, time_s: float) -> Situation:
    return Situation(
        deadline_ms=rng.choice([None, 0.5, 100.0]),
        age_ms=rng.choice([0.0, 1e6]),
        interval_ms=rng.choice([None, 0.1, 1000.0]),
        frames_unanswered=rng.randrange(9),
        bytes_unanswered=rng.randrange(9000),
        silent_ms=rng.choice([0.0, 1e4]),
        held_ms=rng.choice([0.0, 30.0]),
        connected=rng.random() < 0.5,
        max_bytes=rng.choice([None, 10, 500]),
        max_groups=rng.choice([None, 1, 3]),
        time_s=time_s,
        oldest_ms=rng.choice([0.0, 1e4]),
        exit_available=rng.random() < 0.5,
        whole_ms=rng.choice([None, 20.0]),
    )


def any_observation(rng: random.Random, decision: Decision, time_s: float) -> Observation:
    outcome = rng.choice(get_args(Outcome))
    answered = outcome in {"answered", "late"}
    return Observation(
        mode=decision.mode,
        sent_bytes=rng.choice([0, 30, 3000]),
        prepare_ms=rng.choice([0.0, 1.0]),
        head_ms=rng.choice([0.0, 2.0, 1e4]),
        code_ms=rng.choice([0.0, 0.1]),
        outcome=outcome,
        attempts=rng.randrange(3),
        round_trip_ms=rng.choice([0.0, 5.0, 1e6]) if answered else None,
        server_ms=rng.choice([0.0, 5.0]),
        batch=1,
        bytes_ahead=rng.choice([0, 500]),
        exit_ms=rng.choice([0.0, 1.0]),
        time_s=time_s,
        waited_ms=0.0 if answered else rng.choice([0.0, 1e5]),
        confidence=rng.choice([None, rng.random()]),
        sent=rng.random() < 0.5,
    )


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())
class TestEveryController:
    def test_has_a_decision_for_any_situation(self, make: Callable[[], Controller]) -> None:
        rng = random.Random(1)
        controller, time_s = make(), 0.0
        for _ in range(500):
            time_s += rng.choice([0.0, 0.05, 10.0])
            situation = any_situation(rng, time_s)
            chosen = controller.choose(situation)
            refined = controller.refine(chosen, replace(situation, connected=rng.random() < 0.5), rng.random())
            for decision in (chosen, refined):
                assert 0 <= decision.mode < len(MODES)
                assert decision.action in get_args(Action)
                if decision.action == "send":
                    assert decision.groups is None or decision.groups <= (situation.max_groups or 3)
                    assert situation.max_groups is None or decision.groups is not None
                    assert decision.most_bytes is None or decision.most_bytes > 0
            assert MODES[refined.mode].width == MODES[chosen.mode].width, "the head has run"
            assert chosen.action == "send" or refined == chosen
            for _ in range(rng.randrange(3)):
                controller.observe(any_observation(rng, refined, time_s))

    def test_is_pure(self, make: Callable[[], Controller]) -> None:
        def run() -> list[Decision]:
            rng, controller, decisions = random.Random(2), make(), []
            for step in range(100):
                decisions.append(controller.choose(any_situation(rng, step / 5)))
                controller.observe(any_observation(rng, decisions[-1], step / 5))
            return decisions

        assert run() == run()

    def test_nothing_is_claimed_that_is_not_there(self, make: Callable[[], Controller]) -> None:
        controller, rng = make(), random.Random(3)
        for step in range(200):
            situation = replace(any_situation(rng, step / 5), exit_available=False, whole_ms=None)
            decision = controller.choose(situation)
            assert decision.action in {"send", "skip"}
            assert controller.refine(decision, situation, None).action in {"send", "skip"}


class TestFixed:
    def test_named_by_width_and_gain(self, tiny_bundle: Bundle) -> None:
        of = FixedController.of
        modes = tiny_bundle.manifest.modes
        assert modes[of(tiny_bundle, 0.5, 2).mode].width == 0.5
        assert of(tiny_bundle).mode == len(modes) - 1
        assert (modes[of(tiny_bundle, 0.25).mode].width, modes[of(tiny_bundle, 0.25).mode].gain) == (0.25, 3)
        assert (modes[of(tiny_bundle, None, 0).mode].width, modes[of(tiny_bundle, None, 0).mode].gain) == (1.0, 0)
        with pytest.raises(BundleError, match=r"widths: 0\.25, 0\.5, 0\.75, 1"):
            of(tiny_bundle, 0.3, 0)

    def test_sends_fewer_groups_if_the_server_wishes(self) -> None:
        assert FixedController(1).choose(Situation(max_groups=2)) == Decision(1, 2)
