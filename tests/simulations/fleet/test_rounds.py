"""Rounds and roll-outs load the same links, yield to frames, and go by the product's rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headwater.compression.errors import SettingsError
from headwater.server.rollout.canary import Rules
from headwater.simulations.fleet.links import CHUNK_S
from headwater.simulations.fleet.outcome import Outcome
from headwater.simulations.fleet.radios import LoRa, Radio
from headwater.simulations.fleet.scenario import Arrivals, Rollout, Round
from tests.simulations.fleet.scenes import played, scene

FIXED = {"width": 0.5, "gain": 1}
ROUND = Round(at_h=0.01, down_mb=0.1, up_mb=0.05, train_s=20.0, slowdown=2.0)
RULES = Rules(share=0.25, frames=100, wider=2.0)


def test_a_round_is_down_training_and_up() -> None:
    outcome = played(scene(4, settings=FIXED, rounds=(ROUND,), hours=0.05, arrivals=Arrivals(interval_s=1000.0)))
    (round_,) = outcome.rounds
    assert (round_.asked, round_.finished) == (4, 4)
    assert round_.median_s == pytest.approx(10 + 20 + 5, rel=0.02), "80 kbit/s are 10 kB a second"
    assert outcome.total.bulk_up_bytes == 4 * 50e3
    assert outcome.total.bulk_down_bytes == 4 * 100e3
    assert outcome.total.busy_s["train"] == pytest.approx(80)


def test_frames_wait_for_a_chunk_at_most() -> None:
    calm = played(scene(4, settings=FIXED, hours=0.02)).total
    busy = played(scene(4, settings=FIXED, hours=0.02, rounds=(replace(ROUND, at_h=0.0, train_s=0.0),)))
    before, after = calm.server_latency.quantile(1.0), busy.total.server_latency.quantile(1.0)
    assert before is not None
    assert after is not None
    assert before + 50 < after < before + 2 * CHUNK_S * 1e3 + 50, "one chunk each way"
    assert busy.total.frames == calm.frames == busy.total.server
    assert busy.rounds[0].first_s > 15.0, "frames and answers take their share of the link"


def test_a_device_that_trains_is_slower() -> None:
    round_ = replace(ROUND, at_h=0.0, down_mb=1e-6, up_mb=1e-6, train_s=36.0)
    outcome = played(scene(2, settings=FIXED, hours=0.02, rounds=(round_,))).total
    assert outcome.busy_s["head"] == pytest.approx(36 * 2 * 0.020 * 1.5, rel=0.03), "half of the time twice as long"


def test_a_round_comes_again_and_takes_a_share() -> None:
    often = replace(ROUND, at_h=0.0, every_h=0.02, share=0.5, down_mb=0.001, up_mb=0.001, train_s=1.0)
    outcome = played(scene(10, settings=FIXED, hours=0.05, rounds=(often,)))
    assert [round(each.at_h, 3) for each in outcome.rounds] == [0.0, 0.02, 0.04]
    assert {each.asked for each in outcome.rounds} == {each.finished for each in outcome.rounds} == {5}


def test_no_round_goes_over_lora() -> None:
    lora = Radio("line", "lora", lora=LoRa())
    assert played(scene(2, settings=FIXED, link=lora, rounds=(ROUND,))).rounds == []


# ------------------------------------------------------------ roll-outs


def rolled_out(**rollout: float) -> Outcome:
    release = Rollout(at_h=0.01, mb=0.02, rules=RULES, report_s=5.0, **rollout)  # type: ignore[arg-type]
    return played(scene(12, settings={"deadline_ms": 1000}, rollouts=(release,), hours=0.15))


def test_a_good_bundle_reaches_all_in_stages() -> None:
    outcome = rolled_out(accuracy_gain=2.0)
    (release,) = outcome.rollouts
    assert (release.devices, release.reached, release.ended) == (12, 12, "all")
    assert [what for _, what, _ in release.steps] == ["widen", "widen"]
    assert "of 100" not in release.steps[0][2]
    assert outcome.total.bulk_down_bytes == 12 * 20e3


def test_a_worse_bundle_is_gone_back_from_at_the_canaries() -> None:
    (release,) = rolled_out(agreement_fall=40.0).rollouts
    assert (release.reached, release.ended) == (0, "back")
    assert release.steps[-1][1] == "back"
    assert "agreement" in release.steps[-1][2]


def test_failures_are_answered_by_the_exit_and_end_it() -> None:
    outcome = rolled_out(failures=30.0)
    assert outcome.rollouts[0].ended == "back"
    assert "failures" in outcome.rollouts[0].steps[-1][2]
    assert outcome.total.missed == 0


def test_devices_that_refuse_end_it() -> None:
    (release,) = rolled_out(refuse=1.0).rollouts
    assert release.ended == "back"
    assert "will not have it" in release.steps[-1][2]


def test_two_roll_outs_are_refused() -> None:
    with pytest.raises(SettingsError, match="one roll-out"):
        scene(rollouts=(Rollout(0.0), Rollout(1.0)))
