"""What one link's device measured, summed up: accuracy, bytes, latency and where the time went."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np

from headwater.simulations.codecs import standard_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.device.record import FrameRecord
    from headwater.simulations.lane import Passage
    from headwater.simulations.samples import Sample
    from headwater.simulations.trace import LinkTrace

STAGES = ("head", "coding", "waiting", "uplink", "queue", "decode", "run", "downlink")
MATCH_S = 0.003
"""A record's time is to the millisecond: an answer's last bytes may seem to come so much after it was there."""


@dataclass
class Tally:
    """One link and its device's frames; grows while the demo runs."""

    link: LinkTrace
    title: str
    fps: float
    task: str
    samples: Mapping[str, Sample]
    """By the name that a record gives a picture."""
    records: list[FrameRecord] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    """What crossed the link; times by the monotonic clock."""
    wall_offset_s: float = 0.0
    """What the wall clock shows more than the monotonic one."""
    note: str = ""
    """What went otherwise than planned."""

    def add(self, record: FrameRecord) -> None:
        """Count one frame."""
        self.records.append(record)

    # ------------------------------------------------------------ running totals

    @property
    def answered(self) -> list[FrameRecord]:
        """Frames with an answer."""
        return [record for record in self.records if record.status == "ok"]

    def truth(self, record: FrameRecord) -> str:
        """The right class of a frame's picture."""
        return self.samples[record.name].label

    def right(self, record: FrameRecord) -> bool:
        """Whether the answer is right; a frame without one is not."""
        return record.status == "ok" and record[self.task].label == self.truth(record)

    @property
    def accuracy(self) -> float:
        """Share of right answers among those given; NaN before the first."""
        answered = self.answered
        return fmean(self.right(record) for record in answered) if answered else math.nan

    @property
    def error(self) -> float:
        """Standard error of the accuracy."""
        return standard_error(self.accuracy, len(self.answered))

    @property
    def mean_bytes(self) -> float:
        """Of a frame with its header; NaN before the first."""
        answered = self.answered
        return fmean(record.bytes for record in answered) if answered else math.nan

    @property
    def modes(self) -> Counter[tuple[float, int]]:
        """How often each (width, gain) was coded, or its width used by the local exit."""
        return Counter((record.width, record.gain) for record in self.records if record.head_ms)

    @property
    def sources(self) -> Counter[str]:
        """Who answered how often."""
        return Counter(record.source for record in self.records)

    # ------------------------------------------------------------ times

    @property
    def steady(self) -> list[FrameRecord]:
        """Answered frames whose picture was taken after the first answer had come.

        Those before it waited for the connection, which happens once and not in each frame.
        """
        answered = self.answered
        if not answered:
            return []
        first_s = min(_answered_s(record) for record in answered)
        return [record for record in answered if _taken_s(record) >= first_s]

    @property
    def served(self) -> list[FrameRecord]:
        """Steady frames that the server answered: the others' time went elsewhere."""
        return [record for record in self.steady if record.source == "edge"]

    def latency_ms(self, share: float) -> float:
        """Quantile of the steady frames' latency, by rank; NaN without any."""
        ordered = sorted(record.latency_ms for record in self.steady)
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan

    @property
    def connecting_s(self) -> float:
        """From the first picture to the first answer of the server; NaN before it."""
        answered = [record for record in self.answered if record.source == "edge"]
        if not answered:
            return math.nan
        return min(map(_answered_s, answered)) - min(map(_taken_s, self.records))

    def stages_ms(self) -> dict[str, float]:
        """Mean time of a served frame in each of :data:`STAGES`; they sum up to its latency. Empty without frames.

        The downlink's share of the network's time is what the proxy saw the answer's bytes take; the uplink has the
        rest, and with it what gRPC takes at both ends.
        """
        rows = [self.stages_of(record) for record in self.served]
        if not rows:
            return {}
        return {stage: fmean(row[stage] for row in rows) for stage in STAGES}

    def stages_of(self, record: FrameRecord) -> dict[str, float]:
        """One served frame's ms in each stage."""
        head = record.prepare_ms + record.head_ms + record.exit_ms
        server = record.server
        network = max(record.round_trip_ms - server.total_ms, 0.0)
        downlink = min(self._downlink_ms(record), network)
        waiting = max(record.latency_ms - head - record.code_ms - record.round_trip_ms, 0.0)
        device = [head, record.code_ms, waiting, network - downlink]
        times = [*device, server.queue_us / 1e3, server.decode_us / 1e3, server.run_us / 1e3, downlink]
        return dict(zip(STAGES, times, strict=True))

    def _downlink_ms(self, record: FrameRecord) -> float:
        """How long the last bytes to come before an answer was there took."""
        there_s = _answered_s(record) - self.wall_offset_s + MATCH_S
        times, lengths = self._down
        at = bisect_right(times, there_s) - 1
        return lengths[at] * 1e3 if at >= 0 else 0.0

    @cached_property
    def _down(self) -> tuple[list[float], list[float]]:
        """(when delivered, how long it took) of all that came down the link, in order."""
        down = sorted((one.delivered_s, one.delivered_s - one.arrived_s) for one in self.passages if one.way == "down")
        return [when for when, _ in down], [length for _, length in down]

    # ------------------------------------------------------------ on the wire, and beside codecs

    def wire_bytes(self, way: str) -> float:
        """What crossed the link a frame, all that gRPC and HTTP/2 add included; NaN without frames."""
        total = sum(passage.size for passage in self.passages if passage.way == way)
        return total / len(self.records) if self.records else math.nan

    @property
    def added_bytes(self) -> float:
        """What gRPC and HTTP/2 add to a frame on its way up, by the median frame; NaN without served frames."""
        writes: Counter[float] = Counter()
        for passage in self.passages:
            if passage.way == "up":
                writes[passage.arrived_s] += passage.size
        times = sorted(writes)
        added = [writes[_nearest(times, self._written_s(record))] - record.bytes for record in self.served if times]
        return median(added) if added else math.nan

    def _written_s(self, record: FrameRecord) -> float:
        """When the device wrote a frame, by the monotonic clock."""
        return _answered_s(record) - record.round_trip_ms / 1e3 - self.wall_offset_s

    def first_of(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Frames of the first `count` samples: sample's index [n], right or not [n], bytes [n], ascending by sample."""
        rows = sorted(
            (self.samples[record.name].index, self.right(record), record.bytes)
            for record in self.answered
            if self.samples[record.name].index < count
        )
        table = np.array(rows, np.int64).reshape(-1, 3)
        return table[:, 0], table[:, 1].astype(bool), table[:, 2]

    def confusion(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Counts by (true class, answered class), [K, K]."""
        table = np.zeros((len(labels), len(labels)), np.int64)
        for record in self.answered:
            table[labels.index(self.truth(record)), labels.index(record[self.task].label)] += 1
        return table


def _nearest(times: Sequence[float], when: float) -> float:
    """The one of ascending times that is nearest."""
    at = bisect_right(times, when)
    return min(times[max(at - 1, 0) : at + 1], key=lambda time: abs(time - when))


def _taken_s(record: FrameRecord) -> float:
    return datetime.fromisoformat(record.taken).timestamp()


def _answered_s(record: FrameRecord) -> float:
    return _taken_s(record) + record.latency_ms / 1e3
