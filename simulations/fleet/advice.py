"""What to change first: the same fleet again, each time with one thing changed, in short runs with common seeds.

A short run is a window of the whole: from the hour with most pictures on, as long as :data:`PICTURES` take. Where even
the shortest window has more, devices and servers are thinned alike, as far as there are servers to leave out. The same
seeds with and without the change give pairs, whose differences are far less noisy than the runs themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from headwater.simulations.fleet.model import times_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.compression.bundle import Bundle
    from headwater.simulations.fleet.outcome import ClassOutcome, Outcome
    from headwater.simulations.fleet.radios import Radio
    from headwater.simulations.fleet.scenario import DeviceClass, Scenario

Runner = Callable[["Scenario"], "Outcome"]

PICTURES = 20_000
"""Of one short run."""
SEEDS = 3
SHORTEST_H = 0.05
SURE = 2.0
"""So many standard errors a difference must have to count."""
LEAST = 5e-4
"""And so much of all pictures."""
TAIL_S = 2.0
"""A radio that is let go at once."""
LOCAL_POINTS = 1.0


@dataclass(frozen=True)
class Tried:
    """One change and what it did; differences are with the change less without it."""

    what: str
    right: float
    """Of the share of right answers; a miss counts as wrong."""
    right_error: float
    """Its standard error, over the seeds."""
    missed: float
    """Of the share of misses."""
    p95_ms: float | None
    """With the change."""
    bytes: float
    """Relative."""
    joules: float | None
    """Relative; None where a board is not known."""
    frames: int
    """Pictures of all runs with the change."""
    from_h: float
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the difference in right answers is more than chance."""
        return abs(self.right) > max(SURE * self.right_error, LEAST)


def advise(outcome: Outcome, bundle: Bundle, run: Runner, seeds: int = SEEDS) -> list[Tried]:
    """Try every change that fits the scenario; the best first."""
    small = window(outcome)
    numbers = [outcome.scenario.seed + number for number in range(seeds)]
    base = [run(replace(small, seed=seed)) for seed in numbers]
    tried = []
    for what, changed in changes(small, bundle):
        runs = [run(replace(changed, seed=seed)) for seed in numbers]
        tried.append(_compared(what, base, runs, busiest_hour(outcome)))
    return sorted(tried, key=_rank)


def window(outcome: Outcome, pictures: int = PICTURES) -> Scenario:
    """A part of the outcome's scenario that is quick to simulate, around its busiest hour."""
    scenario, at = outcome.scenario, busiest_hour(outcome)
    an_hour = max(sum(of.hours[at].frames for of in outcome.classes if at in of.hours), 1)
    rate = an_hour / min(max(scenario.hours - at, 1e-3), 1.0)
    hours = min(max(pictures / rate, SHORTEST_H), scenario.hours - at)
    part = _from(scenario, float(at), hours)
    return _thinned(part, pictures / (rate * hours))


def busiest_hour(outcome: Outcome) -> int:
    """The hour with most pictures a second; the first of them."""
    frames: dict[int, float] = {}
    for of in outcome.classes:
        for at, hour in of.hours.items():
            frames[at] = frames.get(at, 0.0) + hour.frames / min(max(outcome.scenario.hours - at, 0.1), 1.0)
    return max(sorted(frames), key=frames.__getitem__, default=0)


def changes(scenario: Scenario, bundle: Bundle) -> Iterator[tuple[str, Scenario]]:
    """Every change that is one, with its name."""
    ways: Mapping[str, Callable[[Scenario, Bundle], Scenario]] = {
        "links twice as fast": _faster_links,
        "half the links' delay": _nearer,
        "boards twice as fast": _faster_boards,
        "twice the servers": _more_servers,
        "twice the workers of a server": _more_workers,
        "deadlines half as long again": _longer,
        f"exit answers where it is sure, {LOCAL_POINTS:g} point": _local,
        "objective energy in place of accuracy": _energy,
        f"radio asleep {TAIL_S:g} s after its last byte": _asleep,
    }
    for what, change in ways.items():
        changed = change(scenario, bundle)
        if changed != scenario:
            yield what, changed


