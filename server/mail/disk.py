"""Work on the mailbox for the event loop: one thing after the other, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headwater.compression.errors import HeadwaterError

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Disk:
    """A queue of work; what is asked for first is done first."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mailbox")
        self._complaint = ""

    def then(self, work: Callable[[], T], take: Callable[[T], None] = lambda _: None) -> None:
        """Do it, then have the event loop take what came of it; a failure is logged, once for each."""
        done = self._loop.run_in_executor(self._thread, work)
        done.add_done_callback(lambda future: self._done(future, take))

    async def run(self, work: Callable[[], T]) -> T:
        """Do it and wait; raises what it raises."""
        return await self._loop.run_in_executor(self._thread, work)

    def close(self) -> None:
        """Finish what is queued."""
        self._thread.shutdown()

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
