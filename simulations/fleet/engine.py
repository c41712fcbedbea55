"""Runs a scenario: the fleet in shards, each a simulation of its own, in as many processes as there are.

Servers have nothing to do with one another unless one of them goes down and its devices go to others. So the fleet
falls apart into *shards*, by the servers that devices begin at; each is simulated by itself, and their numbers are
added in the order of the shards. How many processes do it changes nothing of the outcome.

    run(scenario) ── bundle, models ── shards ──┬── simulate ──┐
                                                ├── simulate ──┼── merged in order ──> Outcome
                                                └── simulate ──┘
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

from headwater.compression.bundle import Bundle
from headwater.device.route import ranked
from headwater.simulations.fleet import energy, profiles
from headwater.simulations.fleet.model import model_of
from headwater.simulations.fleet.outcome import ClassOutcome, Outcome
from headwater.simulations.fleet.scenario import Scenario
from headwater.simulations.fleet.shard import Part, Shard
from headwater.simulations.shipped import shipped_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    done: int
    shards: int
    frames: int
    """Of the shards that are done."""


def run(
    scenario: Scenario,
    *,
    bundle: Bundle | None = None,
    jobs: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Simulate a scenario.

    Args:
        scenario: what is simulated.
        bundle: in place of the scenario's.
        jobs: processes; 0 for one a core. They change the time that it takes, and nothing else.
        progress: told after each shard.

    Raises:
        BundleError: for a bundle that cannot be used.
        SettingsError: for devices that cannot do what their settings say.
        DataError: for damaged recordings.
    """
    bundle = bundle or bundle_of(scenario)
    models = [model_of(bundle, devices) for devices in scenario.devices]
    shards = [Shard(scenario, models, servers, members) for servers, members in split(scenario)]
    outcome = Outcome(
        scenario,
        f"{bundle.manifest.name} {bundle.short_id}",
        [ClassOutcome(each.name) for each in scenario.devices],
        [],
    )
    for done, part in enumerate(_simulated(shards, jobs or len(os.sched_getaffinity(0))), 1):
        _merge(outcome, part)
        progress(Progress(done, len(shards), sum(each.frames for each in outcome.classes)))
    _reckon(outcome)
    return outcome


def bundle_of(scenario: Scenario) -> Bundle:
    """Its bundle, the shipped one if it names none; raises :class:`BundleError`."""
    return Bundle.load(scenario.bundle or shipped_bundle())


def _reckon(outcome: Outcome) -> None:
    """The joules of every class that has a board."""
    for devices, did in zip(outcome.scenario.devices, outcome.classes, strict=True):
        if devices.profile:
            kind = outcome.scenario.radio(devices).kind
            did.joules = energy.reckoned(did, profiles.load(devices.profile), kind)


def _simulated(shards: Sequence[Shard], jobs: int) -> Iterator[Part]:
    """Their parts, in order."""
    if min(jobs, len(shards)) == 1:
        yield from map(simulate, shards)
        return
    # spawn: a fork would copy whatever threads and locks this process has.
    with ProcessPoolExecutor(min(jobs, len(shards)), get_context("spawn")) as pool:
        yield from pool.map(simulate, shards)


def simulate(shard: Shard) -> Part:
    """Simulate one shard."""
    with _no_collection():
        return shard.run()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let no garbage be looked for: a simulation leaves none in circles, and has a million objects to go round."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _merge(outcome: Outcome, part: Part) -> None:
    for mine, more in zip(outcome.classes, part.classes, strict=True):
        mine.merge(more)
    outcome.servers += part.servers
    outcome.rounds += part.rounds
    outcome.rollouts += part.rollouts


# ------------------------------------------------------------ shards


def split(scenario: Scenario) -> list[tuple[tuple[str, ...], list[list[int]]]]:
    """The servers of each shard, and the numbers of the devices of each class in it."""
    together = _together(scenario)
    groups = sorted({tuple(sorted(names, key=scenario.server_names.index)) for names in together.values()})
    groups.sort(key=lambda names: scenario.server_names.index(names[0]))
    of_server = {name: at for at, names in enumerate(groups) for name in names}
    members: list[list[list[int]]] = [[[] for _ in scenario.devices] for _ in groups]
    for at, devices in enumerate(scenario.devices):
        servers = devices.servers or scenario.server_names
        for number in range(devices.count):
            members[of_server[first_server(servers, devices.name, number)]][at].append(number)
    return list(zip(groups, members, strict=True))


def first_server(servers: Sequence[str], name: str, number: int) -> str:
    """Where a device of a class begins: the product's rule."""
    return servers[0] if len(servers) == 1 else ranked(servers, f"{name}-{number}")[0]


def _together(scenario: Scenario) -> dict[str, set[str]]:
    """Which servers have to be simulated together: those that devices of one that goes down may go to."""
    groups = {name: {name} for name in scenario.server_names}
    failing = {outage.server for outage in scenario.outages}
    for devices in scenario.devices:
        servers = devices.servers or scenario.server_names
        if failing.isdisjoint(servers):
            continue
        joined = set().union(*(groups[name] for name in servers))
        for name in joined:
            groups[name] = joined
    return groups
