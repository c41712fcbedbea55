"""How fast a fleet is simulated, how much memory it takes, and whether either grows with the fleet.

    python -m benchmarks.simulation                    # minutes of the fleets' hour, reckoned up: 90 seconds
    python -m benchmarks.simulation --full             # the whole hour: five minutes
    python -m benchmarks.simulation --quick

Each device takes a picture every 10 s and has a controller of its own, the product's; links are LTE-M's, eight servers
share the fleet, two processes do it. Checked first: every picture has become one thing, the outcome does not depend on
the number of processes, and the compiled core, its Python twin, and that twin on simpy's event loop give the very same.

An hour is reckoned up from two runs, of three pictures for each device and of some more: the first is what making a
fleet and its first pictures take, of which controllers that know nothing yet make twice as much work as of others, and
the difference of the two what a picture takes. The hour is both. As other work on the machine takes its share by
moments, fleets are measured by turns, three times, and of each that is said whose picture took the median of times.

The peer is simpy: its event loop under the same simulation, and both loops with events that do nothing, as many
processes as there are devices, each waiting for its next picture.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import claims
from headwater.compression.bundle import Bundle
from headwater.device.control.deadline import DeadlineController
from headwater.device.settings import DeviceSettings
from headwater.simulations.fleet import engine
from headwater.simulations.fleet.agenda import Agenda
from headwater.simulations.fleet.core import kit
from headwater.simulations.fleet.model import model_of
from headwater.simulations.fleet.scenario import Arrivals, DeviceClass, Scenario, Server
from headwater.simulations.fleet.shard import Shard
from headwater.simulations.shipped import shipped_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from headwater.simulations.fleet.outcome import Outcome

INTERVAL_S = 10.0
JOBS = 2
HOUR_S, TEN_MINUTES_S, MEMORY_MB = 60.0, 600.0, 4096.0
HOURLY_FRAMES = 3600 / INTERVAL_S
QUICK = [(20, 0.03), (40, 0.03), (80, 0.03)]
USUAL = [(1_000, 0.5), (10_000, 0.05), (100_000, 0.05)]
FULL = [(1_000, 1.0), (10_000, 1.0), (100_000, 1.0)]
"""Devices and hours."""
TURNS = 3
START_H = 0.0085
"""Three pictures for each device."""


def scenario(devices: int, hours: float, servers: int = 8) -> Scenario:
    """Cameras on LTE-M, a picture every 10 s, two seconds for an answer."""
    cameras = DeviceClass(
        "cameras",
        devices,
        "lte-m",
        profile="pi-zero-2",
        settings=DeviceSettings(deadline_ms=2000),
        arrivals=Arrivals(interval_s=INTERVAL_S),
    )
    return Scenario("benchmark", (cameras,), (Server("edge", count=servers, workers=4),), hours=hours)


@dataclass(frozen=True)
class Run:
    """One simulation."""

    devices: int
    frames: int
    wall_s: float
    memory_mb: float
    """Most of this process and its children together."""


@dataclass(frozen=True)
class Fleet:
    """What a fleet of a size takes."""

    start: Run
    """Of the first pictures alone."""
    run: Run

    @property
    def frame_us(self) -> float:
        """Wall time of a picture, all processes together, beside making the fleet.

        Of a run that was no longer than the start, on a disturbed machine, all of it is taken for its pictures' time.
        """
        start_s = self.start.wall_s if self.start.wall_s < self.run.wall_s else 0.0
        return (self.run.wall_s - start_s) / (self.run.frames - self.start.frames) * 1e6

    @property
    def hour_s(self) -> float:
        """Wall time of an hour."""
        left = self.run.devices * HOURLY_FRAMES - self.run.frames
        return self.run.wall_s + left * self.frame_us / 1e6


class Memory(threading.Thread):
    """Looks at the memory of this process and its children now and then."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most_mb = 0.0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.25):
            self.look()

    def look(self) -> None:
        total, own = 0, psutil.Process()
        for process in (own, *own.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        self.most_mb = max(self.most_mb, total / 1e6)

    def stop(self) -> float:
        self._done.set()
        self.join()
        return self.most_mb


def measured(devices: int, hours: float, bundle: Bundle) -> Run:
    """Simulate so many, on two processes."""
    memory = Memory()
    memory.start()
    begin = time.perf_counter()
    outcome = engine.run(scenario(devices, hours), bundle=bundle, jobs=JOBS)
    wall_s = time.perf_counter() - begin
    check(outcome, devices)
    return Run(devices, outcome.total.frames, wall_s, memory.stop())


def fleet(devices: int, hours: float, bundle: Bundle) -> Fleet:
    """Measure one."""
    return Fleet(measured(devices, START_H, bundle), measured(devices, hours, bundle))


def by_turns(sizes: Sequence[tuple[int, float]], bundle: Bundle, turns: int) -> list[Fleet]:
    """Measure fleets in turns; of each size that whose picture took the median of times."""
    rounds = [[fleet(devices, hours, bundle) for devices, hours in sizes] for _ in range(turns)]
    return [sorted(each, key=lambda one: one.frame_us)[turns // 2] for each in zip(*rounds, strict=True)]


def check(outcome: Outcome, devices: int) -> None:
    """Every device did its work, and every picture became one thing."""
    total = outcome.total
    ended = total.server + total.exit + total.whole + total.unanswered + total.skipped + total.dropped
    assert total.frames == ended, f"{total.frames} pictures, {ended} ends"
    wanted = devices * outcome.scenario.hours * HOURLY_FRAMES
    assert abs(total.frames - wanted) <= devices, f"{total.frames} pictures; want {wanted:.0f}"
    assert total.missed == 0, f"{total.missed} pictures had no answer in time, although there is a local exit"
    assert sum(server.devices for server in outcome.servers) == devices


# ------------------------------------------------------------ simpy


class SimpyAgenda(Agenda):
    """The same events on simpy's event loop."""

    def __init__(self) -> None:
        import simpy

        super().__init__(1.0)
        self._environment = simpy.Environment()

    def at(self, time_s: float, do: Callable[[Any, float], None], what: Any) -> None:  # noqa: ANN401 - as Agenda's
        if time_s == float("inf"):
            return

        def fire(_: object) -> None:
            self.now_s = time_s
            self.events += 1
            do(what, time_s)

        event = self._environment.timeout(max(time_s - self._environment.now, 0.0))
        event.callbacks.append(fire)

    def run(self) -> None:
        self._environment.run()


def beside_simpy(devices: int, hours: float, bundle: Bundle) -> list[float]:
    """Seconds of one shard: compiled, in Python, and in Python on simpy's loop; asserts that all give the same."""
    small = scenario(devices, hours, servers=1)
    shard = Shard(small, [model_of(bundle, each) for each in small.devices], small.server_names, [range(devices)])
    taken, parts = [], []
    for run in (shard.run, partial(shard.run, implementation="python"), partial(shard.run, SimpyAgenda())):
        begin = time.perf_counter()
        parts.append(run())
        taken.append(time.perf_counter() - begin)
    assert parts[0] == parts[1], "the compiled core gives another outcome than its twin"
    assert parts[0] == parts[2], "simpy's event loop gives another outcome"
    return taken


def timers(devices: int, rounds: int) -> tuple[float, float]:
    """Events a second of both loops, where each device does nothing but wait for its next picture."""
    return _ours(devices, rounds), _simpys(devices, rounds)


def _ours(devices: int, rounds: int) -> float:
    agenda = kit().agenda(INTERVAL_S * 300 / devices)

    def again(left: list[int], now_s: float) -> None:
        left[0] -= 1
        if left[0]:
            agenda.at(now_s + INTERVAL_S, again, left)

    for number in range(devices):
        agenda.at(number * INTERVAL_S / devices, again, [rounds])
    begin = time.perf_counter()
    agenda.run()
    assert agenda.events == devices * rounds
    return agenda.events / (time.perf_counter() - begin)


def _simpys(devices: int, rounds: int) -> float:
    import simpy

    environment, done = simpy.Environment(), [0]

    def device(number: int) -> Generator[object, None, None]:
        yield environment.timeout(number * INTERVAL_S / devices)
        for _ in range(rounds):
            done[0] += 1
            yield environment.timeout(INTERVAL_S)

    for number in range(devices):
        environment.process(device(number))
    begin = time.perf_counter()
    environment.run()
    assert done[0] == devices * rounds
    return done[0] / (time.perf_counter() - begin)


# ------------------------------------------------------------ all of it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    options = claims.options(__doc__, arguments, full="the whole hour of 1,000, 10,000 and 100,000 devices")
    bundle = Bundle.load(shipped_bundle())
    _check_meaning(bundle)
    sizes = QUICK if options.quick else FULL if options.full else USUAL
    fleets = by_turns(sizes, bundle, TURNS if sizes is USUAL else 1)
    shared, rounds = (20, 3) if options.quick else (10_000, 10)
    ours, simpys = timers(shared, rounds)
    same_s = beside_simpy(*((10, 0.03) if options.quick else (200, 0.1)), bundle)
    _show(fleets, (ours, simpys), same_s)
    return claims.report("Simulation", _claims(fleets, ours / simpys), options)


def _check_meaning(bundle: Bundle) -> None:
    """The product's controller; one process or two, the same."""
    small = scenario(16, 0.02, servers=3)
    assert type(model_of(bundle, small.devices[0]).make()) is DeadlineController
    alone, shared = (engine.run(small, bundle=bundle, jobs=jobs).to_json() for jobs in (1, JOBS))
    assert alone == shared, "two processes give another outcome than one"
    assert engine.run(replace(small, seed=1), bundle=bundle).to_json() != alone


def _show(fleets: Sequence[Fleet], loops: tuple[float, float], same_s: Sequence[float]) -> None:
    table = Table(title=f"Fleets on {JOBS} processes", title_justify="left")
    for column in ("devices", "begun, s", "pictures", "seconds", "µs a picture", "an hour, s", "MB"):
        table.add_column(column, justify="right")
    for each in fleets:
        run, start_s = each.run, each.start.wall_s
        counts = f"{run.devices:,}", f"{start_s:.1f}", f"{run.frames:,}", f"{run.wall_s:.1f}"
        table.add_row(*counts, f"{each.frame_us:.1f}", f"{each.hour_s:.1f}", f"{run.memory_mb:,.0f}")
    console = Console()
    console.print(table)
    console.print(f"event loops alone: {loops[0]:,.0f} events a second, simpy {loops[1]:,.0f}")
    ours_s, plain_s, simpys_s = same_s
    console.print(f"the same simulation: {ours_s:.2f} s, in Python {plain_s:.1f} s, on simpy's loop {simpys_s:.1f} s")


def _by(run: Run) -> str:
    """What share of the claim's pictures the figure is reckoned up from."""
    share = run.frames / run.devices / HOURLY_FRAMES
    return "" if share > 0.9 else f", reckoned from {60 * share:.2g} minutes"


def _claims(fleets: Sequence[Fleet], faster: float) -> list[claims.Claim]:
    hour, large = fleets[1], fleets[-1]
    peer = f"{JOBS} processes"
    simpy = f"simpy {version('simpy')}"
    return [
        claims.at_most(
            *("simulation", f"10,000 devices, an hour, a picture every 10 s{_by(hour.run)}"),
            *(hour.hour_s,),
            unit="s",
            target=HOUR_S,
            peer=peer,
        ),
        claims.at_most(
            *("simulation", f"100,000 devices, an hour{_by(large.run)}"),
            *(large.hour_s,),
            unit="s",
            target=TEN_MINUTES_S,
            peer=peer,
        ),
        claims.at_most(
            "simulation", "memory of 100,000 devices", large.run.memory_mb, unit="MB", target=MEMORY_MB, peer=peer
        ),
        claims.at_most(
            *("simulation", "a picture's cost, 100,000 devices beside 10,000"),
            *(large.frame_us / hour.frame_us,),
            unit="x",
            target=1.25,
            peer=peer,
        ),
        claims.at_least("simulation", "events a second, loops alone", faster, unit="x", target=1.0, peer=simpy),
    ]


if __name__ == "__main__":
    sys.exit(main())
