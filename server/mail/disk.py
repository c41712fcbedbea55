"""Work on the mailbox for the event loop, in threads; those for contents give way to frames.

What changes its records is done one thing after the other; to read, hash and write the contents of a transfer waits for
nothing but its own turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from headwater.compression.background import background
from headwater.compression.errors import HeadwaterError

T = TypeVar("T")

FILES_AT_ONCE = 4
"""Contents that are read, hashed or written at a time."""

_log = logging.getLogger(__name__)


class Disk:
    """A queue of work on the records, and a pool of threads for the files."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._records = ThreadPoolExecutor(1, thread_name_prefix="mailbox")
        self._files = background("contents", at_once=FILES_AT_ONCE)
        self._complaint = ""

    def then(self, work: Callable[[], T], take: Callable[[T], None] = lambda _: None) -> None:
        """Do it, then have the event loop take what came of it; a failure is logged, once for each."""
        done = self._loop.run_in_executor(self._records, work)
        done.add_done_callback(lambda future: self._done(future, take))

    async def run(self, work: Callable[[], T]) -> T:
        """Do it in its turn and wait; raises what it raises."""
        return await self._loop.run_in_executor(self._records, work)

    def beside(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do it beside all else: work on the files of a transfer."""
        return self._loop.run_in_executor(self._files, work)

    async def to_the_end(self, work: Callable[[], T]) -> T:
        """Do it beside all else, and do not leave before it is done: it has files open that are closed next."""
        running = self.beside(work)
        try:
            return await asyncio.shield(running)
        finally:
            await ended(running)

    def close(self) -> None:
        """Finish what is queued."""
        self._records.shutdown()
        self._files.shutdown()

    def _done(self, future: asyncio.Future[T], take: Callable[[T], None]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            take(future.result())
        elif str(error) != self._complaint:
            self._complaint = str(error)
            unexpected = None if isinstance(error, HeadwaterError) else error
            _log.error("the mailbox cannot be used", extra={"why": str(error)}, exc_info=unexpected)


async def ended(running: asyncio.Future[Any]) -> None:
    """Wait until it is done, whatever becomes of who waits."""
    while not running.done():
        with contextlib.suppress(asyncio.CancelledError):  # once more: this is on its way out already
            await asyncio.wait([running])
