"""What the agent tells the server about itself: a few dozen bytes, every half minute and as it leaves."""

from __future__ import annotations

import os
import time
from collections import Counter, OrderedDict, deque
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from headwater.protos import edge_pb2 as pb

if TYPE_CHECKING:
    from headwater.device.outcome import Made
    from headwater.device.record import FrameRecord, Source

LOOK_BACK_S = 60.0
MOST_USES = 4
"""Bundles that are told of: the last ones that were in use."""
FAULTS = frozenset({pb.STATUS_INVALID_FRAME, pb.STATUS_UNKNOWN_BUNDLE, pb.STATUS_UNKNOWN_TASK, pb.STATUS_INTERNAL})
"""With these a frame is given up though the server heard it."""
_THERMAL = Path("/sys/class/thermal/thermal_zone0/temp")


class _Frame(NamedTuple):
    """What is told of a frame; its whole record has three kilobytes, and a minute may have thousands of them."""

    done_s: float
    mode: int
    head_ms: float
    """0 where no head ran: the whole model did."""
    round_trip_ms: float | None
    """None where no server answered."""


class Reporter:
    """Sums up the records of the last minute."""

    def __init__(self) -> None:
        self._recent: deque[_Frame] = deque(maxlen=4096)
        self._sources: Counter[Source] = Counter()
        self._uses: OrderedDict[bytes, pb.BundleUse] = OrderedDict()

    def add(self, record: FrameRecord, made: Made, status: pb.Status | None) -> None:
        """Count a frame that is done with, and the server's word on it where there is one."""
        round_trip_ms = record.round_trip_ms if record.source == "edge" else None
        self._recent.append(_Frame(time.monotonic(), record.mode, record.head_ms, round_trip_ms))
        self._forget()
        self._sources[record.source] += 1
        use = self._use(made.loaded.bundle_id)
        use.failed += status in FAULTS
        if record.source == "edge" and record.results:
            _count(use, record, made)

    def _forget(self) -> None:
        """Those that are older than a minute."""
        since_s = time.monotonic() - LOOK_BACK_S
        while self._recent and self._recent[0].done_s < since_s:
            self._recent.popleft()

    def use(self, bundle_id: bytes) -> None:
        """A bundle is in use from now on."""
        self._use(bundle_id)
        self._uses.move_to_end(bundle_id)

    def _use(self, bundle_id: bytes) -> pb.BundleUse:
        use = self._uses.setdefault(bundle_id, pb.BundleUse(bundle_id=bundle_id))
        if len(self._uses) > MOST_USES:
            self._uses.popitem(last=False)
        return use

    def report(self) -> pb.Report:
        """The report for now."""
        self._forget()
        heads = [frame.head_ms for frame in self._recent if frame.head_ms]
        round_trips = [frame.round_trip_ms for frame in self._recent if frame.round_trip_ms is not None]
        return pb.Report(
            frames_answered=self._sources["edge"],
            frames_local=self._sources["local"],
            frames_dropped=self._sources["none"],
            round_trip_us=int(median(round_trips) * 1e3) if round_trips else 0,
            head_ms=median(heads) if heads else 0.0,
            mode=self._recent[-1].mode if self._recent else 0,
            memory_kib=resident_kib(),
            temperature_c=_temperature(),
            bundles=self._uses.values(),
        )


def _count(use: pb.BundleUse, record: FrameRecord, made: Made) -> None:
    use.answered += 1
    use.confidence += max(next(iter(record.results.values())).scores.values(), default=0.0)
    for task, own in made.exit_results.items():
        if task in record.results:
            use.judged += 1
            use.agreed += own.label == record.results[task].label


def resident_kib() -> int:
    """Resident memory of this process, KiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _temperature() -> float:
    """The processor's, degrees Celsius; 0 where the machine does not tell."""
    try:
        return int(_THERMAL.read_text(encoding="ascii")) / 1000
    except (OSError, ValueError):
        return 0.0
