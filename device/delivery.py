"""Kept frames on their way from the spool to a server's archive, without harm to the frames that somebody waits for.

    spool ──a few ahead──> ready ──next()──> flying ──stored──> deleted from the spool
                             ▲                 │
                             └── refused, or the connection ends

A kept frame is written when no other frame waits or flies: so many that the link carries them in a tenth of a second,
by what the last ones took, and a few at most. So a frame that comes then waits no longer than that. On a device whose
link is never without frames, kept ones go one at a time, a quarter of the bytes that those have, and none while frames
are being given up.

Times are those of ``time.monotonic()``, in seconds, and come from outside.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from headwater.device.spool import Spool
    from headwater.device.window import Window
    from headwater.protos import edge_pb2 as pb

T = TypeVar("T")

FEW = 16
"""Kept frames that fly at most."""
FLIGHT_S = 0.1
"""What those may take on the link."""
SHARE = 0.25
"""Of the live frames' bytes, where those leave no gap."""
MOST_CREDIT = 65536
LONGEST_HOLD_S = 300.0
"""However long a server that refuses asks for."""
LOOK_S = 60.0
"""How often the spool is looked through for what is too old, if nothing else happens."""
AGAIN_S = 5.0
"""After a disk did not take that delivered frames are gone."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Flight:
    kept: pb.KeptFrame
    size: int
    ahead: int
    """Bytes of kept frames that flew when it was written."""
    written_s: float


class Delivery:
    """The kept frames of one link; used on its event loop, but for the spool, which is worked on in threads."""

    def __init__(self, spool: Spool, rng: random.Random, wake: Callable[[], None]) -> None:
        """``wake`` is called when :meth:`next` may have something that it had not."""
        self.flying: dict[bytes, _Flight] = {}
        self._spool = spool
        self._rng = rng
        self._wake = wake
        self._ready: deque[pb.KeptFrame] = deque()
        self._stored: list[bytes] = []
        self._more = asyncio.Event()
        self._takes = False
        self._limit = 0.0
        self._credit = 0.0
        self._expired = 0
        self._hold_until_s = 0.0
        self._look_s = 0.0
        self._job: asyncio.Future[Any] | None = None
        self._turned = asyncio.Event()

    # ------------------------------------------------------------ what may be written

    def next(self, window: Window, now_s: float) -> pb.KeptFrame | None:
        """Take the kept frame to write now; None if there is none, or others come first."""
        if not self._ready or not self._takes or now_s < self._hold_until_s or not window.quiet(now_s):
            return None
        size, ahead = self._ready[0].ByteSize(), sum(flight.size for flight in self.flying.values())
        if not (self._beside(window, size) if window.flying else self._alone(ahead + size)):
            return None
        kept = self._ready.popleft()
        self.flying[kept.id] = _Flight(kept, size, ahead, now_s)
        if len(self._ready) < FEW:
            self._more.set()
        return kept

    def _alone(self, total: int) -> bool:
        return not self.flying or (len(self.flying) < FEW and total <= self._limit)

    def _beside(self, window: Window, size: int) -> bool:
        """Whether one may go although live frames fly; it uses up their credit."""
        if window.counts.expired != self._expired:
            self._expired, self._credit = window.counts.expired, 0.0
        if self.flying or self._credit < size:
            return False
        self._credit -= size
        return True

    def live_written(self, size: int) -> None:
        """A frame, or a part of one, of so many bytes was written."""
        self._credit = min(self._credit + SHARE * size, MOST_CREDIT)

    def held_for_s(self, window: Window, now_s: float) -> float | None:
        """How long writing is held because the server refused or is full; None if it is not."""
        until_s = max(self._hold_until_s, window.hold_until_s)
        return until_s - now_s if self._ready and until_s > now_s else None

    # ------------------------------------------------------------ what the server says

    def greeted(self, *, keeps: bool) -> None:
        """Begin a connection to a server that takes kept frames, or does not."""
        self._takes = keeps
        self._limit = self._credit = 0.0
        self._hold_until_s = 0.0
        self._more.set()

    def lost(self) -> None:
        """End a connection: what flew is to be delivered again."""
        self._takes = False
        self._back(list(self.flying))
        self._turned.set()

    def acknowledged(self, ack: pb.KeptAck, now_s: float) -> None:
        """Take the server's word."""
        for each in ack.stored:
            if (flight := self.flying.pop(each, None)) is not None:
                self._limit = FLIGHT_S * (flight.ahead + flight.size) / max(now_s - flight.written_s, 1e-6)
                self._stored.append(each)
        if ack.refused:
            hold_s = min(ack.retry_after_ms / 1e3, LONGEST_HOLD_S) * self._rng.uniform(1.0, 1.5)
            self._hold_until_s = now_s + max(hold_s, 1.0)
            _log.warning("the server refused kept frames: %s; trying again in %.0f s", ack.detail, hold_s)
            self._back(list(ack.refused))
        self._more.set()

    def _back(self, ids: list[bytes]) -> None:
        flights = [flight for each in ids if (flight := self.flying.pop(each, None)) is not None]
        self._ready.extendleft(flight.kept for flight in reversed(flights))

    # ------------------------------------------------------------ the spool

    async def run(self) -> None:
        """Fetch frames from the spool and delete those that are stored, until it is cancelled."""
        loop = asyncio.get_running_loop()
        self._spool.on_kept = lambda: loop.call_soon_threadsafe(self._more.set)
        try:
            while True:
                await self._turn()
        finally:
            if self._job is not None:
                await asyncio.wait([self._job])  # a thread goes on though nobody waits for it
            self._spool.on_kept = lambda: None
            self._spool.release()

    async def linger(self, most_s: float) -> None:
        """Before the end: wait until the spool is empty, for so long at most; not where nobody takes anything."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while self._takes and self._spool.stats.frames:
                    self._turned.clear()
                    await self._turned.wait()

    async def _turn(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S if self._spool.undeleted else LOOK_S):
                await self._more.wait()
        self._more.clear()
        if (now_s := asyncio.get_running_loop().time()) >= self._look_s:
            self._look_s = now_s + LOOK_S
            await self._on_disk(self._spool.expire)
        if self._stored or self._spool.undeleted:
            stored, self._stored = self._stored, []
            await self._on_disk(partial(self._spool.delivered, stored))
        if self._takes and len(self._ready) < FEW:
            self._ready.extend(await self._on_disk(partial(self._spool.oldest, FEW)))
        self._wake()
        self._turned.set()

    async def _on_disk(self, work: Callable[[], T]) -> T:
        job = asyncio.ensure_future(asyncio.to_thread(work))
        self._job = job
        return await asyncio.shield(job)
