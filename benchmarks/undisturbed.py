"""Time as it passes for some processes on one core, without what others take away.

A virtual machine's host takes a core away for milliseconds, unasked, and one turn in a hundred of what takes four
milliseconds meets that: a 99th percentile by the clock on the wall is the neighbours'. At each moment the core runs one
of these processes, or another, or is away, or idles. The first and the last are counted: what the processes spend, by
their own CPU clocks, from which Linux takes what a host has stolen, and for how long the core idled. So a process that
waits, for a timer or for another end, is seen waiting; one that is kept from running is not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

IDLE = "/sys/devices/system/cpu/cpu{core}/cpuidle"


class Undisturbed:
    """Times calls in this process, on one core that it shares with others that work for it.

    Args:
        core: where all of them run, by number.
        others: their process ids.
        idle: where the kernel tells how long a core idled; where it does not, time is the wall's.
    """

    def __init__(self, core: int, *others: int, idle: str = IDLE) -> None:
        self._others = [(~pid << 3) | 2 for pid in others]  # Linux' id of a process' own clock: see clock_getcpuclockid
        with ExitStack() as stack:
            self._idle = [
                stack.enter_context(path.open("rb", buffering=0))
                for path in sorted(Path(idle.format(core=core)).glob("state*/time"))
            ]
            self._files = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    @property
    def known(self) -> bool:
        """Whether the kernel tells what is needed."""
        return bool(self._idle)

    def seconds(self, call: Callable[[], T]) -> tuple[T, float, float]:
        """What a call returned, the time that it took undisturbed, and by the wall."""
        elsewhere, own, began = self._elsewhere_s(), time.process_time(), time.perf_counter()
        found = call()
        wall, own = time.perf_counter() - began, time.process_time() - own
        return found, own + self._elsewhere_s() - elsewhere if self.known else wall, wall

    def _elsewhere_s(self) -> float:
        spent = sum(time.clock_gettime(clock) for clock in self._others)
        return spent + 1e-6 * sum(int(os.pread(file.fileno(), 32, 0)) for file in self._idle)
