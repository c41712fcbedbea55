"""A small fleet, simulated once, and a runner that needs no simulation; for the tests of what is made of outcomes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from headwater.device.settings import DeviceSettings
from headwater.simulations.fleet import engine
from headwater.simulations.fleet.outcome import ClassOutcome, Histogram, Hour, Outcome, ServerHour, ServerOutcome
from headwater.simulations.fleet.scenario import Arrivals, DeviceClass, Scenario, Server
from tests import tiny

SHAPE = DeviceSettings(tasks=("shape",), deadline_ms=400)
SCENARIO = Scenario(
    "yard",
    (
        DeviceClass("gates <a>", 4, "wifi", "pi-4", settings=SHAPE, arrivals=Arrivals(interval_s=10)),
        DeviceClass("traps", 3, "lora", "pi-zero-2", arrivals=Arrivals(interval_s=120), settings=SHAPE),
    ),
    (Server("edge", count=2),),
    hours=0.25,
)


@cache
def simulated() -> Outcome:
    """The small fleet; nobody may change it."""
    return run(SCENARIO)


def run(scenario: Scenario) -> Outcome:
    """Simulate with the tiny bundle, in this process."""
    return engine.run(scenario, bundle=tiny.bundle())


def told(scenario: Scenario) -> Outcome:
    """An outcome by rule, without a simulation: faster boards and links are right more often, servers get busy."""
    devices = scenario.devices[0]
    board = {"pi-zero-2": 0.85, "pi-4": 0.9, "pi-5": 0.92}[devices.profile]
    link = {"wifi": 0.02, "lora": 0.0}[devices.link]
    policy = 0.0 if devices.settings.objective == "accuracy" else -0.01
    frames = 1000 * scenario.device_count
    workers = sum(server.count * server.workers for server in scenario.servers)
    refused = frames // 10 if workers * 100 < scenario.device_count else 0
    accuracy = board + link + policy - 0.05 * bool(refused) + 1e-4 * (scenario.seed % 3)
    found = ClassOutcome(
        devices.name,
        scenario.device_count,
        frames=frames,
        server=frames - refused,
        missed=refused,
        right=accuracy * frames,
        up_bytes=100.0 * frames,
        device_s=scenario.hours * 3600 * scenario.device_count,
        joules={"idle": 2.0 * scenario.hours * 3600 * scenario.device_count},
        latency=Histogram({200: frames}),
        hours={at: Hour(frames=frames * (1 + at % 3)) for at in range(int(scenario.hours) or 1)},
    )
    servers = []
    for name in scenario.server_names:
        hour = ServerHour(frames, frames, scenario.device_count * scenario.hours * 36, refused=refused)
        servers.append(ServerOutcome(name, scenario.servers[0].workers, hours={0: hour}))
    return Outcome(scenario, "tiny 0", [found], servers)


def one(count: int = 1000, **settings: object) -> Scenario:
    """A scenario of one class for :func:`told`."""
    devices = DeviceClass("cameras", count, "wifi", "pi-4", settings=replace(SHAPE, **settings))
    return Scenario("one", (devices,), (Server("edge"),), hours=3)
