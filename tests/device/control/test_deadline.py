"""The rule on links and devices that a twin plays out: what it keeps, how fast it reacts, what it costs in accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest

from headwater.device.control.controller import OVERHEAD_BYTES, Decision, FixedController, Observation, Situation
from headwater.device.control.deadline import DeadlineController
from headwater.device.control.offers import Offers
from headwater.device.control.policy import PRICES, Policy
from headwater.simulations.trace import Trace
from headwater.simulations.twin import Outcome, Twin
from tests.device.control.twins import DEVICE, EXIT, KBIT, LINKS, MODES, WHOLE, accuracy, link, missed, rule, twin

SEEDS = (0, 1, 2)


def sent(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.decision.action == "send" for outcome in outcomes)


# ------------------------------------------------------------ always an answer, and nearly the best


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LINKS)
def test_with_a_local_exit_every_picture_is_answered_in_time(name: str, seed: int) -> None:
    outcomes = twin(LINKS[name], seed=seed).run(rule(), 400)
    assert [outcome for outcome in outcomes if outcome.answered_ms > 300] == []


@pytest.mark.parametrize(("name", "most"), [("fast", 0.3), ("slow", 1.0), ("tenfold", 1.0), ("black-out", 1.0)])
def test_accuracy_is_nearly_that_of_knowing_everything(name: str, most: float) -> None:
    own, best = (0.0, 0.0)
    for seed in SEEDS:
        scene = twin(LINKS[name], seed=seed)
        own += accuracy(scene.run(rule(), 400)) / len(SEEDS)
        best += accuracy(scene.oracle(400)) / len(SEEDS)
    assert best - own <= most


@pytest.mark.parametrize("states", [[(0, 0.5), (2e4, 2), (1e5, 3), (1e6, 3)], [(1e4, 2), (4e4, 3), (2e5, 3)]])
def test_better_than_any_fixed_mode_on_links_that_nobody_can_foresee(states: list[tuple[float, float]]) -> None:
    scenes = [twin(link(Trace.markov(seed, states)), seed=seed) for seed in SEEDS]
    own = fmean(accuracy(scene.run(rule(), 300)) for scene in scenes)
    fixed = [fmean(accuracy(scene.run(FixedController(mode.index), 300)) for scene in scenes) for mode in MODES]
    oracle = fmean(accuracy(scene.oracle(300)) for scene in scenes)
    assert own > max(fixed) + 0.3, "with the same exit to fall back to"
    assert oracle - own <= 4.0, "of the 10 points and more between exit and server"


@pytest.mark.parametrize("name", ["fast", "slow", "tenfold"])
def test_without_an_exit_the_level_is_kept(name: str) -> None:
    scene = twin(LINKS[name], deadline_ms=400, local=False)
    outcomes, oracle = scene.run(rule(local=False), 600), scene.oracle(600)
    assert missed(outcomes, oracle, 400) <= 0.01


# ------------------------------------------------------------ changes

DROPS = [(30 * KBIT, 15, 95), (38 * KBIT, 22, 95), (20 * KBIT, 15, 160)]
"""Rate after it, delay there and back, deadline."""


def test_a_tenfold_drop_is_believed_within_three_frames() -> None:
    scene = twin(link(Trace.steps([(20, 2e6), (1000, 2e5)])), deadline_ms=150, local=False)  # 3 kB take 123 ms now
    outcomes = scene.run(rule(local=False), 200)
    assert {outcome.decision.mode for outcome in outcomes[80:100]} == {3}
    late = [at for at, outcome in enumerate(outcomes) if outcome.answered_ms > 150]
    assert all(100 <= at < 103 for at in late)


def in_time_again(outcomes: Sequence[Outcome], oracle: Sequence[Outcome]) -> int:
    """Pictures until two in a row are answered, or could not have been by anybody."""
    well = [own.source != "none" or best.source == "none" for own, best in zip(outcomes, oracle, strict=True)]
    return next((at for at in range(len(well)) if all(well[at : at + 2])), len(well))


@pytest.mark.parametrize(("low", "delay_ms", "deadline_ms"), DROPS)
@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_drop_that_leaves_room_for_small_frames_only_these_are_sent_and_in_time(
    low: float, delay_ms: float, deadline_ms: float, seed: int
) -> None:
    trace = link(Trace.steps([(10, 10 * low), (1000, low)]), delay_ms)
    scene = twin(trace, deadline_ms, local=False, seed=seed, device=replace(DEVICE, head_ms={0.25: 1.0, 1.0: 2.5}))
    outcomes, oracle = scene.run(rule(local=False), 80), scene.oracle(80)
    assert in_time_again(outcomes[50:], oracle[50:]) <= 3
    assert missed(outcomes[55:], oracle[55:], deadline_ms) <= 0.1


def test_a_queue_that_does_not_shrink_is_not_added_to() -> None:
    """After the drop the link carries the smallest frames as fast as pictures are taken, and no faster."""
    outcomes = twin(link(Trace.steps([(10, 3e4), (1000, 4e3)])), 600, local=False).run(rule(local=False), 130)
    late = sum(outcome.answered_ms > 600 for outcome in outcomes[60:])
    assert late <= 25, "of 70; nearly all are late in a queue that stays"


def test_a_link_that_is_back_is_found_within_two_seconds() -> None:
    outcomes = twin(link(Trace.steps([(10, 1e6), (20, 0), (1000, 1e6)]))).run(rule(), 250)
    assert {outcome.source for outcome in outcomes[60:150]} == {"local"}
    assert {outcome.source for outcome in outcomes[160:]} == {"edge"}


def test_a_dead_link_is_not_hammered() -> None:
    outcomes = twin(link(Trace.steps([(10, 1e6), (1000, 0)]))).run(rule(), 350)  # 60 s of it
    assert sent(outcomes[50:]) <= 65, "about one a second"


def test_a_link_too_slow_for_any_frame_is_explored_now_and_then() -> None:
    outcomes = twin(link(Trace.constant(4 * KBIT)), deadline_ms=200).run(rule(), 300)
    assert 10 <= sent(outcomes) <= 70
    assert {outcome.decision.mode for outcome in outcomes if outcome.sent_bytes} <= {0, 2}


def test_a_busy_processor_is_believed_within_a_second_and_forgotten_as_soon() -> None:
    busy = replace(DEVICE, busy=lambda time_s: 6.0 if 10 <= time_s < 20 else 1.0)
    outcomes = twin(LINKS["slow"], deadline_ms=40, device=busy).run(rule(), 200)  # 57 ms at the wide head then
    widths = [MODES[outcome.decision.mode].width for outcome in outcomes]
    late = [at for at, outcome in enumerate(outcomes) if outcome.answered_ms > 40]
    assert all(50 <= at < 55 for at in late)
    assert widths[40:50] == [1.0] * 10
    assert widths[55:100] == [0.25] * 45
    assert widths[110:] == [1.0] * 90


def test_a_steady_link_is_no_reason_to_change() -> None:
    for trace in (LINKS["fast"], LINKS["slow"]):
        outcomes = twin(trace).run(rule(), 400)[100:]
        modes = Counter(outcome.decision.mode for outcome in outcomes)
        assert modes.most_common(1)[0][1] >= 0.95 * len(outcomes)


STALLS = link(Trace.markov(11, [(0, 0.25), (2e5, 1.0)]), delay_ms=35)
"""Nothing crosses for a quarter of a second, each second or so."""


def test_without_an_exit_stalls_are_no_reason_to_leave_pictures_out() -> None:
    unsent = 0
    for seed in SEEDS:
        outcomes = twin(STALLS, local=False, seed=seed).run(rule(local=False), 300)
        smallest = twin(STALLS, local=False, seed=seed).run(FixedController(0), 300)
        late = [sum(outcome.answered_ms > 300 for outcome in run) for run in (outcomes, smallest)]
        left_out = sum(outcome.decision.action == "skip" for outcome in outcomes)
        assert late[0] + left_out <= late[1] + 12, "a picture left out has no answer in time either"
        unsent += left_out
    assert unsent <= 6, "of 900; with pauses between them, as with an exit, it was 45"


def test_without_an_exit_a_slow_link_is_not_flooded() -> None:
    dead = link(Trace.steps([(10, 2e4), (1000, 0)]))
    outcomes = twin(dead, local=False).run(rule(local=False), 250)  # 40 s of it
    assert sent(outcomes[60:]) <= 50, "about one a second when there is a queue"


class OneSize:
    """A link of long delay on which all frames of a mode are of one size, and a tenth of a ms or two of jitter."""

    def __init__(self, delay_ms: float, byte_ms: float) -> None:
        self.delay_ms, self.byte_ms = delay_ms, byte_ms

    def run(self, controller: DeadlineController, deadline_ms: float | None, frames: int) -> list[Decision]:
        taken = []
        for number in range(frames):
            situation = Situation(deadline_ms=deadline_ms, interval_ms=200.0, time_s=number / 5)
            decision = controller.choose(situation)
            size = int(MODES[decision.mode].mean_bytes)
            took_ms = self.delay_ms + (size + OVERHEAD_BYTES) * self.byte_ms + number * 37 % 100 / 500
            late = deadline_ms is not None and took_ms > deadline_ms
            controller.observe(
                Observation(
                    mode=decision.mode,
                    sent_bytes=size,
                    prepare_ms=0.0,
                    head_ms=5.0,
                    code_ms=0.1,
                    outcome="late" if late else "answered",
                    round_trip_ms=took_ms,
                    time_s=situation.time_s + took_ms / 1e3,
                )
            )
            taken.append(decision)
        return taken


@pytest.mark.parametrize("deadline_ms", [None, 420.0])
def test_on_a_link_of_long_delay_a_larger_frame_tells_that_there_is_room(deadline_ms: float | None) -> None:
    taken = OneSize(250.0, 0.27).run(rule(local=False), deadline_ms, 400)
    assert {decision.mode for decision in taken[:10]} == {0}
    assert {decision.mode for decision in taken[110:]} <= {1, 2}, "300 bytes and more: 4 kB are not steady"
    assert sum(decision.reason == "trying a larger frame" for decision in taken) <= 3


def test_frames_that_are_on_their_way_together_since_the_delay_is_long_do_not_hide_that_there_is_room() -> None:
    far = link(Trace.constant(30 * KBIT), delay_ms=200.0)
    outcomes = twin(far, None, local=False).run(rule(local=False), 150)
    assert {outcome.mode for outcome in outcomes[100:] if outcome.decision.reason == "no deadline"} == {1}, "300 bytes"


def test_a_larger_frame_that_has_told_that_there_is_no_room_is_not_tried_again() -> None:
    taken = OneSize(100.0, 2.5).run(rule(local=False), 420.0, 800)  # 300 bytes more take 675 ms
    assert {decision.mode for decision in taken if decision.reason != "trying a larger frame"} == {0}
    assert sum(decision.reason == "trying a larger frame" for decision in taken) <= 2


# ------------------------------------------------------------ what the user wants


def test_a_budget_of_bytes_is_kept_and_used() -> None:
    for budget in (100, 400, 2000):
        outcomes = twin(LINKS["fast"]).run(rule(Policy(max_bytes_per_s=budget)), 500)
        wire_bytes = sum(outcome.sent_bytes + OVERHEAD_BYTES for outcome in outcomes if outcome.sent_bytes)
        assert 0.7 * budget * 100 <= wire_bytes <= budget * 102 + 4000
        assert not any(outcome.answered_ms > 300 for outcome in outcomes)


def test_a_budget_without_an_exit_answers_all_in_few_bytes_rather_than_some_in_many() -> None:
    outcomes = twin(LINKS["fast"], local=False).run(rule(Policy(max_bytes_per_s=800), local=False), 300)
    assert sum(outcome.source == "edge" for outcome in outcomes) > 280


def test_nothing_is_tried_that_the_budget_has_no_room_for() -> None:
    outcomes = twin(LINKS["fast"]).run(rule(Policy(max_bytes_per_s=800)), 300)
    assert "trying a larger frame" not in {outcome.decision.reason for outcome in outcomes[20:]}


def test_fewest_bytes_within_the_slack() -> None:
    for policy, mode in ((Policy(), 3), (Policy("bytes", slack=1.5), 2), (Policy("bytes", slack=5), 1)):
        outcomes = twin(LINKS["fast"], local=False).run(rule(policy, local=False), 60)
        assert {outcome.mode for outcome in outcomes[30:]} == {mode}
    nothing = twin(LINKS["fast"]).run(rule(Policy("bytes", slack=20)), 100)[50:]
    assert sum(outcome.sent_bytes for outcome in nothing) == 0


def test_least_energy_goes_by_the_prices() -> None:
    free = replace(PRICES["wifi"], joule_per_byte=0.0, radio_watts=0.0)
    dear = replace(PRICES["wifi"], joule_per_byte=1.0)
    for prices, mode in ((free, 1), (dear, 0)):
        outcomes = twin(LINKS["fast"], local=False).run(rule(Policy("energy", slack=7, prices=prices), local=False), 60)
        assert {outcome.mode for outcome in outcomes[30:]} == {mode}


def test_the_whole_model_where_it_fits() -> None:
    strong, weak = replace(DEVICE, whole_ms=30.0), replace(DEVICE, whole_ms=250.0)
    for device, action in ((strong, "whole"), (weak, "send")):
        scene = Twin(MODES, LINKS["fast"], device, deadline_ms=200, exit_accuracy=EXIT, whole_accuracy=WHOLE)
        assert {outcome.decision.action for outcome in scene.run(rule(), 60)[10:]} == {action}


def test_the_whole_model_is_left_when_the_processor_is_busy() -> None:
    device = replace(DEVICE, whole_ms=30.0, busy=lambda time_s: 8.0 if time_s >= 10 else 1.0)
    scene = Twin(MODES, LINKS["fast"], device, deadline_ms=150, exit_accuracy=EXIT, whole_accuracy=WHOLE)
    outcomes = scene.run(rule(), 150)
    assert {outcome.decision.action for outcome in outcomes[10:50]} == {"whole"}
    assert {outcome.decision.action for outcome in outcomes[55:]} == {"send"}


BOTH = tuple(replace(mode, accuracy={"a": mode.accuracy["a"], "b": 1.6 - mode.accuracy["a"]}) for mode in MODES)
"""Task b is the more accurate the fewer the bytes, by as much as task a is less."""


@pytest.mark.parametrize(
    ("prefer", "tasks", "mode"),
    [({"b": 0.0}, (), 3), ({"a": 0.0}, (), 0), ({}, (), 0), ({"a": 2.0}, (), 3), ({}, ("a",), 3), ({}, ("b",), 0)],
)
def test_tasks_count_as_they_are_asked_for_and_preferred(
    prefer: dict[str, float], tasks: tuple[str, ...], mode: int
) -> None:
    policy = Policy(prefer=prefer)
    controller = DeadlineController(BOTH, policy, offers=Offers(BOTH, policy, tasks))
    outcomes = twin(LINKS["fast"], local=False).run(controller, 60)
    assert {outcome.mode for outcome in outcomes[40:]} == {mode}
