"""A device whose processor is suddenly wanted by others: how long until its frames are in time again.

The device's process is tied to one core. On the same core, busy processes are started for a while and then ended, on a
link that is in nobody's way. Where the machine has a second core, everything else is kept off the first.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import claims
from benchmarks.deadlines.plan import OURS
from benchmarks.deadlines.rig import Contender, Job
from benchmarks.deadlines.verdicts import NAME
from headwater.simulations.trace import LinkTrace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence

    from benchmarks.claims import Claim
    from benchmarks.deadlines.pictures import Pictures
    from benchmarks.deadlines.rig import Rig
    from headwater.device.record import FrameRecord

BUSY = 4
"""Processes on the device's core."""
BEFORE_S, AFTER_S = 2.0, 1.0
IN_A_ROW = 5
FPS = 10.0
DEADLINE_MS = 100
LINK = LinkTrace.constant("near", 1e6, delay_s=0.005)


@dataclass(frozen=True)
class Stressed:
    """What became of the frames before, under and after the stress."""

    before: tuple[FrameRecord | None, ...]
    during: tuple[tuple[float, FrameRecord | None], ...]
    """Seconds from its begin to a picture's being taken, and the record."""
    after: tuple[FrameRecord | None, ...]

    @property
    def in_time(self) -> list[bool]:
        """Of the frames under stress."""
        return [record is not None and record.in_time for _, record in self.during]

    @property
    def back_s(self) -> float | None:
        """From the stress's begin to the first of :data:`IN_A_ROW` pictures whose answers are all in time.

        None if there are no such pictures before its end.
        """
        well = self.in_time
        back = (at for at in range(len(well) - IN_A_ROW + 1) if all(well[at : at + IN_A_ROW]))
        first = next(back, None)
        return None if first is None else self.during[first][0] if first else 0.0


async def run(rig: Rig, pictures: Pictures, seconds: float) -> Stressed:
    """Put the device under stress for so many seconds."""
    count = round((BEFORE_S + seconds + AFTER_S) * FPS)
    samples = [pictures.samples[at % len(pictures)] for at in range(count)]
    job = Job(Contender(OURS, "ours"), LINK, samples, DEADLINE_MS, FPS)
    worker, began = await rig.worker(0), asyncio.get_running_loop().create_future()
    cores = sorted(os.sched_getaffinity(0))
    with tied(worker.pid, cores[:1]), tied(os.getpid(), cores[1:] or cores), tied(rig.server.pid, cores[1:] or cores):
        running = asyncio.create_task(rig.wave([job], lambda: began.set_result(time.monotonic())))
        first_s = await began + job.due_s(0)
        await asyncio.sleep(max(first_s + BEFORE_S - time.monotonic(), 0))
        async with busy(cores[0]):
            begin_s = time.monotonic()
            await asyncio.sleep(seconds)
            end_s = time.monotonic()
        (ran,) = await running
    due_s = [first_s + number / FPS for number in range(count)]
    return Stressed(
        tuple(ran.records.get(at) for at, due in enumerate(due_s) if due < begin_s),
        tuple((due - begin_s, ran.records.get(at)) for at, due in enumerate(due_s) if begin_s <= due < end_s),
        tuple(ran.records.get(at) for at, due in enumerate(due_s) if due >= end_s),
    )


@contextmanager
def tied(pid: int, cores: Sequence[int]) -> Iterator[None]:
    """Let a process, with all its threads, run on these cores only."""
    before = os.sched_getaffinity(pid)
    _tie(pid, cores)
    try:
        yield
    finally:
        _tie(pid, before)


def _tie(pid: int, cores: Collection[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)


@asynccontextmanager
async def busy(core: int) -> AsyncIterator[None]:
    """Keep a core busy with processes that want all of it."""
    loop = ["sh", "-c", "while :; do :; done"]
    processes = [await asyncio.create_subprocess_exec(*loop) for _ in range(BUSY)]
    try:
        for process in processes:
            _tie(process.pid, [core])
        yield
    finally:
        for process in processes:
            process.kill()
            await process.wait()


def claim(stressed: Stressed) -> Claim:
    """How soon its frames were in time again."""
    under = [record for _, record in stressed.during]
    print(
        f"CPU stress: head {_heads(stressed.before)} before, {_heads(under)} under it, {_heads(stressed.after)} after; "
        f"frames by width and source {_kinds(stressed.before)} before, {_kinds(under)} under it, "
        f"{_kinds(stressed.after)} after; {stressed.in_time.count(False)} of {len(stressed.in_time)} missed under it"
    )
    peer = f"{BUSY} busy processes on the device's core, deadline {DEADLINE_MS} ms, {len(stressed.during)} frames"
    back_s = stressed.back_s
    if back_s is None:  # it lasts for more than the target, so the claim fails
        back_s, peer = stressed.during[-1][0], f"{peer}, not before it ended"
    text = f"CPU stress, until {IN_A_ROW} frames in a row are in time"
    return claims.at_most(NAME, text, back_s, unit="s", target=1, peer=peer)


def _heads(records: Iterable[FrameRecord | None]) -> str:
    times_ms = [record.head_ms for record in records if record is not None and record.head_ms]
    return f"{median(times_ms):.1f} ms (slowest {max(times_ms):.0f})" if times_ms else "none"


def _kinds(records: Iterable[FrameRecord | None]) -> str:
    counts = Counter(
        "nothing" if record is None or not record.head_ms else f"{record.width:g} {record.source}" for record in records
    )
    return ", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items()))
