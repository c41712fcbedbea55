"""One direction of a link: the trace's rate turned into the time at which each chunk leaves."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from headwater.simulations.trace import Trace

CHUNK_S = 0.02
LEAST_CHUNK, MOST_CHUNK = 16, 16384

Way = Literal["up", "down"]


@dataclass(frozen=True)
class Passage:
    """One chunk that crossed; times in s by the event loop's clock, which is ``time.monotonic``."""

    way: Way
    size: int
    arrived_s: float
    """When it stood at the sender's modem."""
    delivered_s: float
    """When it was due at the other side."""


class Lane:
    """One direction of a link: carries chunks in turn, at the trace's rate."""

    def __init__(self, trace: Trace, delay_s: float = 0.0) -> None:
        """Start the trace now; needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._trace = trace
        self._turn = asyncio.Lock()  # first come, first served: connections take turns by the chunk
        self._open = asyncio.Event()
        self._open.set()
        self._timer: asyncio.Future[bool] | None = None
        self.origin_s = self._since_s = self._loop.time()
        """When the trace's time 0 was, by the event loop's clock."""
        self.free_at_s = self.origin_s
        """When the last chunk has left."""
        self.delay_s = delay_s
        """Added to each chunk from now on; may be changed at any time, and order is kept."""
        self.bytes = 0
        """Carried so far, all connections together."""

    @property
    def trace(self) -> Trace:
        """The rate over time; a new one starts at its own time 0 and counts from the next byte."""
        return self._trace

    @trace.setter
    def trace(self, trace: Trace) -> None:
        self._trace = trace
        self.origin_s = self._since_s = self._loop.time()
        self._interrupt()

    @property
    def held(self) -> bool:
        """Whether nothing may leave at present."""
        return not self._open.is_set()

    def hold(self) -> None:
        """Let nothing leave until :meth:`release`; what has left still arrives. The trace's time goes on."""
        self._open.clear()
        self._interrupt()

    def release(self) -> None:
        """End a stall; what was underway when it began starts again."""
        if self.held:
            self._since_s = self._loop.time()
            self._open.set()

    async def opened(self) -> None:
        """Wait until the lane is not held."""
        await self._open.wait()

    @property
    def chunk_bytes(self) -> int:
        """Size of the chunks that the present rate asks for."""
        rate = self._trace.bits_per_s(self._loop.time() - self.origin_s) or self._trace.mean_bits_per_s
        return int(min(max(rate / 8 * CHUNK_S, LEAST_CHUNK), MOST_CHUNK))

    async def carry(self, arrived_s: float, size: int) -> float:
        """Wait for the turn and the time of `size` bytes that came at `arrived_s`; returns when they are delivered.

        An end of a connection has size 0: it takes no time but waits its turn, and for a stall to end.
        """
        async with self._turn:
            while True:
                while self.held:  # again, if it was held once more before this task ran
                    await self._open.wait()
                begin = max(arrived_s, self.free_at_s, self._since_s)
                left = self.origin_s + self._trace.finish(begin - self.origin_s, size)
                if await self._reached(left):
                    break
            self.free_at_s = left
        self.bytes += size
        return left + self.delay_s

    async def _reached(self, when: float) -> bool:
        """Sleep until then; False when the lane was changed meanwhile."""
        if when <= self._loop.time():
            return not self.held
        self._timer = self._loop.create_future()
        handle = self._loop.call_at(when, self._wake) if math.isfinite(when) else None
        try:
            return await self._timer
        finally:
            self._timer = None
            if handle is not None:
                handle.cancel()

    def _interrupt(self) -> None:
        self._wake(reached=False)

    def _wake(self, *, reached: bool = True) -> None:
        if self._timer is not None and not self._timer.done():
            self._timer.set_result(reached)
