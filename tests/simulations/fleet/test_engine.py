"""A simulated fleet adds up: by hand where that can be done, and the same whatever simulates it."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import pytest

from headwater.device.control.controller import FixedController
from headwater.device.control.deadline import DeadlineController
from headwater.simulations.fleet import engine
from headwater.simulations.fleet.model import model_of
from headwater.simulations.fleet.radios import Level, Radio
from headwater.simulations.fleet.scenario import Arrivals, BlackOut, Outage, Protocol, Server
from tests import tiny
from tests.simulations.fleet.scenes import LINK, QUIET, SERVER, played, scene

FIXED = {"width": 0.5, "gain": 1}
FADING = Radio("line", "lte", (Level(0, 0, 2), Level(20e3, 20e3, 5), Level(300e3, 300e3, 5)), up_delay_ms=30.0)
BUSY = {
    "settings": {"deadline_ms": 300},
    "link": FADING,
    "servers": (replace(SERVER, count=3),),
    "arrivals": Arrivals("poisson", 0.5),
    "times": {"spread": 0.1},
    "hours": 0.02,
}


# ------------------------------------------------------------ by hand


def test_a_lone_frames_time_is_the_sum_of_its_stages() -> None:
    (cameras,) = played(scene(1, settings=FIXED)).classes
    assert cameras.server == cameras.frames == cameras.sent == 90
    per_frame = {name: 1e3 * total / cameras.server for name, total in cameras.stage_s.items()}
    wire_ms = (cameras.frame_bytes / cameras.sent + QUIET.up_bytes) / 10  # 80 kbit/s are 10 bytes a ms
    wanted = {"prepare": 2.0, "head": 20.0, "exit": 0.0, "code": 1.0, "run": 5.0, "up": wire_ms + 10, "down": 9 + 20}
    for name, ms in wanted.items():
        assert per_frame[name] == pytest.approx(ms), name
    assert cameras.up_bytes == cameras.frame_bytes + 90 * QUIET.up_bytes
    assert cameras.down_bytes == 90 * QUIET.down_bytes
    assert cameras.busy_s["send"] == pytest.approx(cameras.up_bytes / 10e3)
    assert cameras.latency.quantile(0.5) == pytest.approx(sum(wanted.values()), rel=0.03)


def test_sizes_and_accuracy_are_the_manifest_s() -> None:
    scenario = scene(40, settings=FIXED, content_s=0.0)
    (cameras,) = played(scenario).classes
    mode = tiny.bundle().mode(0.5, 1)
    assert cameras.modes == {mode.index: cameras.sent}
    assert cameras.frame_bytes / cameras.sent == pytest.approx(mode.mean_bytes, rel=0.02)
    assert cameras.accuracy == pytest.approx(mode.accuracy["shape"])


def test_a_queue_is_as_long_as_theory_has_it() -> None:
    """M/D/1: mean wait = load / (2 (1 - load)) times the service time (Pollaczek and Khinchine)."""
    cable = Radio("line", "cable", (Level(1e9, 1e9),))
    server = replace(SERVER, batch_ms=0.0, frame_ms=10.0, max_batch=1, queue=100_000)
    scenario = scene(
        100, settings=FIXED, link=cable, servers=(server,), arrivals=Arrivals("poisson", 100 * 0.010 / 0.7), hours=0.04
    )
    outcome = played(scenario)
    total = outcome.servers[0].total
    assert total.busy_s / 144 == pytest.approx(0.7, rel=0.03)
    assert total.wait_s / total.frames * 1e3 == pytest.approx(10 * 0.7 / (2 * 0.3), rel=0.15)


def test_frames_of_one_moment_share_a_batch() -> None:
    cable = Radio("line", "cable", (Level(1e9, 1e9),))
    server = replace(SERVER, batch_ms=1900.0)
    (station,) = played(scene(50, settings=FIXED, link=cable, servers=(server,), hours=0.2)).servers
    assert station.total.frames / station.total.batches == pytest.approx(25, rel=0.3)


# ------------------------------------------------------------ always the same


def test_neither_processes_nor_repetition_change_a_byte() -> None:
    scenario = scene(12, **BUSY)
    first = played(scenario)
    assert first.total.frames > 1000
    assert len(engine.split(scenario)) == 3
    assert played(scenario).to_json() == first.to_json()
    assert played(scenario, jobs=2).to_json() == first.to_json()
    assert played(replace(scenario, seed=1)).to_json() != first.to_json()


def test_a_device_has_its_luck_whatever_the_others_do() -> None:
    one, many = (played(scene(count, settings=FIXED, hours=0.02)) for count in (1, 5))
    (size,) = {each.total.frame_bytes for each in (one, played(scene(1, settings=FIXED, hours=0.02)))}
    assert many.total.frames == 5 * one.total.frames
    assert size < many.total.frame_bytes


# ------------------------------------------------------------ the product's rules


def test_the_controller_is_the_product_s() -> None:
    devices = scene(settings={"deadline_ms": 300}).devices[0]
    controller = model_of(tiny.bundle(), devices).make()
    assert type(controller) is DeadlineController
    assert type(model_of(tiny.bundle(), scene(settings=FIXED).devices[0]).make()) is FixedController


def test_the_exit_answers_the_share_that_its_calibration_says() -> None:
    bundle, settings = tiny.bundle(), {**FIXED, "max_drop": 3.0}
    (cameras,) = played(scene(100, settings=settings, content_s=0.0, hours=0.03)).classes
    at = bundle.mode(0.5, 1).index
    wanted = bundle.exits.share_within(at, 3.0, "softmax")
    assert 0.2 < wanted < 0.9
    assert cameras.sure / cameras.frames == pytest.approx(wanted, abs=0.025)
    assert cameras.sent == cameras.frames - cameras.sure
    lost = bundle.mode(0.5, 1).accuracy["shape"] - cameras.accuracy
    assert 100 * lost <= 3.0 + 0.2


def test_a_deadline_is_kept_by_the_exit() -> None:
    outcome = played(scene(12, **BUSY)).total
    assert outcome.missed == outcome.dropped < 10
    assert outcome.exit > 0.02 * outcome.frames
    assert outcome.latency.quantile(1.0) <= 300 * 1.03


def test_without_an_exit_late_is_missed() -> None:
    outcome = played(scene(8, **{**BUSY, "settings": {"deadline_ms": 300, "tasks": ("bright",)}})).total
    assert outcome.exit == 0
    assert outcome.missed == outcome.unanswered + outcome.skipped + outcome.dropped > 0
    assert outcome.right <= outcome.server


def test_a_busy_device_keeps_its_newest_picture() -> None:
    outcome = played(scene(2, settings=FIXED, arrivals=Arrivals(interval_s=0.01), hours=0.002)).total
    assert outcome.dropped > 0.4 * outcome.frames
    assert outcome.busy_s["head"] == pytest.approx(2 * 7.2 * 20 / 23, rel=0.05)


def test_a_full_server_refuses_and_devices_come_back() -> None:
    slow = replace(SERVER, batch_ms=0.0, frame_ms=150.0, max_batch=1, queue=2)
    outcome = played(scene(20, settings={**FIXED, "deadline_ms": 1000, "tasks": ("bright",)}, servers=(slow,)))
    assert outcome.total.refused > 0
    assert outcome.servers[0].total.refused == outcome.total.refused
    assert outcome.total.server > 0.3 * outcome.total.frames


# ------------------------------------------------------------ what goes wrong


def test_devices_of_a_server_that_is_down_go_to_another() -> None:
    servers = (replace(SERVER, count=2),)
    outages = (Outage("edge-1", from_h=0.02, hours=0.01),)
    scenario = scene(30, settings=FIXED, servers=servers, outages=outages, hours=0.05)
    assert len(engine.split(scenario)) == 1
    outcome = played(scenario)
    assert outcome.total.server == outcome.total.frames, "without a deadline every frame is written again until it is"
    calm = played(replace(scenario, outages=()))
    for before, after, more in zip(calm.servers, outcome.servers, (False, True), strict=True):
        assert (after.total.frames > before.total.frames) is more


def test_a_server_alone_comes_back() -> None:
    outages = (Outage("edge", from_h=0.01, hours=0.01),)
    outcome = played(scene(4, settings={"deadline_ms": 500}, outages=outages)).total
    assert outcome.missed == 0
    assert 0.15 < outcome.exit / outcome.frames < 0.35


def test_a_black_out_stops_frames_and_lets_them_through_after() -> None:
    outs = (BlackOut(from_h=0.02, minutes=0.5),)
    settings = {**FIXED, "window": 64}
    outcome = played(scene(4, settings=settings, black_outs=outs, arrivals=Arrivals(interval_s=1.0))).total
    assert outcome.server == outcome.frames
    longest = outcome.latency.quantile(1.0)
    assert longest is not None
    assert 28_000 < longest < 33_000


def test_heartbeats_fill_pauses_only() -> None:
    beats = Protocol(70, 90, heartbeat_s=15.0, heartbeat_bytes=100)
    rare = played(scene(1, settings=FIXED, arrivals=Arrivals(interval_s=60.0), hours=1, protocol=beats)).total
    often = played(scene(1, settings=FIXED, arrivals=Arrivals(interval_s=10.0), hours=1, protocol=beats)).total
    assert rare.up_bytes - rare.frame_bytes - 70 * rare.sent == pytest.approx(60 * 3 * 100, abs=600)
    assert often.up_bytes == often.frame_bytes + 70 * often.sent + 0.0


def test_a_radio_that_sleeps_wakes_first() -> None:
    sleepy = replace(LINK, awake_s=5.0, wake_ms=300.0)
    outcome = played(scene(1, settings=FIXED, link=sleepy, arrivals=Arrivals(interval_s=20.0), hours=1)).total
    assert outcome.wakes == pytest.approx(180, abs=1)
    assert outcome.busy_s["tail"] == pytest.approx(180 * 5, rel=0.03)
    awake = played(scene(1, settings=FIXED, arrivals=Arrivals(interval_s=20.0), hours=1)).total
    slow, quick = outcome.latency.quantile(0.5), awake.latency.quantile(0.5)
    assert slow is not None
    assert quick is not None
    assert slow - quick == pytest.approx(300, rel=0.05)


# ------------------------------------------------------------ size


def test_a_device_takes_less_than_40_kb() -> None:
    scenario = scene(16, settings={"deadline_ms": 300}, link=FADING, arrivals=Arrivals(interval_s=1.0), hours=0.03)
    models = [model_of(tiny.bundle(), scenario.devices[0])]
    peaks = []
    tracemalloc.start()
    try:
        for count in (4, 4, 16):  # the first makes what is made once
            gc.collect()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            assert engine.Shard(scenario, models, ("edge",), [range(count)]).run().classes[0].frames > 100 * count
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / 12 < 40e3


def test_servers_are_shards_and_devices_are_spread_over_them() -> None:
    scenario = scene(400, servers=(Server("edge", count=4),))
    shards = engine.split(scenario)
    assert [servers for servers, _ in shards] == [("edge-1",), ("edge-2",), ("edge-3",), ("edge-4",)]
    counts = [len(members[0]) for _, members in shards]
    assert sum(counts) == 400
    assert min(counts) > 70
