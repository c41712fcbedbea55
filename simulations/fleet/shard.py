"""The servers that have something to do with one another, and their devices: one simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.compression.allocator import in_large_pages
from headwater.simulations.fleet.arrivals import Clock
from headwater.simulations.fleet.bulk import FederatedRound, Mover
from headwater.simulations.fleet.calibrated import CalibratedCrew, CalibratedStation
from headwater.simulations.fleet.calibration import Calibration
from headwater.simulations.fleet.chance import draw, key_of, share
from headwater.simulations.fleet.core import PYTHON, Implementation, kit
from headwater.simulations.fleet.drawn import Drawn
from headwater.simulations.fleet.links import RateLink, links_of
from headwater.simulations.fleet.outcome import ClassOutcome, RolloutOutcome, RoundOutcome, ServerOutcome
from headwater.simulations.fleet.releases import Release
from headwater.simulations.fleet.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.fleet.agenda import Agenda
    from headwater.simulations.fleet.core import Kit
    from headwater.simulations.fleet.crew import Crew
    from headwater.simulations.fleet.links import Gap
    from headwater.simulations.fleet.member import Device
    from headwater.simulations.fleet.model import Model
    from headwater.simulations.fleet.scenario import DeviceClass, Round, Scenario
    from headwater.simulations.fleet.servers import Station

EVENTS_A_SLICE = 300
MANY = 5_000
"""Devices that are more memory than a processor's own caches hold."""


@dataclass
class Part:
    """What a shard gives to the outcome; classes in the scenario's order."""

    classes: list[ClassOutcome]
    servers: list[ServerOutcome]
    rounds: list[RoundOutcome] = field(default_factory=list)
    rollouts: list[RolloutOutcome] = field(default_factory=list)
    events: int = 0


@dataclass(frozen=True)
class Shard:
    """What is needed to simulate it, in any process."""

    scenario: Scenario
    models: Sequence[Model]
    servers: tuple[str, ...]
    members: Sequence[Sequence[int]]
    """Numbers of the devices of each class."""

    def run(self, agenda: Agenda | None = None, implementation: Implementation | None = None) -> Part:
        """Simulate it to the end, and until every frame on its way has landed.

        Args:
            agenda: another kind of one, which runs the simulation in Python.
            implementation: "c" or "python", which change the time that it takes and nothing else; None for what there
                is. Devices or servers that are calibrated are simulated in Python.
        """
        used = PYTHON if agenda is not None or self._calibrated else kit(implementation)
        return _Run(self, agenda or used.agenda(_slice_s(self)), used).part()

    @property
    def _calibrated(self) -> bool:
        """Times are drawn from measured frames."""
        drawn = any(model.drawn is not None for model in self.models)
        return drawn or any(server.calibration is not None for server in self.scenario.servers)


