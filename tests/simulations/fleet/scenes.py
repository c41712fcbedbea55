"""Small fleets for tests: few devices, figures that can be reckoned by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headwater.device.settings import DeviceSettings
from headwater.simulations.fleet.engine import run
from headwater.simulations.fleet.outcome import Outcome
from headwater.simulations.fleet.radios import Level, Radio
from headwater.simulations.fleet.scenario import Arrivals, DeviceClass, Protocol, Scenario, Server, Times
from tests import tiny

TIMES = Times({0.25: 10.0, 0.5: 20.0, 0.75: 30.0, 1.0: 40.0}, prepare_ms=2.0, exit_ms=1.0, code_ms=1.0, spread=0.0)
SERVER = Server("edge", workers=1, batch_ms=4.0, frame_ms=1.0, spread=0.0, handling_ms=0.0)
LINK = Radio("line", "wifi", (Level(80e3, 80e3),), up_delay_ms=10.0, down_delay_ms=20.0)
QUIET = Protocol(up_bytes=70, down_bytes=90, heartbeat_s=None)


def scene(
    count: int = 4,
    *,
    settings: dict[str, Any] | None = None,
    arrivals: Arrivals | None = None,
    link: Radio = LINK,
    servers: tuple[Server, ...] = (SERVER,),
    hours: float = 0.05,
    **more: Any,  # noqa: ANN401 - of the scenario, and more of its devices
) -> Scenario:
    """Devices of one class, one link, a server."""
    devices = DeviceClass(
        "cameras",
        count,
        link.name,
        times=replace(TIMES, **more.pop("times", {})),
        settings=DeviceSettings(**{"tasks": ("shape",), **(settings or {})}),
        arrivals=arrivals or Arrivals(interval_s=2.0),
        **more.pop("devices", {}),
    )
    more.setdefault("protocol", QUIET)
    return Scenario("small", (devices,), servers, (link,), hours=hours, **more)


def played(scenario: Scenario, jobs: int = 1) -> Outcome:
    """What the tiny bundle's devices make of it."""
    outcome = run(scenario, bundle=tiny.bundle(), jobs=jobs)
    for each in outcome.classes:
        ended = each.server + each.exit + each.whole + each.unanswered + each.skipped + each.dropped
        assert each.frames == ended, "every picture becomes one thing"
        assert each.latency.total == each.server + each.exit + each.whole
        assert sum(hour.frames for hour in each.hours.values()) == each.frames
        assert sum(each.modes.values()) == each.sent
    return outcome
