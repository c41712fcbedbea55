"""Pictures at a frame rate, from a blocking source to the event loop.

A thread reads and decodes, the loop takes. What happens when the loop takes more slowly than the source gives depends
on the source: a *live* one keeps only its newest picture, and counts those that it overwrites; a *file* waits, so that
every picture comes. A live source that breaks is opened again, with growing pauses; if its very first opening fails,
that is the user's mistake and ends the feed.

    source ──shots──> thread: rate, decode ──slot of one──> ``async for picture in feed``
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from headwater.compression.errors import DataError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from PIL import Image

    from headwater.device.sources import Shot, Source

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
JOIN_TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A decoded picture with the moment it was taken."""

    name: str
    image: Image.Image
    truth: Mapping[str, str]
    taken_s: float
    """``time.monotonic()`` when it was taken: read from a live source, or handed over from a file."""


class Feed:
    """``async with Feed(source, fps) as feed: async for picture in feed: ...``."""

    def __init__(self, source: Source, fps: float | None = None, *, repeat: bool = False) -> None:
        """``fps`` None takes pictures as they come; ``repeat`` begins a file source again at its end."""
        self.source = source
        self.dropped = 0
        """Pictures of a live source that were overwritten by a newer one before they were taken."""
        self.skipped = 0
        """Pictures that could not be decoded."""
        self._period_s = 1 / fps if fps else 0.0
        self._repeat = repeat and not source.live
        self._due_s: float | None = None
        self._taken = 0
        self._stop = threading.Event()
        self._lock = threading.Condition()
        self._slot: Picture | None = None
        self._ended = False
        self._error: Exception | None = None
        self._arrived = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        # A daemon: neither a silent camera nor a blocked read may keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="headwater-source", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        await asyncio.to_thread(self._thread.join, JOIN_TIMEOUT_S)

    def stop(self) -> None:
        """Let the iteration end at once, as if the source had ended; call it on the event loop."""
        self._stop.set()
        self.source.close()
        with self._lock:
            self._slot, self._ended = None, True
            self._lock.notify_all()
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Picture:
        """Wait for the next picture; raises :class:`SourceError` when the source failed for good."""
        while True:
            picture = self._take()
            if picture is not None:
                return picture
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._arrived.wait()

    def _take(self) -> Picture | None:
        with self._lock:
            picture, self._slot = self._slot, None
            self._arrived.clear()
            if self._ended:
                self._arrived.set()
            self._lock.notify_all()
        if picture is None or self.source.live:
            return picture
        return Picture(picture.name, picture.image, picture.truth, time.monotonic())

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        error: Exception | None = None
        try:
            for shot in self._shots():
                self._handle(shot)
                if self._stop.is_set():
                    break
        # Whatever ends the thread must reach the loop, which would otherwise wait for ever.
        except Exception as caught:  # noqa: BLE001
            error = caught
        with self._lock:
            if not self._stop.is_set():
                self._error = error
            self._ended = True
        self._wake()

    def _handle(self, shot: Shot) -> None:
        taken_s = time.monotonic()
        due_s = taken_s if self._due_s is None else self._due_s
        # A camera of just the wanted rate is early now and then; a quarter of a period lets it be.
        if self.source.live and taken_s < due_s - self._period_s / 4:
            return  # faster than was asked for, which is no drop
        try:
            image = shot.read()
        except DataError as error:
            self.skipped += 1
            _log.warning("skipped %s: %s", shot.name, error)
            return
        if not self.source.live:
            self._stop.wait(max(due_s - time.monotonic(), 0))
        # Never due in the past: after a wait pictures do not come in a burst to catch up.
        self._due_s = max(due_s + self._period_s, time.monotonic())
        self._taken += 1
        self._put(Picture(shot.name, image, shot.truth, taken_s))

    def _put(self, picture: Picture) -> None:
        with self._lock:
            if self.source.live:
                self.dropped += self._slot is not None
            else:
                self._lock.wait_for(lambda: self._slot is None or self._stop.is_set())
            self._slot = None if self._stop.is_set() else picture
        self._wake()

    def _wake(self) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._stop.set()

    def _shots(self) -> Iterator[Shot]:
        pause_s = FIRST_PAUSE_S
        opened = False
        while True:
            try:
                for shot in self.source.shots():
                    opened, pause_s = True, FIRST_PAUSE_S
                    yield shot
            except SourceError as error:
                if not (self.source.live and opened):
                    raise
                _log.warning("%s; opening it again in %g s", error, pause_s)
            else:
                self._end_of_pass()
                if not (self.source.live or self._repeat):
                    return
            if self._stop.is_set() or (self.source.live and self._stop.wait(pause_s)):
                return
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _end_of_pass(self) -> None:
        if not (self.source.live or self._taken or self._stop.is_set()):
            raise SourceError(f"the source gave no readable picture; {self.skipped} files were skipped")
