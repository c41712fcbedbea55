"""Links and clocks by hand: a packet's time on the air, silence after it, traces, day and night."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from headwater.device.settings import DeviceSettings
from headwater.simulations.fleet.arrivals import Clock
from headwater.simulations.fleet.chance import share
from headwater.simulations.fleet.engine import run
from headwater.simulations.fleet.links import Line, LoRaLink, Used, airtime_s
from headwater.simulations.fleet.radios import LoRa, Radio
from headwater.simulations.fleet.scenario import (
    Arrivals,
    BlackOut,
    DeviceClass,
    Outage,
    Protocol,
    Round,
    Scenario,
    Server,
    Times,
    ready,
)
from tests.simulations.fleet.scenes import played, scene

LORA = Radio("line", "lora", lora=LoRa(duty_cycle=0.01), down_delay_ms=1000.0)


# ------------------------------------------------------------ LoRa


@pytest.mark.parametrize(
    ("factor", "size", "seconds"),
    # Semtech's formula by hand: 8 + 4.25 symbols of preamble, then 8 + 5 ceil((8 PL - 4 SF + 44) / (4 (SF - 2 DE))).
    [(7, 51, (12.25 + 8 + 5 * 19) * 1.024e-3), (12, 51, (12.25 + 8 + 5 * 13) * 32.768e-3)],
)
def test_a_packet_s_time_on_the_air(factor: int, size: int, seconds: float) -> None:
    lora = LoRa(spreading_factor=factor, header_bytes=13)
    bits = 8 * (size + 13) - 4 * factor + 44
    assert bits / (4 * (factor - (2 if factor == 12 else 0))) <= {7: 19, 12: 13}[factor] + 0.0
    assert airtime_s(lora, size) == pytest.approx(seconds)


def test_the_duty_cycle_is_never_exceeded() -> None:
    link, line, sent = LoRaLink(LORA, Protocol(), used := Used()), Line(0.0), []
    now_s = 0.0
    for number in range(400):
        before_s = used.send_s
        end_s = link.up(line, now_s, 10 + number % 300)
        sent.append((end_s, used.send_s - before_s))
        now_s += 7.0 * share(1, number)
    for first in range(0, 400, 10):
        for last in range(first + 20, 400, 25):
            window_s = sent[last][0] - sent[first][0]
            on_air_s = sum(air_s for _, air_s in sent[first + 1 : last])
            assert on_air_s <= 0.01 * window_s + 0.02 * max(air_s for _, air_s in sent)


def test_a_fleet_on_lora_keeps_it_and_loses_packets() -> None:
    settings = {"width": 0.5, "gain": 1, "deadline_ms": 60_000}
    lossy = replace(LORA, loss=0.2)
    outcome = played(scene(5, settings=settings, link=lossy, arrivals=Arrivals(interval_s=15.0), hours=1)).total
    assert outcome.busy_s["send"] <= 0.01 * outcome.device_s + 5 * 0.5
    assert outcome.lost / outcome.sent == pytest.approx(0.2, abs=0.05)
    assert outcome.stepped_in >= outcome.lost
    assert outcome.missed == 0


# ------------------------------------------------------------ day and night


def moments(clock: Clock, until_s: float) -> list[float]:
    found, at_s, number = [], clock.first(share(5, 0)), 0
    while at_s < until_s:
        found.append(at_s)
        number += 1
        at_s = clock.after(at_s, share(5, number))
    return found


@pytest.mark.parametrize("kind", ["periodic", "poisson"])
def test_pictures_are_taken_by_day(kind: str) -> None:
    arrivals = Arrivals(kind, 60.0, day_from_h=6, day_to_h=20)  # type: ignore[arg-type]
    taken = moments(Clock(arrivals, start_h=3.0), 2 * 86_400.0)
    of_day = [(at_s / 3600 + 3.0) % 24 for at_s in taken]
    assert min(of_day) >= 6.0
    assert max(of_day) < 20.0
    assert len(taken) == pytest.approx(2 * 14 * 60, rel=0.05)


def test_the_night_may_have_a_pace_of_its_own_and_go_over_midnight() -> None:
    arrivals = Arrivals("poisson", 10.0, day_from_h=22, day_to_h=4, night_interval_s=100.0)
    taken = moments(Clock(arrivals, start_h=12.0), 86_400.0)
    by_day = [at_s for at_s in taken if (at_s / 3600 + 12) % 24 >= 22 or (at_s / 3600 + 12) % 24 < 4]
    assert len(by_day) == pytest.approx(6 * 360, rel=0.08)
    assert len(taken) - len(by_day) == pytest.approx(18 * 36, rel=0.12)


def test_a_night_without_end_has_no_pictures() -> None:
    assert moments(Clock(Arrivals(day_from_h=5, day_to_h=5), 0.0), 1e6) == []


def test_bursts_are_series() -> None:
    arrivals = Arrivals("bursts", 100.0, burst_frames=5, burst_interval_s=0.5)
    outcome = played(scene(10, settings={"width": 0.5, "gain": 1}, arrivals=arrivals, hours=1)).total
    assert outcome.frames == pytest.approx(10 * 36 * 5, rel=0.15)


def test_a_class_s_hours_show_the_day() -> None:
    arrivals = Arrivals(interval_s=60.0, day_from_h=1, day_to_h=2)
    outcome = played(scene(3, settings={"width": 0.5, "gain": 1}, arrivals=arrivals, hours=3)).total
    assert {number: hour.frames for number, hour in outcome.hours.items()} == {1: 180}


# ------------------------------------------------------------ the same on any Python


def eventful() -> Scenario:
    """A little of everything, with fixed modes: a better rule changes no figure of it."""
    times = Times({0.25: 12.0, 0.5: 20.0, 0.75: 31.0, 1.0: 40.0})
    fixed = DeviceSettings(width=0.5, gain=2, deadline_ms=3000, max_drop=1.0)
    classes = (
        DeviceClass("walk", 6, "lte-m", times=times, settings=fixed, arrivals=Arrivals("poisson", 2.0), slow_share=0.1),
        DeviceClass("burst", 4, "wifi", times=times, settings=fixed, arrivals=Arrivals("bursts", 20.0)),
        DeviceClass("far", 4, "lora", times=times, settings=fixed, arrivals=Arrivals(interval_s=30.0, jitter=0.5)),
    )
    return Scenario(
        *("eventful", classes, (Server("edge", count=2),)),
        hours=0.1,
        outages=(Outage("edge-1", 0.03, 0.02),),
        black_outs=(BlackOut(0.07, 0.3),),
        rounds=(Round(0.01, down_mb=0.01, up_mb=0.01, train_s=20.0),),
    )


GOLDEN = "dac836b461add7b6"


def test_a_small_report_has_always_the_same_bytes() -> None:
    """On any Python: it changes with a rule of the simulation or with the bundle that ships, and with nothing else."""
    assert hashlib.sha256(run(eventful()).to_json()).hexdigest()[:16] == GOLDEN


def test_there_are_scenarios_to_begin_with() -> None:
    assert ready() == ["city-5g", "factory-wifi", "field-sensors-lora", "solar-farm-lte-m"]
    for name in ready():
        small = replace(Scenario.load(name).scaled(6), hours=0.02, start_h=10.0)
        assert run(small).total.devices == 6
