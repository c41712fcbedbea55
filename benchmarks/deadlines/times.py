"""What device and server take when nothing is in their way: measured once, before the runs, over a link of no delay.

The oracle reckons with these times, the controller that plans on means with those of encoding. They are medians, of the
very agent, proxy and server that the runs use, one device at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.deadlines.oracle import Costs, Option
from benchmarks.deadlines.rig import Contender, Job
from headwater.device.exit import LocalExit
from headwater.device.whole import WholeModel
from headwater.simulations.trace import LinkTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.deadlines.pictures import Pictures
    from benchmarks.deadlines.rig import Ran, Rig
    from headwater.compression.bundle import Bundle
    from headwater.device.record import FrameRecord

FPS = 20.0
FAR_MS = 60_000
"""A deadline that nothing misses, since without one the device has no exit."""
FAST, WIDE = 1e9, 1e7
"""bit/s of the link that is in nobody's way, and from which on one is."""


@dataclass(frozen=True)
class Times:
    """Medians, in ms."""

    send_ms: dict[float, float]
    """Of the device, from a picture to its coded frame, by width."""
    local_ms: dict[float, float]
    """From a picture to the local exit's answer, by width; empty where there is none."""
    whole_ms: float
    """From a picture to the whole model's answer."""
    head_ms: dict[float, float]
    """Of the head alone, by width: what runs side by side are compared by."""
    costs: Costs
    scatter: tuple[tuple[float, float], ...]
    """Of each frame that was sent: what the device, and what all beyond it took, over the median."""


async def measure(rig: Rig, bundle: Bundle, pictures: Pictures, rounds: int) -> Times:
    """Take every width's times in turn, `rounds` of each."""
    modes = {mode.width: mode.index for mode in bundle.manifest.modes}  # the highest gain of each
    actions = ["send", "local"] if pictures.has_exit else ["send"]
    decisions = [(mode, action) for action in actions for mode in modes.values()] + [(0, "whole")]
    contender = Contender("times", "cycle", {"decisions": decisions}, {"whole_model": True})
    samples = [pictures.samples[at % len(pictures)] for at in range(rounds * len(decisions))]
    (ran,) = await rig.wave([Job(contender, LinkTrace.constant("fast", FAST), samples, FAR_MS, FPS)])
    assert len(ran.records) == len(samples), "frames are lost on a link that loses none"
    return times(ran)


def times(ran: Ran) -> Times:
    """Medians of a run in which every way of answering took its turn."""
    records = list(ran.records.values())
    sent = [record for record in records if record.action == "send"]
    local = [record for record in records if record.action == "local"]
    whole = [record for record in records if record.action == "whole"]
    costs = Costs(
        median(record.round_trip_ms for record in sent) / 1e3,
        (ran.up_bytes - sum(record.bytes for record in sent)) / len(sent),
        ran.down_bytes / len(sent),
    )
    send_ms = _by_width(sent, _device_ms)
    found = Times(
        send_ms,
        _by_width(local, lambda record: record.latency_ms),
        median(record.latency_ms for record in whole),
        _by_width(sent, lambda record: record.head_ms),
        costs,
        (),
    )
    return replace(found, scatter=tuple(_scattered(record, 0.0, found) for record in sent))


def side_by_side(found: Times, runs: Iterable[tuple[Job, Ran]]) -> Times:
    """The same, scattering as among many devices: as frames did on the links that were in nobody's way, if any was."""
    scatter = []
    for job, ran in runs:
        link = job.link
        if all(len(way) == 1 and way.bits_per_s(0) >= WIDE for way in (link.up, link.down)):
            delay_ms = 1e3 * (link.up_delay_s + link.down_delay_s)
            answered = (record for record in ran.records.values() if record.source == "edge" and record.width)
            scatter += [_scattered(record, delay_ms, found) for record in answered]
    return replace(found, scatter=tuple(scatter) or found.scatter)


def _scattered(record: FrameRecord, delay_ms: float, found: Times) -> tuple[float, float]:
    beyond_ms = record.round_trip_ms - delay_ms
    return _device_ms(record) / found.send_ms[record.width], beyond_ms / 1e3 / found.costs.server_s


def _device_ms(record: FrameRecord) -> float:
    return record.latency_ms - record.round_trip_ms


def _by_width(records: Iterable[FrameRecord], value: Callable[[FrameRecord], float]) -> dict[float, float]:
    found: dict[float, list[float]] = {}
    for record in records:
        found.setdefault(record.width, []).append(value(record))
    return {width: median(values) for width, values in sorted(found.items())}


def options(
    bundle: Bundle, pictures: Pictures, found: Times, *, local: bool = True, whole: bool = False
) -> list[Option]:
    """What the oracle may do, each with the accuracy that our controller reckons with too."""
    modes, task = bundle.manifest.modes, pictures.task.name
    made = [Option("send", mode.index, mode.accuracy[task], found.send_ms[mode.width] / 1e3) for mode in modes]
    for width, accuracy in LocalExit(bundle).counts_as.items() if local and pictures.has_exit else ():
        mode = next(mode.index for mode in modes if mode.width == width)
        made.append(Option("local", mode, accuracy, found.local_ms[width] / 1e3))
    return [*made, Option("whole", 0, WholeModel(bundle).accuracy, found.whole_ms / 1e3)] if whole else made
