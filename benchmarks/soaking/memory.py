"""How the memory of a process grows: its anonymous pages, sampled, and the slope of their medians.

What a process maps of files comes and goes with the system's mood; what it allocates is what leaks. The slope is the
median of the slopes between all pairs of points (Theil and Sen), each point the median of ten seconds: an outlier, such
as two hundred reconnections at once, does not turn it.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

EVERY_S = 1.0
POINT_S = 10.0
LEAST_POINTS = 12


def anonymous_mb(pid: int) -> float | None:
    """Megabytes that a process has in pages of its own; None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith(("RssAnon:", "VmSwap:"))]
    return sum(map(int, found)) / 1024 if found else None


async def watch(pids: Mapping[str, Callable[[], int]], samples: dict[str, list[tuple[float, float]]]) -> None:
    """Sample until it is cancelled: (seconds, MB) by the process' name."""
    while True:
        for name, pid in pids.items():
            if (mb := anonymous_mb(pid())) is not None:
                samples.setdefault(name, []).append((time.monotonic(), mb))
        await asyncio.sleep(EVERY_S)


def points(samples: Sequence[tuple[float, float]], from_s: float) -> list[tuple[float, float]]:
    """Medians of ten seconds each, from that moment on."""
    buckets: dict[int, list[float]] = {}
    for now_s, mb in samples:
        if now_s >= from_s:
            buckets.setdefault(int((now_s - from_s) // POINT_S), []).append(mb)
    return [(from_s + (at + 0.5) * POINT_S, median(found)) for at, found in sorted(buckets.items())]


def slope_mb_per_hour(samples: Sequence[tuple[float, float]], from_s: float) -> float | None:
    """How it grows after the warm-up; None where that was too short to say."""
    found = points(samples, from_s)
    if len(found) < LEAST_POINTS:
        return None
    pairs = [(one, other) for at, one in enumerate(found) for other in found[at + 1 :]]
    return 3600 * median((other[1] - one[1]) / (other[0] - one[0]) for one, other in pairs)
