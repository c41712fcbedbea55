"""From runs of real devices to a :class:`Calibration`: which runs, and what is read out of their records.

A device alone takes its modes and actions in turn over a link that is in nobody's way; then several do so at a time, so
that what they take from one another shows; then all of them send to a link that carries nothing, which shows when they
stop waiting for the server. What batches take is measured here, with the server's own graphs.
"""

from __future__ import annotations

import math
import os
import platform
import time
from datetime import UTC, datetime
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.errors import DataError
from headwater.compression.frame import Frame
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from headwater.server.tails import Tails
from headwater.simulations.fleet.calibration import Calibration, Frames, Wire
from headwater.simulations.fleet.traffic import Traffic
from headwater.simulations.fleet.wire import Timing, answer_bytes
from headwater.simulations.trace import LinkTrace, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater.compression.bundle import Bundle
    from headwater.device.record import FrameRecord
    from headwater.simulations.fleet.stage import Played, Stage

LINK = LinkTrace("calibration", Trace.constant(20e6), Trace.constant(20e6), 0.005, 0.005)
"""Quick enough to be in nobody's way, and with a delay: what the proxy's timers are late by is part of a hop."""
DEAD = LinkTrace("dead", Trace.constant(0), Trace.constant(0))
FAR_MS = 60_000
"""A deadline that nothing misses: without one, no exit runs."""
SHORT_MS = 300
"""The deadline at which the last moment to wait for the server is measured."""
SLACK_S = 2.0
WARM_FPS, WARM_S = 5.0, 0.6
BLOCK = 8
"""Frames of one width in a row. The first has cold caches, and is left out but for what that makes of the head."""
LOCAL = 2
"""Of them, how many the local exit answers."""
BATCHES = (1, 2, 4, 8, 16, 32)
ROUNDS = 7
SLOW, LEAST_TO_AGREE = 0.95, 3
LEAST_FRAMES = 3
"""Of a kind at a load; fewer say nothing."""


def sweep(bundle: Bundle, *, local: bool) -> tuple[tuple[int, str], ...]:
    """Every width in turn for some frames, its gains in turn among them."""
    found: list[tuple[int, str]] = []
    for width in bundle.manifest.widths:
        modes = [mode.index for mode in bundle.manifest.modes if mode.width == width]
        own = LOCAL if local else 0
        found += [(modes[number % len(modes)], "send") for number in range(BLOCK - own)] + [(modes[0], "local")] * own
    return tuple(found)


def runs(bundle: Bundle, settings: DeviceSettings, devices: int, fps: float, seconds: float) -> list[Traffic]:
    """What is played to calibrate: a device alone, then `devices` of them, about `seconds` each, every width as often.

    Then, where an exit can step in, all of them for some seconds over a link that carries nothing.
    """
    local = answers_itself(bundle, settings)
    turns = sweep(bundle, local=local)
    counts = [1, devices] if devices > 1 else [1]
    seconds = math.ceil(seconds * fps / len(turns)) * len(turns) / fps
    found = [
        Traffic(f"{count} at a time", LINK, count, fps, seconds, FAR_MS, sweep=turns, seed=count) for count in counts
    ]
    fixed = {"width": bundle.manifest.widths[0], "gain": 0}
    dead = Traffic("nobody answers", DEAD, devices, fps, SLACK_S, SHORT_MS, fixed, landing_s=0.0)
    return [*found, dead] if local else found


def warm_up(devices: int) -> Traffic:
    """What is played before anything is measured: the first frames of a process are slow."""
    return Traffic("warm-up", LINK, devices, WARM_FPS, WARM_S, seed=devices)


def answers_itself(bundle: Bundle, settings: DeviceSettings) -> bool:
    """Whether the local exit answers all that is asked for."""
    return bundle.manifest.exit is not None and settings.tasks == (bundle.manifest.exit.task,)


