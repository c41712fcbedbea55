"""Single decisions of the rule, by what it has learnt and what the situation is."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from headwater.device.control.controller import Decision, Observation, Situation
from headwater.device.control.deadline import DeadlineController
from headwater.device.control.policy import Policy
from headwater.device.control.ways import MOST_LOST, Fear
from headwater.simulations.trace import LinkTrace, Trace
from headwater.simulations.twin import Twin
from tests.device.control.twins import DEVICE, KBIT, LINKS, MODES, link, rule, twin


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


def test_without_a_deadline_no_picture_is_skipped_though_nobody_has_answered_yet() -> None:
    waiting = now(frames_unanswered=20, bytes_unanswered=800, oldest_ms=9000)
    for deadline_ms, action in ((400, "skip"), (None, "send")):
        controller = rule(local=False)
        asked = replace(waiting, deadline_ms=deadline_ms)
        chosen = [controller.choose(replace(asked, time_s=30.0 + step / 100)).action for step in range(5)]
        assert chosen[1:] == [action] * 4, "the first explores the link"


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
    overdue = replace(fine, oldest_ms=2000, time_s=32.0)
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
    controller = trained(link(Trace.constant(2000 * KBIT)), local=False)
    decision = controller.refine(controller.choose(now()), now(), None)
    assert decision.mode == 3
    assert decision.most_bytes is not None
    sooner = controller.refine(decision, now(age_ms=100), None)
    assert sooner.most_bytes is not None
    # 250 bytes a ms; 60 of the 400 ms are the way there and back, and times are reckoned 1.3-fold.
    assert 0.75 * 340 * 250 < decision.most_bytes < 340 * 250
    assert 0.75 * 100 * 250 < decision.most_bytes - sooner.most_bytes < 100 * 250


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


def test_hedges_against_a_fall_of_the_rate_the_less_the_longer_none_came() -> None:
    steady = link(Trace.constant(200 * KBIT))
    early, late = trained(steady, local=False), trained(steady, local=False)
    for _ in range(4):
        twin(steady, 400, local=False).run(late, 500)
    assert early.choose(now()).mode == 2, "3 kB would take 1.2 s at a tenth of the rate"
    assert late.choose(now(time_s=1e4)).mode == 3


def test_an_overdue_frame_makes_the_next_one_small() -> None:
    controller = trained(link(Trace.constant(1000 * KBIT)), local=False)
    overdue = now(frames_unanswered=1, bytes_unanswered=3000, oldest_ms=190.0)
    assert controller.choose(now()).mode == 3
    assert controller.choose(overdue).mode <= 1


def test_a_frame_is_lost_on_a_link_that_carries_less_with_those_behind_it() -> None:
    fear = Fear(0.1, 50.0, 1.0, 200.0)
    assert fear.lost(300.0, 250.0) == 0
    assert fear.lost(300.0, 350.0) == 1.5
    assert fear.lost(300.0, 1e6) == MOST_LOST
    assert fear.lost(math.inf, 1e6) == 0, "without a deadline nothing is late"
