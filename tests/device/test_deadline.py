"""The rule on links and devices that a twin plays out: what it keeps, how fast it reacts, what it costs in accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest

from headwater.device.controller import OVERHEAD_BYTES, Decision, Observation, Situation
from headwater.device.deadline import DeadlineController
from headwater.device.policy import PRICES, Policy
from headwater.simulations.trace import LinkTrace, Trace
from headwater.simulations.twin import Device, Outcome, Twin
from tests.device.twins import DEVICE, EXIT, MODES, WHOLE, accuracy, link, missed

KBIT = 1e3
LINKS = {
    "fast": link(Trace.constant(5e6)),
    "slow": link(Trace.constant(60 * KBIT)),
    "tenfold": link(Trace.steps([(20, 1e6), (20, 1e5)])),
    "black-out": link(Trace.steps([(15, 3e5), (5, 0)])),
    "wandering": link(Trace.markov(3, [(0, 0.5), (2e4, 2), (1e5, 3), (1e6, 3)])),
    "wandering, slow": link(Trace.markov(5, [(1e4, 2), (4e4, 3), (2e5, 3)])),
}
SEEDS = (0, 1, 2)


def twin(
    trace: LinkTrace, deadline_ms: float | None = 300.0, *, local: bool = True, seed: int = 0, device: Device = DEVICE
) -> Twin:
    exit_accuracy = EXIT if local else None
    return Twin(MODES, trace, device, deadline_ms=deadline_ms, exit_accuracy=exit_accuracy, seed=seed)


def rule(policy: Policy | None = None, *, local: bool = True) -> DeadlineController:
    return DeadlineController(MODES, policy, exit_accuracy=EXIT if local else None, whole_accuracy=WHOLE)


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
    fixed = [fmean(accuracy(scene.run(_Fixed(mode.index), 300)) for scene in scenes) for mode in MODES]
    oracle = fmean(accuracy(scene.oracle(300)) for scene in scenes)
    assert own > max(fixed) + 0.3, "with the same exit to fall back to"
    assert oracle - own <= 4.0, "of the 10 points and more between exit and server"


class _Fixed:
    def __init__(self, mode: int) -> None:
        self.mode = mode

    def choose(self, situation: Situation) -> Decision:  # noqa: ARG002
        return Decision(self.mode)

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:  # noqa: ARG002
        return decision

    def observe(self, observation: Observation) -> None: ...


@pytest.mark.parametrize("name", ["fast", "slow", "tenfold"])
def test_without_an_exit_the_level_is_kept(name: str) -> None:
    scene = twin(LINKS[name], deadline_ms=400, local=False)
    outcomes, oracle = scene.run(rule(local=False), 600), scene.oracle(600)
    assert missed(outcomes, oracle, 400) <= 0.01


# ------------------------------------------------------------ changes


def test_a_tenfold_drop_is_believed_within_three_frames() -> None:
    scene = twin(link(Trace.steps([(20, 2e6), (1000, 2e5)])), deadline_ms=150, local=False)  # 3 kB take 123 ms now
    outcomes = scene.run(rule(local=False), 200)
    assert {outcome.decision.mode for outcome in outcomes[80:100]} == {3}
    late = [at for at, outcome in enumerate(outcomes) if outcome.answered_ms > 150]
    assert all(100 <= at < 103 for at in late)


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
        smallest = twin(STALLS, local=False, seed=seed).run(_Fixed(0), 300)
        late = [sum(outcome.answered_ms > 300 for outcome in run) for run in (outcomes, smallest)]
        assert late[0] <= late[1] + 10
        unsent += sum(outcome.decision.action == "skip" for outcome in outcomes)
    assert unsent <= 25, "of 900; with pauses between them, as with an exit, it was 45"


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
    assert {decision.mode for decision in taken[60:]} <= {1, 2}, "300 bytes and more: 4 kB are not steady"
    assert sum(decision.reason == "trying a larger frame" for decision in taken) <= 3


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
    controller = DeadlineController(BOTH, Policy(prefer=prefer), tasks=tasks)
    outcomes = twin(LINKS["fast"], local=False).run(controller, 60)
    assert {outcome.mode for outcome in outcomes[40:]} == {mode}


# ------------------------------------------------------------ single decisions


def trained(
    trace: LinkTrace = LINKS["slow"], policy: Policy | None = None, *, deadline_ms: float = 400.0, local: bool = True
) -> DeadlineController:
    controller = rule(policy, local=local)
    twin(trace, deadline_ms, local=local).run(controller, 150)
    return controller


def now(**given: float | bool | None) -> Situation:
    return replace(Situation(deadline_ms=400, time_s=30.0, interval_ms=200), **given)  # type: ignore[arg-type]


def test_begins_with_the_fewest_bytes_at_the_narrowest_width() -> None:
    assert rule(local=False).choose(now()).mode == 0
    assert rule().choose(now(exit_available=True)).mode == 0


def test_without_a_connection_the_device_answers_at_once() -> None:
    controller = trained()
    decision = controller.choose(now(connected=False, exit_available=True))
    assert (decision.action, MODES[decision.mode].width, decision.reason) == ("local", 1.0, "no connection")
    alone = controller.choose(now(connected=False))
    assert (alone.action, alone.reason) == ("send", "no connection"), "it may be back in time: there is no other way"
    chosen = controller.choose(now(exit_available=True))
    assert chosen.action == "send"
    assert controller.refine(chosen, now(connected=False, exit_available=True), 0.5).action == "local"


def test_a_picture_that_is_too_old_is_answered_by_the_quickest_head() -> None:
    controller = trained()
    decision = controller.choose(now(age_ms=500, exit_available=True))
    assert (decision.action, MODES[decision.mode].width) == ("local", 0.25)
    assert decision.reason == "nothing can be in time"
    assert controller.choose(now(age_ms=500, exit_available=True, interval_ms=10)).action == "local"
    assert controller.choose(now(age_ms=500)).action == "skip"


def test_an_old_picture_gets_what_still_arrives() -> None:
    controller = trained(local=False)
    assert controller.choose(now()).mode == 2
    assert controller.choose(now(age_ms=230)).mode < 2
    assert controller.choose(now(bytes_unanswered=1500, frames_unanswered=1)).mode < 2
    assert controller.choose(now(held_ms=230)).mode < 2


def test_a_frame_that_is_overdue_says_that_the_next_will_be_too() -> None:
    controller = trained()
    fine = now(exit_available=True, frames_unanswered=1, bytes_unanswered=900, oldest_ms=100)
    assert controller.choose(fine).action == "send"
    overdue = replace(fine, oldest_ms=2000)
    assert controller.choose(overdue).reason == "exploring the link"
    assert controller.choose(overdue).action == "local"


def test_a_hiccup_of_the_processor_is_no_reason_to_send_nothing() -> None:
    """Without an exit, on a device of which each fifth frame is ten times as slow as it could be."""
    device = replace(DEVICE, busy=lambda time_s: 10.0 if int(time_s * 5) % 5 == 0 else 1.0)
    outcomes = twin(LINKS["fast"], deadline_ms=100, local=False, device=device).run(rule(local=False), 200)
    assert sum(outcome.decision.action == "skip" for outcome in outcomes) == 0
    assert sum(outcome.source == "edge" for outcome in outcomes) > 190


def test_refining_takes_what_is_left_of_the_time() -> None:
    controller = trained(LINKS["fast"])
    chosen = controller.choose(now(exit_available=True))
    assert chosen.mode == 3
    assert controller.refine(chosen, now(exit_available=True, age_ms=50), 0.5).mode == 3
    assert controller.refine(chosen, now(exit_available=True, age_ms=399.9), 0.5).action == "local"
    skipped = Decision(2, action="local")
    assert controller.refine(skipped, now(exit_available=True), 0.5) is skipped


def test_the_longest_frame_that_still_fits() -> None:
    controller = trained(link(Trace.constant(200 * KBIT)), local=False)
    decision = controller.refine(controller.choose(now()), now(), None)
    assert decision.mode == 3
    assert decision.most_bytes is not None
    assert 3000 < decision.most_bytes < 8500  # at 25 bytes a ms and 60 ms there and back that is the most in 400
    sooner = controller.refine(decision, now(age_ms=100), None)
    assert sooner.most_bytes is not None
    assert sooner.most_bytes < decision.most_bytes


def test_a_sure_picture_is_worth_fewer_bytes() -> None:
    controller = trained(LINKS["fast"], Policy("bytes", slack=4))
    situation = now(exit_available=True)
    chosen = controller.choose(situation)
    assert chosen.action == "send"
    sizes = [controller.refine(chosen, situation, confidence) for confidence in (0.01, 0.999)]
    assert sizes[0].action == "send"
    assert sizes[1].action == "local"
    greedy = trained(LINKS["fast"])
    chosen = greedy.choose(situation)
    assert greedy.refine(chosen, situation, 0.999).mode == chosen.mode, "accuracy is all that counts"


def test_heeds_the_servers_wish() -> None:
    controller = trained(LINKS["fast"], local=False)
    assert controller.choose(now()).mode == 3
    assert controller.choose(now(max_bytes=300)).mode == 1
    assert controller.choose(now(max_groups=2)).groups == 2
    assert controller.choose(now()).groups is None


def test_without_a_deadline_takes_what_the_rate_has_room_for() -> None:
    controller = rule(local=False)
    outcomes = Twin(MODES, LINKS["slow"], DEVICE, fps=8, deadline_ms=None).run(controller, 100)
    assert {outcome.mode for outcome in outcomes[50:]} == {1}  # 980 bytes take 131 ms of every 125
    assert controller.choose(Situation(time_s=30.0)).mode == 3


def test_jitter_does_not_hide_a_fast_link() -> None:
    controller, time_s, taken = rule(local=False), 0.0, []
    for number in range(200):
        decision = controller.choose(Situation(deadline_ms=100, time_s=time_s))
        network_ms = 5 + (number * 37 % 100) * 0.3 + MODES[decision.mode].mean_bytes / 10_000
        taken.append((decision.mode, network_ms))
        time_s += 0.2
        controller.observe(
            Observation(
                mode=decision.mode,
                sent_bytes=int(MODES[decision.mode].mean_bytes),
                prepare_ms=0.0,
                head_ms=5.0,
                code_ms=0.1,
                outcome="answered",
                round_trip_ms=network_ms + 2,
                server_ms=2.0,
                time_s=time_s,
            )
        )
    assert [mode for mode, _ in taken[-50:]].count(3) > 45


def test_every_decision_says_why() -> None:
    reasons = Counter(outcome.decision.reason for outcome in twin(LINKS["black-out"]).run(rule(), 200))
    assert "" not in reasons
    assert {"exploring the link", "the local exit does best"} <= set(reasons)