# ---------------------------------------------------------------- changes


def _radios(scenario: Scenario, change: Callable[[Radio], Radio]) -> Scenario:
    radios = {each.link: scenario.radio(each) for each in scenario.devices}
    changed = {name: change(radio) for name, radio in radios.items()}
    if changed == radios:
        return scenario
    return replace(scenario, links=tuple(changed.values()))


def _devices(scenario: Scenario, change: Callable[[DeviceClass], DeviceClass]) -> Scenario:
    return replace(scenario, devices=tuple(change(each) for each in scenario.devices))


def _faster_links(scenario: Scenario, _: Bundle) -> Scenario:
    return _radios(scenario, faster)


def faster(radio: Radio, times: float = 2.0) -> Radio:
    """The link with so many times the rate; of LoRa, one spreading factor less, which is about twice."""
    if radio.lora is not None:
        lora = replace(radio.lora, spreading_factor=max(radio.lora.spreading_factor - 1, 7))
        return replace(radio, lora=lora)
    if radio.trace is not None:
        return replace(radio, trace_factor=radio.trace_factor * times)
    levels = (
        replace(level, up_bit_s=level.up_bit_s * times, down_bit_s=level.down_bit_s * times) for level in radio.levels
    )
    return replace(radio, levels=tuple(levels))


def _nearer(scenario: Scenario, _: Bundle) -> Scenario:
    def nearer(radio: Radio) -> Radio:
        if radio.lora is not None:  # the answer's delay is the standard's
            return radio
        return replace(radio, up_delay_ms=radio.up_delay_ms / 2, down_delay_ms=radio.down_delay_ms / 2)

    return _radios(scenario, nearer)


def _faster_boards(scenario: Scenario, bundle: Bundle) -> Scenario:
    def faster_board(devices: DeviceClass) -> DeviceClass:
        times = times_of(devices, bundle.manifest.modes)
        half = {key: getattr(times, key) / 2 for key in ("prepare_ms", "exit_ms", "code_ms")}
        head_ms = {width: ms / 2 for width, ms in times.head_ms.items()}
        whole_ms = None if times.whole_ms is None else times.whole_ms / 2
        halved = replace(times, head_ms=head_ms, whole_ms=whole_ms, **half)
        return replace(devices, times=halved, calibration=None)

    return _devices(scenario, faster_board)


def _more_servers(scenario: Scenario, _: Bundle) -> Scenario:
    if scenario.outages or any(each.servers for each in scenario.devices):  # these name single servers
        return scenario
    return replace(scenario, servers=tuple(replace(each, count=2 * each.count) for each in scenario.servers))


def _more_workers(scenario: Scenario, _: Bundle) -> Scenario:
    return replace(scenario, servers=tuple(replace(each, workers=2 * each.workers) for each in scenario.servers))


