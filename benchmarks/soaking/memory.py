"""How the memory of a process grows: what it holds at calm moments, and the slope through those.

What a process has in pages of its own goes up and down without a leak. Free blocks stay with it until the C library
gives them back, and those between blocks in use stay after that: with connections that come and go, tens of megabytes
of holes that fill and empty. And a connection is a tenth of a megabyte. So like is compared with like: at a calm moment
nothing is wrong, every device is connected, garbage is collected and free memory given back. Two things are told then:

    pages     that it has of its own; all of it, holes too
    in use    bytes that the C library has given out; Python takes its objects from there too, and what a thread has
              freed does not stay in a cache of its own, which the C library would count as given out (`ENV`): with some
              thirty threads those caches filled by a megabyte an hour. Blocks that are mapped one by one are told
              beside it: they are few and large, and most are onnxruntime's

The slope is the median of the slopes between all pairs of such moments (Theil 1950); where nine in ten of such medians
would lie follows from how the pairs' slopes are spread (Sen 1968, "Estimates of the regression coefficient based on
Kendall's tau"). A step, such as a cache that was filled late, does not turn it.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.soaking.footing import Footing

EVERY_S = 1.0
LEAST_POINTS = 6
NINE_IN_TEN = 1.645
"""Standard deviations of a normal distribution."""
LOOK_S, LONGEST_S = 0.02, 10.0
MB = 1 << 20
ENV = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""Of processes whose memory is to be told."""


class Held(NamedTuple):
    """At a calm moment."""

    time_s: float
    in_use_mb: float
    mapped_mb: float
    """In blocks so large that the C library maps each by itself, whether they were ever written to or not."""
    resident_mb: float
    """Pages of its own, once free memory was given back."""
    sockets: int
    """That it has open: one more or less is a tenth of a megabyte with TLS."""


class Slope(NamedTuple):
    """MB an hour."""

    likely: float
    least: float
    """With nine in ten, at least so much, and at most :attr:`most`."""
    most: float


def anonymous_mb(pid: int) -> float | None:
    """Megabytes that a process has in pages of its own; None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith(("RssAnon:", "VmSwap:"))]
    return sum(map(int, found)) / 1024 if found else None


async def held(footing: Footing, pid: int, leak_mb: float = 0.0) -> Held | None:
    """What it holds once free memory was given back; None if it ended, or has not looked at a clock for ten seconds.

    ``leak_mb``: what it is to lose before.
    """
    footing.give_back(round(leak_mb * MB))
    end_s = time.monotonic() + LONGEST_S
    while not footing.gave_back:
        if anonymous_mb(pid) is None or time.monotonic() > end_s:
            return None
        await asyncio.sleep(LOOK_S)
    resident_mb = anonymous_mb(pid)
    if resident_mb is None:
        return None
    return Held(time.monotonic(), footing.in_use / MB, footing.mapped / MB, resident_mb, _sockets(pid))


def _sockets(pid: int) -> int:
    found = 0
    with suppress(OSError):  # it has ended
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found += str(file.readlink()).startswith("socket:")
    return found


async def watch(pids: Mapping[str, Callable[[], int]], samples: dict[str, list[tuple[float, float]]]) -> None:
    """Sample until it is cancelled: (seconds, MB) by the process' name."""
    while True:
        for name, pid in pids.items():
            if (mb := anonymous_mb(pid())) is not None:
                samples.setdefault(name, []).append((time.monotonic(), mb))
        await asyncio.sleep(EVERY_S)


def slope_mb_per_hour(points: Sequence[tuple[float, float]]) -> Slope | None:
    """How it grows, from (seconds, MB) at calm moments; None where these are too few to say."""
    n = len(points)
    if n < LEAST_POINTS:
        return None
    slopes = sorted(
        3600 * (other[1] - one[1]) / (other[0] - one[0]) for at, one in enumerate(points) for other in points[at + 1 :]
    )
    spread = NINE_IN_TEN * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    least, most = (len(slopes) - spread) / 2, (len(slopes) + spread) / 2
    return Slope(_at(slopes, (len(slopes) - 1) / 2), _at(slopes, least - 1), _at(slopes, most))


def _at(ordered: Sequence[float], rank: float) -> float:
    """Between two ranks, what lies between their values."""
    rank = min(max(rank, 0.0), len(ordered) - 1.0)
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])
