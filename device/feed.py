"""Pictures at a frame rate, from a blocking source to the event loop.

A thread reads and decodes, the loop takes. What happens when the loop takes more slowly than the source gives depends
on the source: a *live* one keeps only its newest picture, and counts those that it overwrites; a *file* waits, so that
every picture comes. A live source that breaks is opened again, with growing pauses. If its very first opening fails,
that is the user's mistake and ends the feed, unless it is told to wait for a camera that comes later.

    source ──shots──> thread: rate, decode ──slot of one──> ``async for picture in feed``
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from PIL import Image

from headwater.compression.datasets import read_image
from headwater.compression.errors import DataError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from headwater.device.sources import Shot, Source

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
TELL_S = 600.0
"""Between two lines of the log about a live source that stays away for the same reason."""
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

    def __init__(
        self, source: Source, fps: float | None = None, *, repeat: bool = False, wait_for_source: bool = False
    ) -> None:
        """Prepare to read.

        Args:
            source: where pictures come from.
            fps: pictures a second; None takes them as they come.
            repeat: begin a file source again at its end.
            wait_for_source: try again also if a live source cannot be opened the first time.
        """
        self.source = source
        self.dropped = 0
        """Pictures of a live source that were overwritten by a newer one before they were taken."""
        self.skipped = 0
        """Pictures that could not be decoded."""
        self._period_s = 1 / fps if fps else 0.0
        self._repeat = repeat and not source.live
        self._opened = wait_for_source
        self._moved_s = time.monotonic()
        self._told: tuple[str, float] = ("", 0.0)
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

    def silent_s(self, now_s: float) -> float:
        """For how long a live source has neither given a picture nor failed; 0 for files, which may wait for us.

        Every wait of a source that works ends: its timeouts and the pauses between openings are far below a minute.
        """
        return now_s - self._moved_s if self.source.live and not self._ended else 0.0

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
        while True:
            try:
                for shot in self.source.shots():
                    self._opened, pause_s = True, FIRST_PAUSE_S
                    self._moved_s = time.monotonic()
                    yield shot
            except SourceError as error:
                if not (self.source.live and self._opened):
                    raise
                self._tell(str(error))
            else:
                self._end_of_pass()
                if not (self.source.live or self._repeat):
                    return
            if self._stop.is_set() or (self.source.live and self._stop.wait(pause_s)):
                return
            self._moved_s = time.monotonic()
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _tell(self, why: str) -> None:
        """Say why a live source is away: at once, and then once in a while, for it may be away for months."""
        told, told_s = self._told
        now_s = time.monotonic()
        if why != told or now_s - told_s >= TELL_S:
            _log.warning("%s; it is opened again and again until it is there", why)
            self._told = (why, now_s)

    def _end_of_pass(self) -> None:
        if not (self.source.live or self._taken or self._stop.is_set()):
            raise SourceError(f"the source gave no readable picture; {self.skipped} files were skipped")


def decode(image: Image.Image | NDArray[np.uint8] | bytes | Path | str) -> tuple[Image.Image, str]:
    """Make a Pillow image of whatever a picture is given as, with its file's name if it has one."""
    if isinstance(image, Image.Image):
        return image, ""
    if isinstance(image, np.ndarray):
        return Image.fromarray(image), ""
    if isinstance(image, bytes):
        return read_image(image), ""
    return read_image(Path(image)), Path(image).name
