"""When a chunk of a large transfer may go: in the gaps that frames leave, on a device's line and in this process.

    a device's line    while one of its frames is being answered no chunk is written, but a short one after a while;
                       where frames came lately, chunks are short, so that the next frame does not wait for long
    this process       to read, hash and write a chunk takes processor time that every device's frames need. Where any
                       came lately, chunks are small, one is under way at a time (but on slow lines), and each waits
                       for a moment without a batch, though not for long: a server that never rests carries twenty a
                       second

Without the second rule the threads that move bytes for a few devices each get as much of a core as the one that
answers frames: beside two devices that take part in rounds, one answer in twenty took twice its time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from headwater.compression.transfer import CHUNK_S, MOST_BYTES

if TYPE_CHECKING:
    from headwater.server.session import Session

PATIENCE_S = 2.0
"""So long a chunk waits for a moment without frames of its device."""
BESIDE_S = 0.02
"""What a chunk may take where there are frames of its device."""
LATELY_S = 5.0
"""Frames that came in this time are expected to go on coming."""
REST_S = 0.05
"""So long a chunk waits for a moment without a batch of anybody's."""
HOLD_S = 0.02
"""How long one chunk may keep others from being sent: one that takes longer is on its line, not in this process."""
BUSY_BYTES = 1 << 15
"""Of a chunk where anybody's frames came lately: a frame that comes while one is on its way waits for a few tenths of a
millisecond. With four times as much, one answer in twenty took a quarter longer beside rounds; these take twice their
time so, but only as long as there are frames."""


class Frames(Protocol):
    """Whose work goes first: the batcher."""

    submitted_s: float
    """When the last frame came, by the event loop's clock."""

    async def idle(self) -> None:
        """Wait until no frame waits or is being answered."""


class Hold:
    """A lock that is held until it is let go of for the first time."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock: asyncio.Lock | None = lock

    def end(self) -> None:
        """Let go."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


class Gaps:
    """Finds them; used on the event loop."""

    def __init__(self, frames: Frames, sessions: Callable[[int], Iterable[Session]]) -> None:
        """``sessions`` gives those of a device, by its node id."""
        self._frames = frames
        self._sessions = sessions
        self._turn = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    @property
    def most_bytes(self) -> int:
        """Of a chunk now, whatever its line could carry."""
        return BUSY_BYTES if self._lately(self._frames.submitted_s) else MOST_BYTES

    async def line(self, node: int) -> float:
        """Wait for a moment in which no frame of the device is being answered; how long the line may be held then."""
        sessions = list(self._sessions(node))
        try:
            async with asyncio.timeout(PATIENCE_S):
                for session in sessions:
                    await session.quiet()
        except TimeoutError:
            return BESIDE_S
        return BESIDE_S if any(self._lately(session.frame_s) for session in sessions) else CHUNK_S

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Send and take one chunk inside: at once where nobody sends frames, else alone, begun between batches."""
        if not self._lately(self._frames.submitted_s):
            yield
            return
        await self._turn.acquire()
        hold = Hold(self._turn)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REST_S):
                    await self._frames.idle()
            self._loop.call_later(HOLD_S, hold.end)
            yield
        finally:
            hold.end()

    def _lately(self, then_s: float) -> bool:
        return self._loop.time() - then_s < LATELY_S
