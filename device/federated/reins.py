"""When the training process has to stand still: while frames want the processor, or mains or cold are waited for.

The process has the lowest priority anyway; but on a device with several cores it would run beside the head, and share
its caches and memory with it. So it is stopped while the head works, and goes on in the gaps.

A device whose head never rests trains as well: of every :data:`PATIENCE_S` in which there was hardly a gap, training
has :data:`SLICE_S`, whatever the frames do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal["frames", "surroundings"]

PATIENCE_S, SLICE_S = 2.0, 0.1


class Reins:
    """Holds one process; used on the event loop."""

    def __init__(self, pull: Callable[[bool], None], patience_s: float = PATIENCE_S) -> None:
        """Prepare to hold a process.

        Args:
            pull: stops the process (True), or lets it go on (False).
            patience_s: how long frames may keep it from running at all.
        """
        self._pull = pull
        self._patience_s = patience_s
        self._holds: set[Reason] = set()
        self._works = self._stopped = self._has_slice = False
        self._timer: asyncio.TimerHandle | None = None
        self._ran_s, self._went_s = 0.0, time.monotonic()

    def begin(self) -> None:
        """The process begins to work; a new one runs."""
        self._works, self._stopped = True, False
        self._went_s = time.monotonic()
        self._look()

    def end(self) -> None:
        """The process has done its work, or is gone: nothing needs to hold it."""
        self._works = self._has_slice = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._look()

    def hold(self, reason: Reason) -> None:
        """Let it stand still until it is released."""
        self._holds.add(reason)
        self._look()

    def release(self, reason: Reason) -> None:
        """Take back a :meth:`hold`."""
        self._holds.discard(reason)
        self._look()

    def _look(self) -> None:
        reasons = self._holds - {"frames"} if self._has_slice else self._holds
        stop = self._works and bool(reasons)
        if stop and self._timer is None and "frames" in reasons:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._lose_patience, self._ran())
        if stop != self._stopped:
            self._ran_s, self._went_s = self._ran(), time.monotonic()
            self._stopped = stop
            self._pull(stop)

    def _lose_patience(self, ran_s: float) -> None:
        """It is so long ago that frames first held it; ``ran_s`` is what it had run for until then."""
        self._has_slice = self._ran() - ran_s < SLICE_S
        self._timer = asyncio.get_running_loop().call_later(SLICE_S, self._end_slice) if self._has_slice else None
        self._look()

    def _end_slice(self) -> None:
        self._has_slice, self._timer = False, None
        self._look()

    def _ran(self) -> float:
        """How long it has run, seconds."""
        return self._ran_s + (0.0 if self._stopped else time.monotonic() - self._went_s)