class _Run:
    """One shard being simulated."""

    def __init__(self, shard: Shard, agenda: Agenda, used: Kit) -> None:
        self._shard, self._kit = shard, used
        scenario = self._scenario = shard.scenario
        self._end_s = scenario.hours * 3600.0
        self._agenda = agenda
        self._stations = {name: self._station(name, shard.models[0].widths) for name in shard.servers}
        self._routes = Routes(self._stations)
        self._teams = [
            self._team(devices, model, numbers)
            for devices, model, numbers in zip(scenario.devices, shard.models, shard.members, strict=True)
        ]

    def part(self) -> Part:
        """Run it."""
        mover = Mover(self._agenda)
        rounds, releases = self._rounds(), self._releases()
        for round_ in rounds:
            round_.begin(mover, self._agenda)
        for release in releases:
            release.begin(mover, self._agenda)
        if sum(map(len, self._shard.members)) >= MANY:
            in_large_pages()  # each picture is another device's: all over the heap
        self._agenda.run()
        classes = [self._closed(crew, devices) for crew, devices in self._teams]
        servers = [station.close() for station in self._stations.values()]
        of_rounds, of_releases = [each.outcome() for each in rounds], [each.outcome for each in releases]
        return Part(classes, servers, of_rounds, of_releases, self._agenda.events)

    # ------------------------------------------------------------ rounds and roll-outs

    def _rounds(self) -> list[FederatedRound]:
        found: list[FederatedRound] = []
        for serial, (round_, at_h) in enumerate(
            (each, at_h) for each in self._scenario.rounds for at_h in hours_of(each, self._scenario.hours)
        ):
            for station in self._stations.values():
                devices = self._at(station, round_.classes)
                if devices:
                    found.append(FederatedRound(round_, at_h, serial, station.name, devices, self._end_s))
        return found

    def _releases(self) -> list[Release]:
        found = []
        for serial, rollout in enumerate(self._scenario.rollouts):
            for station in self._stations.values():
                devices = self._at(station, ())
                if rollout.at_h < self._scenario.hours and devices:
                    found.append(Release(rollout, serial, station.name, devices, self._end_s))
                    for _, _, device in devices:
                        device.release = found[-1]
        return found

    def _at(self, station: Station, classes: Sequence[str]) -> list[tuple[str, Crew, Device]]:
        """Devices that begin at a server, and can take more than frames: none on LoRa."""
        return [
            (f"{crew.name}-{number}", crew, device)
            for (crew, devices), numbers in zip(self._teams, self._shard.members, strict=True)
            if not classes or crew.name in classes
            for number, device in zip(numbers, devices, strict=True)
            if device.station is station and isinstance(device.link, RateLink)
        ]

    # ------------------------------------------------------------ devices and servers

    def _station(self, name: str, widths: Sequence[float]) -> Station:
        server = next(each for each in self._scenario.servers if name in each.names)
        outages = [
            (outage.from_h * 3600.0, (outage.from_h + outage.hours) * 3600.0)
            for outage in self._scenario.outages
            if outage.server == name
        ]
        given = (name, server, self._agenda, self._scenario.seed, _merged(outages))
        if server.calibration is None:
            return self._kit.station(*given)
        return CalibratedStation(*given, drawn=Drawn(Calibration.load(server.calibration), widths, 0.0))

    def _team(self, devices: DeviceClass, model: Model, numbers: Sequence[int]) -> tuple[Crew, list[Device]]:
        scenario = self._scenario
        tally = self._kit.tally(ClassOutcome(devices.name, len(numbers)), devices.settings.deadline_ms)
        clock = Clock(devices.arrivals, scenario.start_h)
        given = (devices, model, clock, self._agenda, tally, self._routes, self._end_s, scenario.content_s)
        crew = self._kit.crew(*given) if model.drawn is None else CalibratedCrew(*given, drawn=model.drawn)
        radio = scenario.radio(devices)
        gaps = _merged(
            [
                (out.from_h * 3600.0, out.from_h * 3600.0 + out.minutes * 60.0)
                for out in scenario.black_outs
                if out.link in {"", devices.link}
            ]
        )
        seed = key_of("links", scenario.seed, devices.link) >> 32
        links = links_of(radio, scenario.protocol, tally.used, gaps, seed, self._kit.rate_link)
        servers = devices.servers or scenario.server_names
        made = []
        for number in numbers:
            key = key_of(scenario.seed, devices.name, number)
            link = links[draw(key, -5) % len(links)]
            shift_s = share(key, -6) * link.period_s if isinstance(link, RateLink) else 0.0
            station = self._routes.first(key, f"{devices.name}-{number}", servers)
            station.outcome.devices += 1
            device = self._kit.device(key, model.make(), link, self._kit.line(shift_s), station)
            crew.begin(device)
            made.append(device)
        return crew, made

    def _closed(self, crew: Crew, devices: Sequence[Device]) -> ClassOutcome:
        for device in devices:
            device.link.rest(device.line, self._end_s)
            device.part()
        return crew.tally.close(len(devices) * self._end_s)


def _merged(gaps: list[Gap]) -> list[Gap]:
    """Sorted, and those that overlap as one."""
    merged: list[Gap] = []
    for from_s, to_s in sorted(gaps):
        if merged and from_s <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], to_s)
        else:
            merged.append((from_s, to_s))
    return merged


def hours_of(round_: Round, hours: float) -> list[float]:
    """When a round takes place within so many hours."""
    if round_.every_h is None:
        return [round_.at_h] if round_.at_h < hours else []
    return [round_.at_h + n * round_.every_h for n in range(math.ceil((hours - round_.at_h) / round_.every_h))]


def _slice_s(shard: Shard) -> float:
    """So long that some hundred events are in it."""
    rate = math.fsum(
        len(numbers) * 3 / each.arrivals.interval_s
        for each, numbers in zip(shard.scenario.devices, shard.members, strict=True)
    )
    return min(max(EVENTS_A_SLICE / max(rate, 1e-9), 1e-4), 60.0)
