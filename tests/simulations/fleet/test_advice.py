"""Short runs with one thing changed: which changes there are, which window, what the differences are."""

import math
from dataclasses import replace

import pytest

from headwater.device.settings import DeviceSettings
from headwater.simulations.fleet.advice import Tried, advise, busiest_hour, changes, faster, window
from headwater.simulations.fleet.outcome import ClassOutcome, Hour, Outcome
from headwater.simulations.fleet.scenario import BlackOut, DeviceClass, Outage, Round, Scenario, Server, Times
from tests import tiny
from tests.simulations.fleet.fleets import SCENARIO, run, simulated


def day(hours: float = 24, count: int = 100, servers: int = 1) -> Outcome:
    """Few pictures at night, most from 12 to 13."""
    devices = DeviceClass("a", count, "lte", times=Times({1.0: 10.0}))
    scenario = Scenario("day", (devices,), (Server("edge", count=servers),), hours=hours, start_h=0)
    frames = {at: Hour(frames=count * (600 if at == 12 else 60)) for at in range(math.ceil(hours))}
    return Outcome(scenario, "x", [ClassOutcome("a", count, hours=frames)], [])


def test_a_window_is_in_the_busiest_hour_and_as_long_as_its_pictures_take() -> None:
    assert busiest_hour(day()) == 12
    small = window(day(), pictures=30_000)
    assert (small.start_h, small.hours, small.device_count) == (12, 0.5, 100)
    assert window(day(), pictures=10**9).hours == 12
    assert window(day(hours=0.5)).hours == 0.5


def test_fleets_too_large_for_the_shortest_window_lose_devices_and_servers_alike() -> None:
    small = window(day(count=100_000, servers=50), pictures=300_000)
    assert small.hours == 0.05
    assert small.device_count == pytest.approx(100_000 * small.servers[0].count / 50)
    assert small.servers[0].count == 5
    assert window(day(count=100_000, servers=1), pictures=300_000).device_count == 100_000


def test_what_happens_in_the_window_stays_at_its_time() -> None:
    outcome = day()
    scenario = replace(
        outcome.scenario,
        rounds=(Round(at_h=3), Round(at_h=12.25)),
        black_outs=(BlackOut(12.1, 5), BlackOut(1, 5)),
        outages=(Outage("edge", 20, 1),),
    )
    small = window(replace(outcome, scenario=scenario), pictures=30_000)
    assert [each.at_h for each in small.rounds] == [0.25]
    assert [round(each.from_h, 9) for each in small.black_outs] == [0.1]
    assert small.outages == ()


def test_changes_change_one_thing() -> None:
    found = dict(changes(SCENARIO, tiny.bundle()))
    assert found["twice the servers"] == replace(SCENARIO, servers=(replace(SCENARIO.servers[0], count=4),))
    assert found["deadlines half as long again"].devices[0].settings.deadline_ms == 600
    boards = found["boards twice as fast"].devices
    assert boards[0].times is not None
    assert boards[0].times.prepare_ms == pytest.approx(9.391 / 2)
    links = found["links twice as fast"]
    assert links.radio(links.devices[0]).levels[-1].up_bit_s == 4e7
    assert "radio asleep 2 s after its last byte" not in found
    assert not any("point" in what for what in found)  # the tiny bundle has two tasks, and the exit answers one
    energetic = found["objective energy in place of accuracy"].devices
    assert [each.settings.radio for each in energetic] == ["wifi", "lora"]


def test_changes_that_do_not_fit_are_left_out() -> None:
    fixed = DeviceSettings(width=0.5)
    lte = replace(SCENARIO.devices[0], link="lte", settings=fixed, servers=("edge-1",))
    found = dict(changes(replace(SCENARIO, devices=(lte,)), tiny.bundle()))
    assert not {"twice the servers", "deadlines half as long again", "objective energy in place of accuracy"} & set(
        found
    )
    asleep = found["radio asleep 2 s after its last byte"]
    assert asleep.radio(asleep.devices[0]).awake_s == 2.0


def test_a_faster_lora_is_a_spreading_factor_less() -> None:
    radio = SCENARIO.radio(SCENARIO.devices[1])
    assert radio.lora is not None
    slow = replace(radio, lora=replace(radio.lora, spreading_factor=9))
    assert faster(slow).lora == replace(radio.lora, spreading_factor=8)
    assert faster(radio) == radio


def test_clear_gains_come_first_then_the_others_by_energy() -> None:
    def runner(scenario: Scenario) -> Outcome:
        outcome = Outcome.from_json(simulated().to_json())
        outcome.scenario = scenario
        for of in outcome.classes:
            right = of.right + scenario.seed * 1e-3 * of.frames
            if scenario.servers[0].count == 4:
                right += 0.02 * of.frames
            if scenario.servers[0].workers == 4:
                right -= 0.02 * of.frames
            of.right = right
            slow = scenario.devices[0].settings.deadline_ms != 400
            of.joules = {part: joules * (0.9 if slow else 1.0) for part, joules in of.joules.items()}
        return outcome

    tried = advise(simulated(), tiny.bundle(), runner)
    assert tried[0].what == "twice the servers"
    assert tried[0].right == pytest.approx(0.02)
    assert tried[0].right_error == pytest.approx(0, abs=1e-9)
    assert tried[1].what == "deadlines half as long again"
    assert tried[1].joules == pytest.approx(-0.1)
    assert not tried[1].clear
    assert tried[-1].what == "twice the workers of a server"
    assert tried[-1].frames == 3 * simulated().total.frames


def test_the_whole_way_with_a_simulation() -> None:
    small = replace(SCENARIO, hours=0.05, devices=SCENARIO.devices[:1])
    tried = advise(run(small), tiny.bundle(), run, seeds=2)
    assert all(isinstance(each, Tried) and each.seeds == 2 and each.joules is not None for each in tried)
