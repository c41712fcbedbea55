from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from headwater.compression.errors import DataError
from headwater.device.record import FrameRecord, ServerTimes
from headwater.device.settings import DeviceSettings
from headwater.simulations.fleet.calibration import STAGES
from headwater.simulations.fleet.measuring import agreeing, batch_ms, kinds, runs, stages, sweep, warm_up
from headwater.simulations.fleet.stage import DeviceRun, Played
from headwater.simulations.fleet.traffic import Traffic
from headwater.simulations.trace import LinkTrace

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle

LINK = LinkTrace.constant("test", 8e6, delay_s=0.01)
SENT = FrameRecord(
    sequence=1, name="0", taken="", source="edge", status="ok", detail="", mode=0, width=0.25, gain=0, groups=3,
    bytes=130, attempts=1, latency_ms=40.0, prepare_ms=1.0, head_ms=4.0, code_ms=0.5, wait_ms=0.5, round_trip_ms=30.0,
    exit_ms=0.5, server=ServerTimes(queue_us=100, decode_us=500, run_us=2500, batch=1),
)  # fmt: skip
ASKED = DeviceSettings(tasks=("shape",), deadline_ms=1000)


def played(*records: FrameRecord, devices: int = 1) -> Played:
    run = DeviceRun(records, 0, 0, 383, 208, 51, 52)
    return Played(Traffic("test", LINK, devices, fps=4.0), (run,), ((0,) * len(records),))


def test_the_stages_of_a_frame_add_up_to_its_answer_time() -> None:
    found = dict(zip(STAGES, stages(SENT, LINK), strict=True))
    assert found["own_ms"] == 4.0
    assert found["serve_ms"] == 3.0
    link_ms = 20 + 0.2 + 0.09  # delays, 200 bytes up and 90 down at a byte a microsecond
    assert found["hops_ms"] == pytest.approx(30 - 3 - link_ms)
    assert sum(found.values()) + link_ms == pytest.approx(SENT.latency_ms)


def test_a_frame_that_was_answered_here_has_no_hops() -> None:
    local = replace(SENT, source="local", action="local", latency_ms=7.0, code_ms=0.0, round_trip_ms=0.0)
    found = dict(zip(STAGES, stages(replace(local, server=ServerTimes()), LINK), strict=True))
    assert (found["own_ms"], found["hops_ms"], found["serve_ms"]) == (1.5, 0.0, 0.0)


def test_frames_are_kept_apart_by_width_and_action_and_know_their_load() -> None:
    wide = replace(SENT, width=1.0)
    (narrow, other) = kinds([played(*[SENT] * 4, *[wide] * 3, devices=2)])
    assert (narrow.width, narrow.action, len(narrow.own_ms), narrow.frames_per_s) == (0.25, "send", 4, 8.0)
    assert (other.width, len(other.own_ms)) == (1.0, 3)


def test_frames_that_shared_a_batch_or_were_given_up_say_nothing_of_one_alone() -> None:
    shared = replace(SENT, server=replace(SENT.server, batch=2))
    given_up = replace(SENT, source="local", detail="no answer before the deadline", server=ServerTimes())
    (only,) = kinds([played(*[SENT] * 3, shared, given_up, replace(SENT, source="none", status="expired"))])
    assert len(only.own_ms) == 3


def test_the_first_frame_of_a_width_is_left_out() -> None:
    swept = [replace(SENT, name=str(number), width=0.25 if number < 8 else 0.5) for number in range(16)]
    run = played(*swept)
    found = kinds([replace(run, traffic=replace(run.traffic, sweep=((0, "send"),)))])
    assert [len(each.own_ms) for each in found] == [7, 7]


def test_what_a_head_takes_more_after_another_is_told_by_the_first_frame() -> None:
    swept = [replace(SENT, name=str(number), head_ms=6.5 if number % 8 == 0 else 4.0) for number in range(16)]
    run = played(*swept)
    (found,) = kinds([replace(run, traffic=replace(run.traffic, sweep=((0, "send"),)))])
    assert found.cold_ms == 2.5
    assert set(found.head_ms) == {4.0}
    (unswept,) = kinds([run])
    assert unswept.cold_ms == 0.0


def test_too_few_frames_are_an_error() -> None:
    with pytest.raises(DataError, match=r"too few frames were measured of send at width 0\.25; give more seconds"):
        kinds([played(SENT, SENT)])


def test_the_sweep_takes_every_width_in_blocks_and_every_gain(tiny_bundle: Bundle) -> None:
    turns = sweep(tiny_bundle, local=True)
    modes = tiny_bundle.manifest.modes
    assert {modes[mode].index for mode, action in turns if action == "send"} == {mode.index for mode in modes}
    widths = [modes[mode].width for mode, _ in turns]
    assert widths == sorted(widths)
    assert {modes[mode].width for mode, action in turns if action == "local"} == set(tiny_bundle.manifest.widths)
    assert all(action == "send" for _, action in sweep(tiny_bundle, local=False))


def test_a_bundle_whose_exit_leaves_a_task_open_is_measured_without_it(tiny_bundle: Bundle) -> None:
    both = DeviceSettings(tasks=("shape", "bright"), deadline_ms=1000)
    assert [bool(run.sweep) for run in runs(tiny_bundle, ASKED, 2, 5.0, 10.0)] == [True, True, False]
    (alone,) = runs(tiny_bundle, both, 1, 5.0, 10.0)
    assert {action for _, action in alone.sweep} == {"send"}


def test_a_load_at_which_too_few_were_measured_is_left_to_the_others() -> None:
    (several,) = kinds([played(SENT, SENT), played(*[SENT] * 3, devices=2)])
    assert several.frames_per_s == 8.0


def test_every_width_is_measured_as_often(tiny_bundle: Bundle) -> None:
    alone, together, _ = runs(tiny_bundle, ASKED, 3, 5.0, 10.0)
    assert alone.frames == together.frames == 2 * len(alone.sweep)


def test_the_same_run_twice_gives_frames_of_both() -> None:
    (both,) = kinds([played(*[SENT] * 3), played(*[SENT] * 4)])
    assert len(both.own_ms) == 7


def test_the_odd_one_of_three_runs_of_the_same_is_left_out() -> None:
    usual, quick, disturbed = (
        played(*[SENT] * 18, *[replace(SENT, latency_ms=SENT.latency_ms + more_ms)] * 2) for more_ms in (1.0, 0.0, 25.0)
    )
    other = played(SENT, devices=2)
    other = replace(other, traffic=replace(other.traffic, name="other"))
    assert agreeing([usual, disturbed, other, quick]) == [usual, other, quick]
    assert agreeing([usual, disturbed]) == [usual, disturbed]


def test_before_anything_is_measured_every_process_has_had_frames() -> None:
    traffic = warm_up(6)
    assert (traffic.devices, traffic.sweep, traffic.deadline_ms) == (6, (), None)
    assert traffic.frames > 1


def test_every_batch_takes_time(tiny_bundle: Bundle) -> None:
    found = batch_ms(tiny_bundle)
    assert sorted(found) == [1, 2, 4, 8, 16, 32]
    assert min(found.values()) > 0
