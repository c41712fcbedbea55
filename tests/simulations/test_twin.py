"""The twin itself: it does with a frame what the agent does, and its oracle is never beaten."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from headwater.device.control.controller import Decision, FixedController, Observation, Situation
from headwater.device.control.deadline import DeadlineController
from headwater.simulations.trace import LinkTrace, Trace
from headwater.simulations.twin import DOWN_BYTES, UP_BYTES, Device, Twin
from tests.device.control.twins import DEVICE, EXIT, MODES, WHOLE, accuracy, link

EVEN = replace(DEVICE, spread=0.0)


class Listening:
    """A fixed mode that keeps what it is told."""

    def __init__(self, mode: int, most_bytes: int | None = None) -> None:
        self.decision = Decision(mode, most_bytes=most_bytes)
        self.situations: list[Situation] = []
        self.observations: list[Observation] = []

    def choose(self, situation: Situation) -> Decision:
        self.situations.append(situation)
        return self.decision

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:  # noqa: ARG002
        return decision

    def observe(self, observation: Observation) -> None:
        self.observations.append(observation)


def test_a_frames_time_is_what_its_way_takes() -> None:
    trace = Trace.constant(80e3)  # 10 bytes a ms
    (outcome,) = Twin(MODES, link(trace), EVEN, deadline_ms=None).run(FixedController(1), 1)
    server_ms = outcome.latest_ms - 1 - 2 - 0.2 - (outcome.sent_bytes + UP_BYTES + DOWN_BYTES) / 10 - 40
    assert 0.6 * EVEN.server_ms <= server_ms <= 5 * EVEN.server_ms
    assert outcome.source == "edge"
    assert outcome.accuracy == pytest.approx(0.83)


def test_frames_wait_for_those_before_them() -> None:
    listening = Listening(3)
    outcomes = Twin(MODES, link(Trace.constant(80e3)), EVEN, deadline_ms=None).run(listening, 5)
    assert [round(outcome.latest_ms, -2) for outcome in outcomes] == sorted(
        round(outcome.latest_ms, -2) for outcome in outcomes
    )
    assert outcomes[-1].latest_ms > outcomes[0].latest_ms + 400
    assert listening.situations[-1].frames_unanswered >= 2
    assert listening.situations[-1].oldest_ms > 200


def test_a_late_frame_is_told_of_twice_and_the_exit_steps_in() -> None:
    listening = Listening(3)
    scene = Twin(MODES, link(Trace.constant(80e3)), EVEN, deadline_ms=200, exit_accuracy=EXIT, fps=1)
    outcomes = scene.run(listening, 3)
    assert [outcome.source for outcome in outcomes] == ["local"] * 3
    assert {outcome.answered_ms for outcome in outcomes} == {200.0}
    assert {outcome.accuracy for outcome in outcomes} == {EXIT[1.0]}
    kinds = [(seen.outcome, seen.head_ms > 0, seen.round_trip_ms is not None) for seen in listening.observations]
    assert kinds[:2] == [("local", True, False), ("late", False, True)]
    assert listening.observations[0].waited_ms == pytest.approx(200 - 9.7, abs=0.5)


def test_a_frame_that_is_too_long_is_coded_again() -> None:
    for most, mode in ((None, 3), (1500, 2), (10, 2)):
        (outcome,) = Twin(MODES, link(Trace.constant(1e6)), EVEN).run(Listening(3, most), 1)
        assert outcome.decision.mode == mode, "the coarsest of its width at the least"


def test_a_dead_link_answers_nothing() -> None:
    dead = LinkTrace("dead", Trace.constant(0), Trace.constant(0))
    outcomes = Twin(MODES, dead, EVEN).run(FixedController(0), 5)
    assert {(outcome.source, outcome.accuracy) for outcome in outcomes} == {("none", 0.0)}


@pytest.mark.parametrize("local", [True, False])
def test_every_run_meets_the_same_chances_and_none_beats_the_oracle(*, local: bool) -> None:
    trace = link(Trace.markov(2, [(2e4, 1), (2e5, 2), (1e6, 2)]))
    scene = Twin(MODES, trace, DEVICE, deadline_ms=200, exit_accuracy=EXIT if local else None, seed=4)
    rule = DeadlineController(MODES, exit_accuracy=EXIT if local else None)
    first = scene.run(rule, 200)
    again = scene.run(DeadlineController(MODES, exit_accuracy=EXIT if local else None), 200)
    assert first == again
    best = accuracy(scene.oracle(200))
    assert all(accuracy(scene.run(FixedController(mode.index), 200)) <= best for mode in MODES)
    assert accuracy(first) <= best


def test_the_oracle_uses_the_whole_model_where_it_fits() -> None:
    slow = link(Trace.constant(1e4))
    for whole_ms, source in ((50.0, "local"), (500.0, "none")):
        device = Device(head_ms=DEVICE.head_ms, whole_ms=whole_ms)
        outcomes = Twin(MODES, slow, device, deadline_ms=100, whole_accuracy=WHOLE).oracle(5)
        assert {outcome.source for outcome in outcomes} == {source}


def test_pictures_differ_from_seed_to_seed() -> None:
    sizes = {
        Twin(MODES, link(Trace.constant(1e6)), DEVICE, seed=seed).run(FixedController(3), 1)[0].sent_bytes
        for seed in random.Random(0).sample(range(1000), 5)
    }
    assert len(sizes) > 3