def read_out(stage: Stage, bundle: Bundle, task: str, played: Sequence[Played]) -> Calibration:
    """What runs as :func:`runs` and :func:`slack_run` give say, each played once or more often.

    Raises :class:`DataError` where they left too few frames to say anything.
    """
    swept = agreeing([one for one in played if one.traffic.sweep])
    devices = [device for one in swept for device in one.devices]
    return Calibration(
        bundle=bundle.short_id,
        machine=f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        task=task,
        wire=Wire(
            connect_up=round(fmean(device.connect_up_bytes for device in devices)),
            connect_down=round(fmean(device.connect_down_bytes for device in devices)),
            close_up=round(fmean(device.close_up_bytes for device in devices)),
            close_down=round(fmean(device.close_down_bytes for device in devices)),
            report_up=_report_bytes(bundle),
            answer_down=_answer_bytes(bundle, task, played),
        ),
        slack_ms=_slack_ms(played),
        batch_ms=batch_ms(bundle),
        server_start_s=stage.ready_s,
        device_start_s=fmean(stage.station_ready_s),
        frames=tuple(kinds(swept)),
    )


def agreeing(played: Sequence[Played]) -> list[Played]:
    """Without the odd one out of three or more runs of the same: a disturbed moment is not the way of the machine.

    That is the one whose slow frames take a time that is farthest from that of the middle run's.
    """
    of_traffic: dict[str, list[tuple[float, int]]] = {}
    for number, one in enumerate(played):
        totals_ms = [sum(stages(record, one.traffic.link)) for record in one.records if _tells(record, one.traffic)]
        slow_ms = float(np.quantile(totals_ms, SLOW)) if totals_ms else math.inf
        of_traffic.setdefault(one.traffic.name, []).append((slow_ms, number))
    odd = set()
    for runs_ in of_traffic.values():
        if len(runs_) >= LEAST_TO_AGREE:
            middle_ms = sorted(runs_)[len(runs_) // 2][0]
            odd.add(max(runs_, key=lambda run: abs(run[0] - middle_ms))[1])
    return [one for number, one in enumerate(played) if number not in odd]


def kinds(played: Sequence[Played]) -> list[Frames]:
    """The frames of some runs, those of a width, an action and a load together."""
    rows: dict[tuple[float, str, float], list[tuple[float, ...]]] = {}
    for one in played:
        for record in one.records:
            if _tells(record, one.traffic):
                kind = record.width, record.action, one.traffic.frames_per_s
                rows.setdefault(kind, []).append(stages(record, one.traffic.link))
    enough = {kind: found for kind, found in rows.items() if len(found) >= LEAST_FRAMES}
    for width, action in sorted({kind[:2] for kind in rows} - {kind[:2] for kind in enough}):
        raise DataError(f"too few frames were measured of {action} at width {width:g}; give more seconds")
    cold_ms = _cold_ms(played)
    return [Frames.of(*kind, found, cold_ms.get(kind[0], 0.0)) for kind, found in sorted(enough.items())]


def _cold_ms(played: Sequence[Played]) -> dict[float, float]:
    """What the head of each width takes more in the first frame of its block, in the middle."""
    heads: dict[tuple[float, bool], list[float]] = {}
    for one in played:
        for record in one.records:
            if record.source != "none" and record.action != "whole":
                heads.setdefault((record.width, _first(record, one.traffic)), []).append(record.head_ms)
    widths = {width for width, first in heads if first} & {width for width, first in heads if not first}
    return {width: round(max(median(heads[width, True]) - median(heads[width, False]), 0.0), 4) for width in widths}


def _first(record: FrameRecord, traffic: Traffic) -> bool:
    """Whether another width's head ran before it."""
    return bool(traffic.sweep) and int(record.name) % BLOCK == 0


def _tells(record: FrameRecord, traffic: Traffic) -> bool:
    """Whether a frame was answered alone, by whom it was meant for, and was not the first of its width."""
    alone = record.source != "none" and record.server.batch <= 1 and not record.stepped_in
    return alone and not _first(record, traffic)


def stages(record: FrameRecord, link: LinkTrace) -> tuple[float, ...]:
    """What a frame took, as :data:`STAGES`; the link has to be steady."""
    head_ms = record.whole_ms or record.head_ms
    device_ms = record.prepare_ms + head_ms + record.exit_ms + record.code_ms
    own_ms = max(record.latency_ms - device_ms - record.round_trip_ms, 0.0)
    serve_ms = (record.server.decode_us + record.server.run_us) / 1e3
    hops_ms = max(record.round_trip_ms - serve_ms - _crossing_ms(record, link), 0.0) if record.round_trip_ms else 0.0
    measured = own_ms, record.prepare_ms, head_ms, record.exit_ms, record.code_ms, hops_ms, serve_ms
    return tuple(round(each, 4) for each in measured)


def _crossing_ms(record: FrameRecord, link: LinkTrace) -> float:
    """What a steady link takes for a frame and its answer; of the bytes beside the frame's own, the order will do."""
    up_s = 8 * (record.bytes + 70) / link.up.mean_bits_per_s + link.up_delay_s
    down_s = 8 * 90 / link.down.mean_bits_per_s + link.down_delay_s
    return (up_s + down_s) * 1e3


def _slack_ms(played: Sequence[Played]) -> float:
    """How long before the deadline the exit stepped in where nobody answered, in the middle of all frames."""
    silent = [one for one in played if not one.traffic.sweep]
    early = [SHORT_MS - record.latency_ms for one in silent for record in one.records if record.stepped_in]
    return max(median(early), 0.0) if early else 0.0


def _answer_bytes(bundle: Bundle, task: str, played: Sequence[Played]) -> float:
    """Of an answer, in the mean of all that came; what they say of their time makes them differ by some bytes."""
    outputs = {task: len(bundle.task(task).labels)}
    sizes = [
        answer_bytes(outputs, 1, _timing(record), record.groups_used)
        for one in played
        for record in one.records
        if record.source == "edge"
    ]
    return fmean(sizes) if sizes else 0.0


def _timing(record: FrameRecord) -> Timing:
    said = record.server
    return Timing(said.queue_us, said.decode_us, said.run_us, said.batch, said.queue_depth)


def _report_bytes(bundle: Bundle) -> int:
    """Of a report as a device sends it after some hundred frames."""
    use = pb.BundleUse(bundle_id=bundle.id, answered=300, judged=300, agreed=290, confidence=280.5)
    report = pb.Report(
        frames_answered=300,
        frames_local=30,
        round_trip_us=30_000,
        head_ms=2.5,
        mode=5,
        memory_kib=100_000,
        bundles=[use],
    )
    return 14 + pb.DeviceMessage(report=report).ByteSize()


def batch_ms(bundle: Bundle) -> dict[int, float]:
    """What decoding and running a batch takes by its size, in one thread of this process: the quickest of some."""
    tails, coder = Tails(bundle), bundle.coder()
    mode = bundle.manifest.modes[len(bundle.manifest.modes) // 2]
    frame = _any_frame(bundle, mode.index)

    def once(size: int) -> float:
        begin = time.perf_counter()
        latents, _ = coder.decode_batch([frame.payload] * size, [mode.index] * size, [frame.groups] * size)
        tails.run(latents, np.full(size, mode.index, np.int64), [0] * size)
        return (time.perf_counter() - begin) * 1e3

    return {size: round(_quickest(once, size), 4) for size in BATCHES}


def _quickest(once: Callable[[int], float], size: int) -> float:
    return min(once(size) for _ in range(ROUNDS))


def _any_frame(bundle: Bundle, mode: int) -> Frame:
    """A frame of a mode: one of the bundle's own golden inputs' kind, of noise."""
    spec, latent = bundle.manifest.modes[mode], bundle.manifest.latent
    rng = np.random.default_rng(0)
    symbols = np.rint(rng.normal(0, 0.7, (spec.channels, latent.height, latent.width))).astype(np.int16)
    encoded = bundle.coder().encode(symbols, mode)
    return Frame(mode, len(encoded.group_ends), encoded.payload)
