"""The compiled core and its plain Python twin: the same bytes, whatever happens to a fleet."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from headwater.device.settings import DeviceSettings
from headwater.server.rollout.canary import Rules
from headwater.simulations.fleet import _core, core, engine
from headwater.simulations.fleet.model import model_of
from headwater.simulations.fleet.radios import Level, LoRa, Radio
from headwater.simulations.fleet.scenario import (
    Arrivals,
    BlackOut,
    DeviceClass,
    Outage,
    Protocol,
    Rollout,
    Round,
    Scenario,
)
from headwater.simulations.fleet.shard import Part, Shard
from tests import tiny
from tests.simulations.fleet.scenes import SERVER, TIMES, scene

if TYPE_CHECKING:
    from headwater.simulations.fleet.core import Implementation

FIXED = {"width": 0.5, "gain": 1}
DEADLINE = {"deadline_ms": 300}
FADING = Radio("line", "lte", (Level(0, 0, 2), Level(20e3, 20e3, 5), Level(300e3, 300e3, 5)), up_delay_ms=30.0)
SLEEPY = replace(FADING, awake_s=0.3, wake_ms=50.0)
BEATS = Protocol(70, 90, heartbeat_s=1.0, heartbeat_bytes=100)
SLOW = replace(SERVER, batch_ms=0.0, frame_ms=150.0, max_batch=2, queue=2, spread=0.3)
TWO = (replace(SERVER, count=2),)
OFTEN = Arrivals("poisson", 0.4)
ROUND = Round(at_h=0.003, down_mb=0.02, up_mb=0.01, train_s=5.0, slowdown=2.0)
BAD = Rollout(at_h=0.001, mb=0.01, failures=20.0, refuse=0.2, rules=Rules(share=0.3, frames=20, wider=2.0))
GOOD = Rollout(at_h=0.001, mb=0.01, accuracy_gain=3.0, report_s=2.0, rules=Rules(share=0.3, frames=20, wider=3.0))

SCENES: dict[str, dict[str, Any]] = {
    "fixed": {"settings": FIXED},
    "the rule": {"settings": DEADLINE, "link": FADING, "arrivals": OFTEN, "times": {"spread": 0.1}},
    "no exit": {"settings": {**DEADLINE, "tasks": ("bright",)}, "link": FADING, "arrivals": OFTEN},
    "an exit that is sure": {"settings": {**DEADLINE, "max_drop": 3.0}, "link": FADING},
    "the whole model": {"settings": {"deadline_ms": 2000, "whole_model": True}, "times": {"whole_ms": 100.0}},
    "no deadline, a window": {"settings": {**FIXED, "window": 3}, "link": FADING, "arrivals": OFTEN},
    "a radio that sleeps": {"settings": DEADLINE, "link": SLEEPY, "protocol": BEATS},
    "lora": {"settings": FIXED, "link": Radio("line", "lora", lora=LoRa(), loss=0.1)},
    "bursts": {"settings": DEADLINE, "arrivals": Arrivals("bursts", 5.0, burst_frames=4, burst_interval_s=0.02)},
    "jitter, night": {"arrivals": Arrivals(interval_s=1.0, jitter=0.5, day_to_h=0.01, night_interval_s=3.0)},
    "a busy device": {"settings": FIXED, "arrivals": Arrivals(interval_s=0.02), "hours": 0.002},
    "some are slow": {"settings": DEADLINE, "devices": {"slow_share": 0.2, "slow_times": 5.0}},
    "a full server": {"settings": {"deadline_ms": 1000}, "servers": (SLOW,), "arrivals": OFTEN},
    "a full server without end": {"settings": FIXED, "servers": (SLOW,), "arrivals": OFTEN},
    "outages": {"settings": DEADLINE, "servers": TWO, "outages": (Outage("edge-1", 0.005, 0.005),)},
    "one server's outage": {"settings": FIXED, "outages": (Outage("edge", 0.005, 0.005),), "arrivals": OFTEN},
    "black-outs": {"settings": DEADLINE, "link": FADING, "black_outs": (BlackOut(0.004, 0.3),)},
    "rounds": {"settings": DEADLINE, "link": FADING, "rounds": (ROUND,), "arrivals": OFTEN},
    "a roll-out that fails": {"settings": DEADLINE, "rollouts": (BAD,), "arrivals": OFTEN},
    "a roll-out": {"settings": FIXED, "rollouts": (GOOD,), "arrivals": OFTEN},
}


def simulated(scenario: Scenario, implementation: Implementation) -> list[Part]:
    models = [model_of(tiny.bundle(), each) for each in scenario.devices]
    return [
        Shard(scenario, models, servers, members).run(implementation=implementation)
        for servers, members in engine.split(scenario)
    ]


@pytest.mark.parametrize("name", SCENES)
def test_both_give_the_same(name: str) -> None:
    given = SCENES[name]
    scenario = scene(6, **{"hours": 0.015, **given})
    plain, fast = (simulated(scenario, implementation) for implementation in ("python", "c"))  # type: ignore[arg-type]
    assert [asdict(part) for part in fast] == [asdict(part) for part in plain]
    assert sum(part.classes[0].frames for part in fast) > 50
    assert repr(fast[0].servers) == repr(plain[0].servers), "whole numbers are whole numbers in both"


def test_classes_share_a_server() -> None:
    one = scene(5, settings=DEADLINE, link=FADING, arrivals=OFTEN, hours=0.01)
    traps = DeviceClass("traps", 3, "lora", times=TIMES, settings=DeviceSettings(tasks=("shape",), **DEADLINE))
    scenario = replace(one, devices=(*one.devices, traps))
    assert simulated(scenario, "c") == simulated(scenario, "python")


def test_the_compiled_one_is_what_is_used() -> None:
    assert core.kit().agenda(1.0).__class__ is _core.Agenda
    assert core.kit("python") is core.PYTHON


def test_it_is_left_out_where_it_was_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "_OF_C", None)
    assert core.kit() is core.PYTHON
    with pytest.raises(ImportError, match="was not built"):
        core.kit("c")


# ------------------------------------------------------------ the agenda alone


def test_events_come_in_the_order_of_their_times_then_of_their_coming() -> None:
    agenda, seen = _core.Agenda(), []
    times = [(7 * n * n) % 50 / 10 for n in range(400)]
    for number, time_s in enumerate(times):
        agenda.at(time_s, lambda what, now_s: seen.append((now_s, what)), number)
    agenda.at(float("inf"), lambda what, now_s: seen.append((now_s, what)), -1)
    agenda.run()
    assert seen == sorted((time_s, number) for number, time_s in enumerate(times))
    assert agenda.events == len(times)
    assert agenda.now_s == max(times)


def test_an_event_that_fails_is_told_of() -> None:
    agenda = _core.Agenda()
    agenda.at(1.0, lambda _what, _now_s: 1 / 0, None)
    with pytest.raises(ZeroDivisionError):
        agenda.run()
    agenda.run()
