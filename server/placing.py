"""Which core does what, on a machine that has nothing to do but serve.

A worker's batch is milliseconds of arithmetic; a message is some ten microseconds of the event loop, but thousands come
a second, and each wakes a thread. Left to itself the system lets those threads cut in on whichever core they slept
near: under five times the load that it can serve, a server on two cores lost a tenth of its goodput by that, and its
refusals, which are due at once, waited behind batches. So each worker gets a core of its own, and everything else of
the process shares those that are left.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from headwater.compression.errors import SettingsError


@dataclass(frozen=True)
class Placing:
    """Cores by number, none of them twice."""

    workers: tuple[int, ...]
    """One a worker."""
    others: frozenset[int]
    """Of the event loop, gRPC's threads and whatever they start."""

    @classmethod
    def of(cls, workers: int) -> Placing:
        """Place `workers` on the cores that this process may use; raises SettingsError where none is left beside."""
        cores = sorted(os.sched_getaffinity(0))
        if workers >= len(cores):
            raise SettingsError(
                f"pin gives {workers} workers a core each and needs one more for everything else; this process may use "
                f"{len(cores)}. Set fewer workers (--workers), or leave pin out."
            )
        return cls(tuple(cores[-workers:]), frozenset(cores[:-workers]))

    def keep_off(self) -> None:
        """Move the threads of this process, and with them all that they start from now on, off the workers' cores."""
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(thread.name), self.others)