def _longer(scenario: Scenario, _: Bundle) -> Scenario:
    def longer(devices: DeviceClass) -> DeviceClass:
        if devices.settings.deadline_ms is None:
            return devices
        return replace(devices, settings=replace(devices.settings, deadline_ms=devices.settings.deadline_ms * 3 // 2))

    return _devices(scenario, longer)


def _fixed(devices: DeviceClass) -> bool:
    return devices.settings.width is not None or devices.settings.gain is not None


def _local(scenario: Scenario, bundle: Bundle) -> Scenario:
    def local(devices: DeviceClass) -> DeviceClass:
        if bundle.manifest.exit is None or devices.settings.max_drop is not None:
            return devices
        tasks = (bundle.manifest.exit.task,)
        if devices.settings.tasks not in {(), tasks} or len(bundle.manifest.tasks) > 1:
            return devices
        return replace(devices, settings=replace(devices.settings, max_drop=LOCAL_POINTS))

    return _devices(scenario, local)


def _energy(scenario: Scenario, _: Bundle) -> Scenario:
    def careful(devices: DeviceClass) -> DeviceClass:
        if devices.settings.objective != "accuracy" or _fixed(devices):
            return devices
        kind = scenario.radio(devices).kind
        radio = "none" if kind == "cable" else kind
        return replace(devices, settings=replace(devices.settings, objective="energy", radio=radio))

    return _devices(scenario, careful)


def _asleep(scenario: Scenario, _: Bundle) -> Scenario:
    def asleep(radio: Radio) -> Radio:
        return radio if radio.awake_s is None or radio.awake_s <= TAIL_S else replace(radio, awake_s=TAIL_S)

    return _radios(scenario, asleep)


# ---------------------------------------------------------------- windows


def _from(scenario: Scenario, from_h: float, hours: float) -> Scenario:
    """The hours from `from_h` on; what happens once and before is left out."""
    end_h = from_h + hours
    outages = [replace(each, from_h=each.from_h - from_h) for each in scenario.outages if each.from_h < end_h]
    black_outs = [replace(each, from_h=each.from_h - from_h) for each in scenario.black_outs if each.from_h < end_h]
    rounds = [replace(each, at_h=each.at_h - from_h) for each in scenario.rounds if from_h <= each.at_h < end_h]
    rollouts = [replace(each, at_h=each.at_h - from_h) for each in scenario.rollouts if from_h <= each.at_h < end_h]
    return replace(
        scenario,
        start_h=(scenario.start_h + from_h) % 24,
        hours=hours,
        outages=tuple(each for each in outages if each.from_h >= 0),
        black_outs=tuple(each for each in black_outs if each.from_h >= 0),
        rounds=tuple(rounds),
        rollouts=tuple(rollouts),
    )


def _thinned(scenario: Scenario, share: float) -> Scenario:
    """Fewer devices, and of each kind of server as many fewer; no fewer than one of each."""
    named = scenario.outages or any(each.servers for each in scenario.devices)
    least = 1 / min(server.count for server in scenario.servers)
    share = max(share, least)
    if share >= 1 or named:
        return scenario
    servers = tuple(replace(each, count=max(round(each.count * share), 1)) for each in scenario.servers)
    return replace(scenario.scaled(max(round(scenario.device_count * share), 1)), servers=servers)


# ---------------------------------------------------------------- differences


def _compared(what: str, base: Sequence[Outcome], runs: Sequence[Outcome], at: int) -> Tried:
    before, after = [each.total for each in base], [each.total for each in runs]
    right = [b.accuracy - a.accuracy for a, b in zip(before, after, strict=True)]
    latency = after[0].latency
    for each in after[1:]:
        latency.merge(each.latency)
    return Tried(
        what=what,
        right=fmean(right),
        right_error=stdev(right) / math.sqrt(len(right)) if len(right) > 1 else math.inf,
        missed=fmean(b.miss_share - a.miss_share for a, b in zip(before, after, strict=True)),
        p95_ms=latency.quantile(0.95),
        bytes=_relative([_bytes(each) for each in before], [_bytes(each) for each in after]),
        joules=_relative([each.watts for each in before], [each.watts for each in after]) if _known(base) else None,
        frames=sum(each.frames for each in after),
        from_h=float(at),
        seeds=len(base),
    )


def _bytes(of: ClassOutcome) -> float:
    return of.up_bytes + of.down_bytes


def _known(runs: Sequence[Outcome]) -> bool:
    return all(of.joules for run in runs for of in run.classes if of.frames)


def _relative(before: Sequence[float], after: Sequence[float]) -> float:
    total = sum(before)
    return sum(after) / total - 1 if total else 0.0


def _rank(tried: Tried) -> tuple[int, float, str]:
    if tried.clear:
        return (0 if tried.right > 0 else 2), -tried.right, tried.what
    return 1, tried.joules or 0.0, tried.what
